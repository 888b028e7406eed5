"""What a model to hand on is read from, and what is said of folders that hold none."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_sources import Story, save_pretraining_source, save_source

from metro_t0.sharing.source import read_source


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("saved") / "model"
    save_source(folder)
    return folder


@pytest.fixture
def folder(saved: Path, tmp_path: Path) -> Path:
    """A model folder to spoil."""
    return Path(shutil.copytree(saved, tmp_path / "model"))


def change_json(file: Path, **values: object) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")


def pickled(folder: Path, content: object) -> None:
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


class Planted:
    """Leaves a trace wherever it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.trace,)


def test_weights_in_parts_are_one_model(folder: Path) -> None:
    whole = read_source(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    parts = {
        "model-00001-of-00002.safetensors": sorted(weights)[::2],
        "model-00002-of-00002.safetensors": sorted(weights)[1::2],
    }
    for file, names in parts.items():
        save_file({name: weights[name] for name in names}, folder / file)
    index = {"weight_map": {name: file for file, names in parts.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    again = read_source(folder)
    assert again.weights.keys() == whole.weights.keys()
    assert all(torch.equal(again.weights[name], tensor) for name, tensor in whole.weights.items())
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model-00002-of-00002\.safetensors cannot be read"):
        read_source(folder)


def test_buffers_without_a_value_are_left_behind(folder: Path) -> None:
    names = read_source(folder).weights.keys()
    change_weights(folder, lambda w: w.update({"encoder.version": torch.tensor([3.0])}))
    assert read_source(folder).weights.keys() == names


def test_pretraining_parts_are_told_from_the_main_model(tmp_path: Path) -> None:
    model = save_pretraining_source(tmp_path / "model")
    source = read_source(tmp_path / "model")
    assert source.has_pretraining_parts and source.run is None
    names = {*source.weights, *source.tied}
    assert names == model.state_dict().keys()
    assert {*source.main_weights, *source.main_tied} == {
        name for name in names if not name.startswith(("auxiliary.", "rtd_head."))
    }


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "config.json").unlink(), "neither a run directory nor a model folder"),
        (lambda f: (f / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda f: change_json(f / "config.json", model_type="t5"), "no METRO-T0 model: .* 't5'"),
        (
            lambda f: change_json(f / "config.json", num_heads=5),
            r"does not describe a METRO-T0 model: num_heads",
        ),
        (lambda f: change_json(f / "config.json", d_ff=24), r"wi\.weight is \[20, 12\], where .* \[24, 12\]"),
        (lambda f: change_json(f / "config.json", num_layers=3), r"lack encoder\.block\.2\."),
        (lambda f: change_json(f / "config.json", num_layers=1), r"hold more .*: encoder\.block\.1\..* more"),
        (lambda f: (f / "model.safetensors").unlink(), "holds no weights"),
        (lambda f: (f / "model.safetensors").write_bytes(b"x" * 50), r"model\.safetensors cannot be read"),
        (lambda f: pickled(f, [torch.zeros(3)]), "holds something else than tensors by name"),
        (lambda f: change_weights(f, lambda w: w.pop("shared.weight")), r"lack shared\.weight"),
        (
            lambda f: change_weights(f, lambda w: w.update({"lm_head.weight": w["shared.weight"] + 1})),
            r"shared\.weight and lm_head\.weight .* differ",
        ),
        (lambda f: (f / "sp.model").unlink(), "there is no tokenizer in"),
        (lambda f: (f / "sp.model").write_bytes(b"no model"), "is not a SentencePiece model"),
        (lambda f: change_json(f / "tokenizer_config.json", n_sentinel_tokens=8), "98 ids, but .* 99 rows"),
        (lambda f: (f / "tokenizer_config.json").write_text("{"), "tokenizer"),
    ],
)
def test_a_folder_that_holds_no_whole_model(
    folder: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(folder)
    with pytest.raises(ValueError, match=message):
        read_source(folder)


def test_nothing_planted_in_weights_runs(folder: Path, tmp_path: Path) -> None:
    trace = tmp_path / "ran"
    pickled(folder, {"shared.weight": Planted(trace)})
    with pytest.raises(ValueError, match=r"pytorch_model\.bin cannot be read: it asks for .*could run code"):
        read_source(folder)
    assert not trace.exists()
    pickle.loads(pickle.dumps(Planted(trace)))
    assert trace.exists()


def test_there_is_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no such folder"):
        read_source(tmp_path / "nowhere")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("kind: pretrain\n")
    with pytest.raises(ValueError, match="no final model yet: finish it with --resume"):
        read_source(tmp_path / "run")
    (tmp_path / "a.pt").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"a\.pt cannot be read as a fairseq checkpoint"):
        read_source(tmp_path / "a.pt")


def test_a_damaged_checkpoint_is_told_from_a_whole_one(story: Story, tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(story.pretraining / "checkpoints" / "step-2", tmp_path / "step-2"))
    assert read_source(checkpoint).has_pretraining_parts
    weights = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(weights[:-1] + bytes([weights[-1] ^ 1]))
    with pytest.raises(ValueError, match=r"is damaged: model\.safetensors is not what was saved"):
        read_source(checkpoint)


@pytest.mark.slow
def test_a_name_on_the_hub(saved: Path, tmp_path: Path) -> None:
    """Out of the Hub's cache, as after a first download, without a network."""
    cached = tmp_path / "hub" / "models--me--model"
    shutil.copytree(saved, cached / "snapshots" / ("0" * 40))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"}
    code = """
import sys
from pathlib import Path
from metro_t0.sharing.source import read_source
print(len(read_source(Path("me/model")).weights))
try:
    read_source(Path("me/other"))
except ValueError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    number, refusal = done.stdout.splitlines()
    assert int(number) == len(read_source(saved).weights)
    assert refusal.startswith("there is no model at me/other: no such folder, and from the Hub: ")
