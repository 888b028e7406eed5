"""Official pretraining checkpoints: files of our own making in their format, and files that are no such thing."""

from __future__ import annotations

import argparse
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf

from metro_t0.interop.fairseq import load_pretraining, rename
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from official_checkpoints import checkpoint_of, official_name
from tiny_networks import random_text, randomize, tiny_config

SHARINGS = ("none", "token", "token_pos", "token_pos_norm")


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[dict[str, Any]], Path]:
    def save(checkpoint: dict[str, Any]) -> Path:
        path = tmp_path / "checkpoint_last.pt"
        torch.save(checkpoint, path)
        return path

    return save


@pytest.fixture
def checkpoint() -> dict[str, Any]:
    return checkpoint_of(randomize(MetroT0ForPreTraining(tiny_config())))


@pytest.mark.parametrize("head", ["none", "simple", "roberta"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_model_comes_back_as_it_was(
    sharing: str, head: str, saved: Callable[[dict[str, Any]], Path]
) -> None:
    """Depths (stored wrong), sharing and head (stored as legacy values) are read off the tensors."""
    config = tiny_config(
        auxiliary_sharing=sharing, rtd_head=head, num_layers=3, num_decoder_layers=2, num_auxiliary_layers=1
    )
    model = randomize(MetroT0ForPreTraining(config)).eval()
    loaded = MetroT0ForPreTraining.from_fairseq(saved(checkpoint_of(model))).eval()
    expected = {**config.to_dict(), "dropout_rate": 0.25}
    for field in ("architectures", "dtype", "transformers_version", "_name_or_path"):
        expected.pop(field, None)
    assert {field: getattr(loaded.config, field) for field in expected} == expected
    assert [name for name, _ in loaded.named_parameters()] == [name for name, _ in model.named_parameters()]
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name
    objective = MetroObjective(rtd_weight=0.0 if head == "none" else 50.0)
    text = random_text([9, 5]).inputs()
    assert loaded(**text, objective=objective).loss == model(**text, objective=objective).loss


def test_every_name_maps_back() -> None:
    for head in ("simple", "roberta"):
        model = MetroT0ForPreTraining(tiny_config(rtd_head=head))
        for name in model.state_dict():
            if name != "shared.weight":
                assert rename(official_name(name)) == name


def test_dropout_as_wanted(checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]) -> None:
    path = saved(checkpoint)
    assert load_pretraining(path).config.dropout_rate == 0.25
    model = load_pretraining(str(path), dropout_rate=0.0)
    assert model.config.dropout_rate == model.encoder.dropout_rate == 0.0
    assert model.auxiliary.encoder.dropout_rate == 0.0


def test_a_loaded_model_saves_and_loads_as_ours(
    checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path], tmp_path: Path
) -> None:
    model = load_pretraining(saved(checkpoint))
    model.save_pretrained(tmp_path / "ours")
    again = MetroT0ForPreTraining.from_pretrained(tmp_path / "ours")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


def as_omegaconf(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """With all settings in omegaconf, one a reference to another."""
    cfg = checkpoint["cfg"]
    heads = {**cfg["model"], "encoder_attention_heads": "${task.heads}"}
    task = {**cfg["task"], "heads": cfg["model"]["encoder_attention_heads"]}
    return {**checkpoint, "args": None, "cfg": OmegaConf.create({"model": heads, "task": task})}


def as_namespaces(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """With the model's settings in a namespace inside omegaconf, as of models without a dataclass."""
    cfg = OmegaConf.create({"task": checkpoint["cfg"]["task"]}, flags={"allow_objects": True})
    cfg.model = argparse.Namespace(**checkpoint["cfg"]["model"])
    return {**checkpoint, "cfg": cfg}


def as_one_namespace(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """As before fairseq had sections."""
    cfg = checkpoint["cfg"]
    flat = argparse.Namespace(**{**cfg["model"], **cfg["task"]})
    return {**checkpoint, "cfg": None, "args": flat}


@pytest.mark.parametrize("kind", [as_omegaconf, as_namespaces, as_one_namespace])
@pytest.mark.parametrize("sharing", ["none", "token", "token_pos_norm"])
def test_settings_of_every_age(
    kind: Callable[[dict[str, Any]], dict[str, Any]], sharing: str, saved: Callable[[dict[str, Any]], Path]
) -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config(auxiliary_sharing=sharing))).eval()
    plain_one = checkpoint_of(model)
    expected = load_pretraining(saved(plain_one))
    loaded = load_pretraining(saved(kind(plain_one)))
    assert loaded.config.to_dict() == expected.config.to_dict()
    assert loaded.config.auxiliary_sharing == sharing
    for name, tensor in model.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor), name


def test_half_precision_becomes_float32(
    checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]
) -> None:
    halves = {name: tensor.half() for name, tensor in checkpoint["model"].items()}
    loaded = load_pretraining(saved({**checkpoint, "model": halves}))
    assert loaded.dtype == torch.float32
    assert loaded.config.auxiliary_sharing == "token_pos_norm"
    original = checkpoint["model"]["decoder.layers.0.fc1.weight"].half().float()
    assert torch.equal(loaded.state_dict()["decoder.block.0.layer.2.DenseReluDense.wi.weight"], original)


class TestMistakes:
    def test_no_file(self, tmp_path: Path) -> None:
        for path in (tmp_path / "nothing.pt", tmp_path):
            with pytest.raises(ValueError, match=f"no checkpoint at {path}$"):
                load_pretraining(path)

    @pytest.mark.parametrize("content", [b"", b"hello world\n", b'{"a": 1}', bytes(range(256)) * 10])
    def test_another_kind_of_file(self, tmp_path: Path, content: bytes) -> None:
        path = tmp_path / "checkpoint.pt"
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"checkpoint\.pt cannot be read as a fairseq checkpoint"):
            load_pretraining(path)

    def test_a_damaged_file(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path], tmp_path: Path
    ) -> None:
        path = saved(checkpoint)
        path.write_bytes(path.read_bytes()[:-2000])
        with pytest.raises(ValueError, match="it is damaged or of another kind"):
            load_pretraining(path)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("word/document.xml", "<w/>")
        with pytest.raises(ValueError, match="it is damaged or of another kind"):
            load_pretraining(path)

    def test_a_file_that_could_run_code(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]
    ) -> None:
        path = saved({**checkpoint, "args": eval})
        with pytest.raises(ValueError, match=r"it asks for eval, which .* could run code$"):
            MetroT0ForPreTraining.from_fairseq(path)

    @pytest.mark.parametrize(
        "content", [[1, 2], {"model": {}}, {"cfg": None, "model": {}}, {"cfg": {}, "model": 1}]
    )
    def test_no_checkpoint(self, content: Any, saved: Callable[[Any], Path]) -> None:
        with pytest.raises(ValueError, match="not a fairseq checkpoint: it has no 'cfg' and 'model'"):
            load_pretraining(saved(content))

    def test_no_model_of_this_kind(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]
    ) -> None:
        with pytest.raises(ValueError, match="not a METRO checkpoint: it has no encoder embedding"):
            load_pretraining(saved({**checkpoint, "model": {"w": torch.zeros(1)}}))
        main = {
            name: tensor
            for name, tensor in checkpoint["model"].items()
            if not name.startswith(("generator.", "rtd_head."))
        }
        with pytest.raises(ValueError, match=r"no auxiliary\.encoder layers"):
            load_pretraining(saved({**checkpoint, "model": main}))

    def test_every_missing_tensor_is_named(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]
    ) -> None:
        redundant = ("version", "generator.lm_head.weight", "rtd_head.dense.weight", "rtd_head.weight")
        names = [name for name in checkpoint["model"] if not name.endswith(redundant)]
        checkpoint["model"] = {name: tensor.clone() for name, tensor in checkpoint["model"].items()}
        for name in names[::7] + [name for name in names if "layers" not in name]:
            rest = {other: tensor for other, tensor in checkpoint["model"].items() if other != name}
            with pytest.raises(ValueError, match=r"encoder embedding|does not hold a whole METRO") as error:
                load_pretraining(saved({**checkpoint, "model": rest}))
            assert rename(name) in str(error.value) or name == "encoder.embed_tokens.weight"

    def test_a_tensor_too_many(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]
    ) -> None:
        checkpoint["model"]["encoder.lens.weight"] = torch.zeros(3)
        with pytest.raises(ValueError, match=r"unexpected \['encoder\.lens\.weight'\]"):
            load_pretraining(saved(checkpoint))

    def test_a_tensor_of_another_shape(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]
    ) -> None:
        checkpoint["model"]["decoder.embed_positions.weight"] = torch.zeros(7, 12)
        with pytest.raises(ValueError, match=r"decoder\.pos_embed\.weight is \[7, 12\].*ask for \[34, 12\]"):
            load_pretraining(saved(checkpoint))

    @pytest.mark.parametrize(
        ("section", "key"),
        [
            ("model", "encoder_attention_heads"),
            ("model", "encoder_rp_max_dist"),
            ("task", "tokens_per_sample"),
        ],
    )
    def test_a_missing_setting(
        self,
        checkpoint: dict[str, Any],
        saved: Callable[[dict[str, Any]], Path],
        section: str,
        key: str,
    ) -> None:
        del checkpoint["cfg"][section][key]
        with pytest.raises(ValueError, match=f"it has no '{key}'"):
            load_pretraining(saved(checkpoint))
        del checkpoint["cfg"][section]
        with pytest.raises(ValueError, match=f"it has no '{section}'"):
            load_pretraining(saved(checkpoint))

    @pytest.mark.parametrize("heads", [0, -3, 5, "many", None, [3], float("inf")])
    def test_heads_that_cannot_be(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path], heads: Any
    ) -> None:
        checkpoint["cfg"]["model"]["encoder_attention_heads"] = heads
        with pytest.raises(
            ValueError, match=r"checkpoint_last\.pt does not (fit together|hold a METRO model)"
        ):
            load_pretraining(saved(checkpoint))

    def test_what_is_no_tensor(
        self, checkpoint: dict[str, Any], saved: Callable[[dict[str, Any]], Path]
    ) -> None:
        checkpoint["model"]["encoder.layers.0.fc1.bias"] = [0.0]
        with pytest.raises(ValueError, match=r"its encoder\.layers\.0\.fc1\.bias is no tensor"):
            load_pretraining(saved(checkpoint))
