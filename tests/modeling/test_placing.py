"""``device_map``: the model finds its place, is never split within a block, and computes the same from there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from tiny_networks import PAD, random_ids, randomize, tiny_config

accelerate = pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def model() -> MetroT0ForConditionalGeneration:
    return randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()


@pytest.fixture(scope="module")
def folder(model: MetroT0ForConditionalGeneration, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder


@torch.no_grad()
def same_answers(one: MetroT0ForConditionalGeneration, other: MetroT0ForConditionalGeneration) -> None:
    ids = random_ids([12, 5, 8])
    inputs = {"input_ids": ids, "attention_mask": ids.ne(PAD).long()}
    expected = one(**inputs, decoder_input_ids=ids[:, :5], use_cache=False).logits
    found = other(**inputs, decoder_input_ids=ids[:, :5], use_cache=False).logits
    torch.testing.assert_close(found.cpu(), expected)
    for beams in (1, 2):
        settings: dict[str, Any] = {
            **inputs,
            "max_new_tokens": 8,
            "num_beams": beams,
            "repetition_penalty": 1.3,
        }
        assert torch.equal(other.generate(**settings).cpu(), one.generate(**settings))


def test_auto(model: MetroT0ForConditionalGeneration, folder: Path) -> None:
    placed = MetroT0ForConditionalGeneration.from_pretrained(folder, device_map="auto").eval()
    assert placed.lm_head.weight is placed.shared.weight is placed.encoder.embed_tokens.weight
    assert all(parameter.device.type != "meta" for parameter in placed.parameters())
    same_answers(model, placed)


@pytest.mark.parametrize("room", [12_000, 20_000, 28_000])
def test_auto_with_little_memory(
    model: MetroT0ForConditionalGeneration, folder: Path, tmp_path: Path, room: int
) -> None:
    """What does not fit stays on the disk and is fetched layer by layer."""
    placed = MetroT0ForConditionalGeneration.from_pretrained(
        folder, device_map="auto", max_memory={"cpu": room}, offload_folder=tmp_path
    ).eval()
    assert {"cpu", "disk"} == set(placed.hf_device_map.values())
    same_answers(model, placed)


@pytest.mark.parametrize("room", range(6_000, 34_000, 2_000))
def test_no_block_is_split(model: MetroT0ForConditionalGeneration, room: int) -> None:
    places = accelerate.infer_auto_device_map(
        model, max_memory={0: room, "cpu": 10**9}, no_split_module_classes=model._no_split_modules
    )
    for name in places:
        parts = name.split(".")
        assert "block" not in parts or len(parts) <= parts.index("block") + 2, f"{name} is part of a block"
