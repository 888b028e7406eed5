"""Checkpoints of other programs, read so that nothing in them can run.

>>> checkpoint = read_checkpoint(Path("checkpoint_last.pt"))      # tensors, plain values and inert records
>>> plain(checkpoint["cfg"])["model"]["dropout"]
0.1

The file goes through torch's restricted unpickler, which makes tensors and plain values and refuses every other
name. Those that fairseq writes beside tensors (omegaconf's containers, argparse's namespaces, its own enumerations)
are admitted as records: classes of this module that keep what they are given and do nothing with it. So neither
omegaconf nor fairseq need be installed, and no code but this runs.
"""

from __future__ import annotations

import pickletools
import re
import zipfile
from _compat_pickle import IMPORT_MAPPING, NAME_MAPPING
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

_ADMITTED = re.compile(
    r"(omegaconf|fairseq)\.[\w.]+|argparse\.Namespace|collections\.defaultdict|_?operator\.getitem|typing\.\w+"
    r"|builtins\.(bool|bytes|dict|float|frozenset|getattr|int|list|object|set|str|tuple|type)"
    r"|pathlib\.(Pure)?(Posix|Windows)?Path|types\.(NoneType|UnionType|GenericAlias)"
    r"|numpy\.(dtype|ndarray|_?core\.multiarray\.(scalar|_reconstruct)|dtypes\.\w+DType)"
)
_REFUSED = re.compile(r"GLOBAL (\S+)")
_INTERPOLATION = re.compile(r"\$\{([\w.]+)\}")
# Files from before torch 1.6 are pickles in a row: a magic number, a version, facts of the machine, the checkpoint.
_PICKLES_IN_A_ROW = 4


class Record:
    """An object of a class that is not here: what it was made with, and its state.

    Attributes:
        arguments: of its construction.
        state: its attributes by name.
    """

    def __init__(self, *arguments: Any) -> None:
        self.arguments = arguments
        self.state: dict[str, Any] = {}

    def __new__(cls, *arguments: Any) -> Record:
        record = super().__new__(cls)
        record.arguments, record.state = arguments, {}
        return record

    def __setstate__(self, state: Any) -> None:
        # A class with slots has two dictionaries.
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.state.update(part)


def refused_name(error: BaseException) -> str | None:
    """The name that torch's unpickler would not admit, where that is why it failed."""
    found = _REFUSED.search(str(error))
    if found is None:
        return None
    module, _, name = found[1].rpartition(".")
    return f"{IMPORT_MAPPING.get(module, module)}.{name}".removeprefix(".")


def read_checkpoint(path: Path) -> Any:
    """What ``torch.save`` wrote, on the CPU.

    Raises:
        ValueError: the file is no checkpoint, or holds something that could run code; the message names it.
    """
    if not path.is_file():
        raise ValueError(f"there is no checkpoint at {path}")
    try:
        records = [(_stand_in(name), name) for name in sorted(_names(path)) if _ADMITTED.fullmatch(name)]
        with torch.serialization.safe_globals(records):  # type: ignore[arg-type]
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a foreign file makes the unpickler stumble in any way
        refused = refused_name(error)
        reason = "it is damaged or of another kind"
        if refused:
            reason = f"it asks for {refused}, which is no part of a checkpoint and could run code"
        raise ValueError(f"{path} cannot be read as a fairseq checkpoint: {reason}") from error


def plain(value: Any) -> Any:
    """Dictionaries, lists and values in place of omegaconf's containers and nodes and argparse's namespaces.

    omegaconf's references to other values (``${task.tokens_per_sample}``) are followed from ``value`` on; where one
    leads nowhere it stays as it is.

    Raises:
        ValueError: the value holds itself.
    """
    try:
        bare = _bare(value)
    except RecursionError:
        raise ValueError("the settings of the checkpoint hold themselves") from None
    return _resolved(bare, bare)


def _names(path: Path) -> Iterator[str]:
    """Every name that the file's pickles could ask for, as torch's unpickler spells it."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith("data.pkl"):
                    with archive.open(member) as stream:
                        yield from _names_in_pickle(stream)
        return
    with path.open("rb") as file:
        for _ in range(_PICKLES_IN_A_ROW):
            yield from _names_in_pickle(file)


def _names_in_pickle(stream: Any) -> Iterator[str]:
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name == "GLOBAL":
            module, name = str(argument).split(" ", 1)
            module, name = NAME_MAPPING.get((module, name), (module, name))
            yield f"{'builtins' if module == '__builtin__' else module}.{name}"


def _stand_in(name: str) -> Any:
    if name == "collections.defaultdict":
        return _empty_dictionary
    if name == "builtins.getattr":
        return _member
    return type(name.rpartition(".")[2], (Record,), {})


def _member(owner: Any, name: Any) -> Record:
    """In place of ``getattr``, by which early Pythons 3.11 write a member of an enumeration; looks nothing up."""
    return Record(name)


def _empty_dictionary(*factory: Any) -> dict[Any, Any]:
    return {}


def _bare(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _bare(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_bare(item) for item in value]
    if isinstance(value, Record):
        for field in ("_content", "_val"):
            if field in value.state:
                return _bare(value.state[field])
        # A namespace is its attributes, a member of an enumeration its value.
        return _bare(value.state) if value.state else next(iter(value.arguments), None)
    return value


def _resolved(value: Any, root: Any) -> Any:
    if isinstance(value, dict):
        return {key: _resolved(item, root) for key, item in value.items()}
    if isinstance(value, list):
        return [_resolved(item, root) for item in value]
    followed, seen = value, set()
    while isinstance(followed, str) and (reference := _INTERPOLATION.fullmatch(followed)):
        seen.add(followed)
        followed = root
        for part in reference[1].split("."):
            followed = followed.get(part) if isinstance(followed, dict) else None
        if followed is None or isinstance(followed, dict | list) or followed in seen:
            return value
    return followed
