"""Checkpoints: whole or not there, exact, and refused when they are of another shape."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from small_runs import BAG_OPTIMIZER, bag_model

from metro_t0.training.checkpoint import (
    best_checkpoint,
    latest_checkpoint,
    load_checkpoint,
    prune,
    save_checkpoint,
    steps_saved,
    write_best,
)
from metro_t0.training.optimizer import build_optimizer


def trained(seed: int = 1) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = bag_model()
    optimizer = build_optimizer(model.parameters(), BAG_OPTIMIZER)
    torch.manual_seed(seed)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randint(1, 64, (3, 5))).square().sum().backward()
        optimizer.step()
    return model, optimizer


def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_checkpoint(tmp_path, 7, model, optimizer, {"sampler": {"epoch": 2}})
    other = bag_model()
    other_optimizer = build_optimizer(other.parameters(), BAG_OPTIMIZER)
    state = load_checkpoint(folder, other, other_optimizer)
    assert (state["step"], state["sampler"]) == (7, {"epoch": 2})
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        for name, value in optimizer.state[one].items():
            assert torch.equal(value, other_optimizer.state[two][name]), name


def test_the_latest_is_by_number_and_partial_ones_are_neither_seen_nor_kept(tmp_path: Path) -> None:
    model, optimizer = trained()
    assert latest_checkpoint(tmp_path) is None
    for step in (9, 10):
        save_checkpoint(tmp_path, step, model, optimizer, {})
    partial = tmp_path / ".step-11.partial"
    partial.mkdir()
    (partial / "optimizer.pt").write_bytes(b"half")
    assert latest_checkpoint(tmp_path) == tmp_path / "step-10"
    save_checkpoint(tmp_path, 12, model, optimizer, {})
    assert not partial.exists()
    write_best(tmp_path, 9)
    prune(tmp_path, keep={9, 12})
    assert steps_saved(tmp_path) == [9, 12]
    assert best_checkpoint(tmp_path) == tmp_path / "step-9"


def test_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_checkpoint(tmp_path, 1, model, optimizer, {})
    wider = bag_model(width=12)
    with pytest.raises(
        ValueError, match=r"another shape: embedding\.weight is \[64, 8\] there and \[64, 12\] in this"
    ):
        load_checkpoint(folder, wider, build_optimizer(wider.parameters(), BAG_OPTIMIZER))
    more = bag_model()
    more.extra = torch.nn.Linear(2, 2)
    with pytest.raises(ValueError, match=r"another shape: extra\.weight is in this configuration only"):
        load_checkpoint(folder, more, build_optimizer(more.parameters(), BAG_OPTIMIZER))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("state.json", "not a checkpoint"),
        ("model.safetensors", "cannot be read"),
        ("optimizer.pt", "cannot be used"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, message: str) -> None:
    model, optimizer = trained()
    folder = save_checkpoint(tmp_path, 1, model, optimizer, {})
    (folder / file).write_bytes((folder / file).read_bytes()[:20])
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder, model, optimizer)


def test_another_format_is_refused(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = save_checkpoint(tmp_path, 1, model, optimizer, {})
    (folder / "state.json").write_text(json.dumps({"format_version": 99}), encoding="utf-8")
    with pytest.raises(ValueError, match="format version 99; this metro-t0 reads 1"):
        load_checkpoint(folder, model, optimizer)
