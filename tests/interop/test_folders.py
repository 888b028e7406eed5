"""Folders in the published format: whole ones load, whatever is wrong with others is one line that names it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from transformers.utils import logging

from metro_t0.evaluation.loading import load_model
from metro_t0.interop.folders import read_network, read_parts
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from published_folders import edit_config, edit_weights, save_published

QUERY = "encoder.block.1.layer.0.SelfAttention.q.weight"
MAIN = MetroT0ForConditionalGeneration


@pytest.fixture(scope="module")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_published(tmp_path_factory.mktemp("published") / "model")


@pytest.fixture
def folder(pristine: Path, tmp_path: Path) -> Path:
    """A folder to spoil."""
    return shutil.copytree(pristine, tmp_path / "model")


class Touch:
    """Makes a file when it is unpickled blindly."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.system, (f"touch {self.path}",)


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def test_weights_come_as_they_are(folder: Path) -> None:
    stored = weights_of(folder)
    model, tokenizer = load_model(folder)
    assert not model.training and len(tokenizer) == model.config.vocab_size
    assert model.config.relative_attention_max_distance == 22
    for name, value in model.state_dict().items():
        assert torch.equal(value, stored[name]), name
    shutil.move(folder / "pytorch_model.bin", folder.parent)
    names = [name for name in stored if name.split(".")[-2] not in ("embed_tokens", "lm_head")]
    save_file({name: stored[name] for name in names}, folder / "model.safetensors", {"format": "pt"})
    for name, value in load_model(folder)[0].state_dict().items():
        assert torch.equal(value, stored[name]), name


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_half_precision_is_converted(tmp_path: Path, precision: Any) -> None:
    folder = save_published(tmp_path / "half", torch.float16)
    assert weights_of(folder)[QUERY].dtype == torch.float16
    model, tokenizer = load_model(folder, precision)
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[precision]
    assert {value.dtype for value in model.parameters()} == {dtype}
    assert torch.equal(model.state_dict()[QUERY], weights_of(folder)[QUERY].to(dtype))
    batch = tokenizer(["the cat", "is this right?"], padding=True, return_tensors="pt")
    logits = model(**batch, labels=batch["input_ids"]).logits
    assert logits.dtype == dtype and logits.isfinite().all()


def test_the_relative_distance_is_a_setting(folder: Path, tmp_path: Path) -> None:
    """As the folder says unless told otherwise; 128, what every published one says, where it says nothing."""
    ids = torch.arange(4, 64)[None]
    inputs = {"input_ids": ids, "labels": ids[:, :5]}
    as_stored = read_network(MAIN, folder, torch.float32)
    far = MAIN.from_pretrained(folder, relative_attention_max_distance=256)
    assert far.config.relative_attention_max_distance == 256
    difference = (as_stored(**inputs).logits - far(**inputs).logits).abs().max()
    assert difference > 1e-3
    far.save_pretrained(tmp_path / "far")
    again = MAIN.from_pretrained(tmp_path / "far")
    assert torch.equal(again(**inputs).logits, far(**inputs).logits)
    edit_config(folder, relative_attention_max_distance=None)
    path = folder / "config.json"
    text = path.read_text(encoding="utf-8").replace('"relative_attention_max_distance": null, ', "")
    path.write_text(text, encoding="utf-8")
    assert MAIN.from_pretrained(folder).config.relative_attention_max_distance == 128


def test_other_shapes_and_bucket_counts(tmp_path: Path) -> None:
    changes = {
        "relative_attention_num_buckets": 64,
        "relative_attention_max_distance": 100,
        "num_layers": 1,
        "num_decoder_layers": 4,
        "d_model": 24,
        "num_heads": 6,
    }
    model, _ = load_model(save_published(tmp_path / "other", **changes))
    for name, value in changes.items():
        assert getattr(model.config, name) == value
    assert model.get_parameter(
        "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    ).shape == (
        64,
        6,
    )


def test_buffers_that_fairseq_leaves_are_passed_over(folder: Path) -> None:
    edit_weights(folder, {"encoder.version": torch.tensor([3.0])})
    assert torch.equal(load_model(folder)[0].state_dict()[QUERY], weights_of(folder)[QUERY])


def test_a_planted_pickle_does_not_run(folder: Path, tmp_path: Path) -> None:
    touched = tmp_path / "touched"
    edit_weights(folder, {QUERY: Touch(touched)})
    with pytest.raises(ValueError, match=r"it asks for posix\.system, which is no part of a model"):
        load_model(folder)
    with pytest.raises(Exception, match=r"posix\.system"):
        MAIN.from_pretrained(folder)
    done = subprocess.run(
        [sys.executable, "-m", "metro_t0.cli.main", "generate", str(folder), "Hello"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.count("\n") == 1 and "posix.system" in done.stderr
    assert not touched.exists()
    torch.load(folder / "pytorch_model.bin", weights_only=False)
    assert touched.exists(), "the file is harmless: the test shows nothing"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({QUERY: None}, rf"not those of a whole model: {QUERY} is missing, and would have been random$"),
        (
            {QUERY: None, "decoder.first_layer_norm.bias": None},
            r"first_layer_norm\.bias and 1 more are missing",
        ),
        ({QUERY: torch.zeros(3, 12)}, rf"{QUERY} is \[3, 12\], where the configuration asks for \[12, 12\]$"),
        ({"encoder.block.7.layer.1.layer_norm.bias": torch.zeros(12)}, r"encoder\.block\.7.* is of no use"),
        ({QUERY: 3}, "cannot be read: they are damaged or of another kind"),
    ],
)
def test_weights_that_do_not_fit(
    folder: Path, changes: dict[str, Any], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_weights(folder, changes)
    verbosity = logging.get_verbosity()
    with pytest.raises(ValueError, match=message):
        load_model(folder)
    assert capfd.readouterr().err == "" and logging.get_verbosity() == verbosity


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 700}, r"is \[602, 12\], where the configuration asks for \[700, 12\]"),
        ({"num_layers": 3}, r"encoder\.block\.2\..* missing, and would have been random"),
        ({"num_layers": 1}, r"encoder\.block\.1\..* of no use in the network"),
        ({"relative_attention_num_buckets": 32}, r"relative_attention_bias\.weight is \[16, 3\].* \[32, 3\]"),
        ({"num_heads": 5}, r"num_heads \* d_kv must be d_model"),
    ],
)
def test_a_configuration_that_does_not_fit(folder: Path, changes: dict[str, Any], message: str) -> None:
    edit_config(folder, **changes)
    with pytest.raises(ValueError, match=message):
        load_model(folder)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("pytorch_model.bin", r"no file named model\.safetensors, or pytorch_model\.bin"),
        ("sp.model", r"lacks sp\.model"),
        ("dict.txt", r"lacks dict\.txt"),
        ("config.json", r"holds a config\.json"),
    ],
)
def test_a_missing_file_is_named(folder: Path, name: str, message: str) -> None:
    (folder / name).unlink()
    with pytest.raises(ValueError, match=message):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04", b"\x80\x02]q\x00."])
def test_weights_that_are_none(folder: Path, content: bytes) -> None:
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(ValueError, match=r"the weights in .* cannot be read|cannot read the model at"):
        load_model(folder)


def test_parts_that_a_folder_has_left_behind(folder: Path) -> None:
    edit_config(folder, num_sentinel_tokens=512)
    model, missing = read_parts(MetroT0ForPreTraining, folder, torch.float32)
    assert isinstance(model, MetroT0ForPreTraining)
    assert missing and all(name.startswith(("auxiliary.", "rtd_head.")) for name in missing)
    with pytest.raises(ValueError, match=r"auxiliary\..* more are missing"):
        read_network(MetroT0ForPreTraining, folder, torch.float32)
