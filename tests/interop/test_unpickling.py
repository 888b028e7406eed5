"""Checkpoints with real omegaconf and argparse objects in them, and with objects that would run code."""

from __future__ import annotations

import argparse
import builtins
import collections
import enum
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import omegaconf
import pytest
import torch
from omegaconf import OmegaConf

from metro_t0.interop.unpickling import plain, read_checkpoint


class Backend(enum.StrEnum):
    """As fairseq's: a choice among strings, each under its own name."""

    slow = "slow"


# A checkpoint names its classes; these are to be fairseq's.
Backend.__module__ = "fairseq.dataclass.constants"


@dataclass
class Model:
    dropout: float = 0.1
    layers: list[int] = field(default_factory=lambda: [1, 2])
    backend: Backend = Backend.slow
    tokens: Any = "${task.tokens_per_sample}"
    name: str | None = None


Model.__module__ = "fairseq.dataclass.configs"
TASK = {
    "tokens_per_sample": 9,
    "nested": {"deep": [1.5, None, True, {"x": "${model.dropout}"}]},
    "far": "${no.such}",
}
EXPECTED = {
    "model": {"dropout": 0.1, "layers": [1, 2], "backend": "slow", "tokens": 9, "name": None},
    "task": {**TASK, "nested": {"deep": [1.5, None, True, {"x": 0.1}]}},
}


@pytest.fixture(autouse=True)
def as_if_fairseq_were_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that its classes can be written; reading imports nothing."""
    for name in ("fairseq", "fairseq.dataclass", Backend.__module__, Model.__module__):
        monkeypatch.setitem(sys.modules, name, sys.modules[__name__])


@pytest.fixture
def save(tmp_path: Path) -> Callable[..., Path]:
    def write(content: Any, **how: Any) -> Path:
        path = tmp_path / "checkpoint.pt"
        torch.save(content, path, **how)
        return path

    return write


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
def test_omegaconf_and_argparse_become_plain(save: Callable[..., Path], zipped: bool) -> None:
    config = OmegaConf.create({"model": OmegaConf.structured(Model), "task": TASK})
    namespace = argparse.Namespace(arch="t5", sizes=[1, (2, 3)], inner=argparse.Namespace(seed=1))
    tensor = torch.arange(6.0).half().view(2, 3)
    state = {
        "loss": np.float64(1.5),
        "array": np.arange(3),
        "path": Path("x"),
        "counts": collections.defaultdict(list, a=[1]),
        "order": collections.OrderedDict(b=2),
    }
    path = save(
        {"cfg": config, "args": namespace, "model": {"w": tensor}, "extra_state": state},
        _use_new_zipfile_serialization=zipped,
    )
    found = read_checkpoint(path)
    assert plain(found["cfg"]) == EXPECTED
    assert plain(found["args"]) == {"arch": "t5", "sizes": [1, [2, 3]], "inner": {"seed": 1}}
    assert torch.equal(found["model"]["w"], tensor) and found["model"]["w"].dtype == torch.float16
    assert found["extra_state"]["order"] == {"b": 2} and found["extra_state"]["counts"] == {"a": [1]}


def test_a_namespace_inside_omegaconf(save: Callable[..., Path]) -> None:
    config = OmegaConf.create({"task": {"a": 1}}, flags={"allow_objects": True})
    config.model = argparse.Namespace(arch="t5", twice="${task.a}")
    assert plain(read_checkpoint(save({"cfg": config}))["cfg"]) == {
        "model": {"arch": "t5", "twice": 1},
        "task": {"a": 1},
    }


def test_neither_library_is_imported(save: Callable[..., Path]) -> None:
    path = save({"cfg": OmegaConf.create({"a": OmegaConf.structured(Model)})})
    code = """
import sys
from pathlib import Path
from metro_t0.interop.unpickling import plain, read_checkpoint
assert plain(read_checkpoint(Path(sys.argv[1]))["cfg"])["a"]["dropout"] == 0.1
assert not {"omegaconf", "fairseq"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True)


def test_what_is_admitted_here_is_not_admitted_elsewhere(save: Callable[..., Path]) -> None:
    path = save({"args": argparse.Namespace(a=1)})
    read_checkpoint(path)
    with pytest.raises(pickle.UnpicklingError, match=r"argparse\.Namespace"):
        torch.load(path, weights_only=True)


def test_references_in_a_circle_stay_as_they_are(save: Callable[..., Path]) -> None:
    config = OmegaConf.create({"a": "${b}", "b": "${a}", "c": "${d}", "d": {"e": 1}})
    assert plain(read_checkpoint(save({"cfg": config}))["cfg"]) == {
        "a": "${b}",
        "b": "${a}",
        "c": "${d}",
        "d": {"e": 1},
    }


def test_settings_that_hold_themselves(save: Callable[..., Path]) -> None:
    namespace = argparse.Namespace()
    namespace.me = namespace
    found = read_checkpoint(save({"args": namespace}))
    with pytest.raises(ValueError, match="hold themselves"):
        plain(found["args"])


class Call:
    """Pickles as a call of ``function``: whoever unpickles it blindly makes the call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


def hostile(touched: Path) -> dict[str, tuple[Any, str]]:
    """Objects that make the file ``touched`` when they are unpickled blindly, and the name that each asks for."""
    system = Call(os.system, f"touch {touched}")
    python = f"open({str(touched)!r}, 'w').close()"
    node = OmegaConf.create({"a": 1}, flags={"allow_objects": True})
    node.a = system
    return {
        "a system call": (system, "posix.system"),
        "eval": (Call(builtins.eval, python), "eval"),
        "exec": (Call(builtins.exec, python), "exec"),
        "a process": (Call(subprocess.check_call, ["touch", str(touched)]), "subprocess.check_call"),
        "nested": ({"extra_state": [{"a": (1, [system])}]}, "posix.system"),
        "in omegaconf": ({"cfg": node}, "posix.system"),
        "in argparse": ({"args": argparse.Namespace(seed=system)}, "posix.system"),
        "as an argument": (Call(collections.OrderedDict, [("a", system)]), "posix.system"),
        "beside a tensor": ({"model": {"w": torch.ones(1), "x": system}}, "posix.system"),
    }


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before torch 1.6"])
@pytest.mark.parametrize("name", hostile(Path()))
def test_nothing_runs(name: str, zipped: bool, save: Callable[..., Path], tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    content, wanted = hostile(touched)[name]
    path = save(content, _use_new_zipfile_serialization=zipped)
    with pytest.raises(
        ValueError, match=rf"checkpoint\.pt cannot be read .* it asks for {wanted}, .* run code$"
    ):
        read_checkpoint(path)
    assert not touched.exists()
    torch.load(path, weights_only=False)
    assert touched.exists(), "the file is harmless: the test shows nothing"


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [(setattr, "setattr"), (builtins.__import__, "__import__"), (torch.load, "torch.serialization.load")],
)
def test_what_leads_to_code_is_refused_by_name(kind: Any, wanted: str, save: Callable[..., Path]) -> None:
    with pytest.raises(ValueError, match=f"it asks for {wanted}, which"):
        read_checkpoint(save({"a": kind}))


def test_names_that_are_admitted_run_nothing_either(tmp_path: Path, save: Callable[..., Path]) -> None:
    """omegaconf and fairseq have functions too; whatever is asked of them, a record is made."""
    resolver = Call(omegaconf.OmegaConf.load, str(tmp_path))
    with pytest.raises(ValueError, match=r"checkpoint\.pt cannot be read as a fairseq checkpoint"):
        read_checkpoint(save(resolver))
    member = read_checkpoint(save({"a": Call(getattr, Backend, "slow")}))
    assert plain(member) == {"a": "slow"}, "nothing was looked up"
    found = read_checkpoint(save({"a": Call(omegaconf.omegaconf.open_dict, 1)}))
    assert plain(found) == {"a": 1}


@pytest.mark.parametrize(
    "content", [b"", b"hello world\n", bytes(range(256)) * 10, b"PK\x03\x04", b"\x80\x02."]
)
def test_what_is_no_checkpoint(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"checkpoint\.pt cannot be read .* damaged or of another kind$"):
        read_checkpoint(path)
    with pytest.raises(ValueError, match="there is no checkpoint at"):
        read_checkpoint(tmp_path)
