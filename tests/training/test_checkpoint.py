"""Checkpoints: exact, proven whole or skipped, and refused when they are of another shape."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import BAG_OPTIMIZER, bag_model

from metro_t0.training.checkpoint import (
    DamagedCheckpointError,
    best_checkpoint,
    check_whole,
    kept_steps,
    load_checkpoint,
    newest_whole,
    prune,
    steps_saved,
    write_best,
)
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.saving import CheckpointSaver

FILES = ["config.json", "model.safetensors", "optimizer/.metadata", "optimizer/__0_0.distcp", "state.json"]


def trained(seed: int = 1) -> tuple[Any, torch.optim.Optimizer]:
    model = bag_model()
    optimizer = build_optimizer(model.parameters(), BAG_OPTIMIZER)
    torch.manual_seed(seed)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randint(1, 64, (3, 5))).square().sum().backward()
        optimizer.step()
    return model, optimizer


def saved(checkpoints: Path, *steps: int) -> Path:
    """Checkpoints of some steps; the folder of the last."""
    model, optimizer = trained()
    with CheckpointSaver(checkpoints, model, optimizer, keep_last=len(steps)) as saver:
        for step in steps:
            saver.save(step, {"sampler": {"epoch": 2}})
    return checkpoints / f"step-{steps[-1]}"


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def test_what_is_loaded_is_what_was_saved_bit_for_bit(tmp_path: Path) -> None:
    model, optimizer = trained()
    folder = saved(tmp_path, 7)
    other = bag_model()
    other_optimizer = build_optimizer(other.parameters(), BAG_OPTIMIZER)
    state = load_checkpoint(folder, other, other_optimizer)
    assert (state["step"], state["sampler"]) == (7, {"epoch": 2})
    for one, two in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
        assert set(optimizer.state[one]) == {"step", "exp_avg", "exp_avg_sq"}
        for name, value in optimizer.state[one].items():
            assert torch.equal(value, other_optimizer.state[two][name]), name


def test_a_parameter_without_a_gradient_so_far_has_no_state_afterwards(tmp_path: Path) -> None:
    model = bag_model()
    optimizer = build_optimizer(model.parameters(), BAG_OPTIMIZER)
    model.embedding(torch.tensor([3])).sum().backward()
    optimizer.step()
    with CheckpointSaver(tmp_path, model, optimizer) as saver:
        saver.save(1, {})
    other = bag_model()
    other_optimizer = build_optimizer(other.parameters(), BAG_OPTIMIZER)
    load_checkpoint(tmp_path / "step-1", other, other_optimizer)
    assert list(other_optimizer.state) == [other.embedding.weight]
    assert other_optimizer.state[other.embedding.weight]["step"] == 1


def test_the_newest_is_by_number_and_partial_ones_are_not_seen(tmp_path: Path) -> None:
    assert newest_whole(tmp_path) is None
    saved(tmp_path, 9, 10)
    (tmp_path / ".step-11.partial").mkdir()
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == tmp_path / "step-10"
    assert not said
    write_best(tmp_path, 9)
    prune(tmp_path, keep={9})
    assert steps_saved(tmp_path) == [9]
    assert best_checkpoint(tmp_path) == tmp_path / "step-9"
    write_best(tmp_path, 10)
    assert best_checkpoint(tmp_path) is None


@pytest.mark.parametrize("file", [*FILES, "manifest.json"])
@pytest.mark.parametrize("harm", [cut, flip, Path.unlink])
def test_a_damaged_one_is_named_and_the_one_before_is_used(tmp_path: Path, file: str, harm: Any) -> None:
    newest = saved(tmp_path, 1, 2)
    harm(newest / file)
    said: list[str] = []
    assert newest_whole(tmp_path, said.append) == tmp_path / "step-1"
    assert len(said) == 1 and "\n" not in said[0]
    assert said[0].startswith(f"{newest} is damaged: ") and said[0].endswith("; it is skipped")
    # Damage to a manifest can look like damage to the file that it names.
    assert file in said[0] or file == "manifest.json"


def test_nothing_but_damaged_ones_is_an_error_with_the_mend(tmp_path: Path) -> None:
    saved(tmp_path, 1, 2)
    for step in (1, 2):
        cut(tmp_path / f"step-{step}" / "model.safetensors")
    said: list[str] = []
    with pytest.raises(
        ValueError, match=r"no checkpoint of .* is whole \(.*step-1 is damaged.*\): remove that folder"
    ):
        newest_whole(tmp_path, said.append)
    assert len(said) == 2


def test_every_file_is_in_the_manifest(tmp_path: Path) -> None:
    folder = saved(tmp_path, 3)
    files = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))["files"]
    there = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(files) == there - {"manifest.json"} and set(FILES) <= set(files)
    check_whole(folder)
    (folder / "note.txt").write_text("one's own file does no harm")
    check_whole(folder)
    (folder / "state.json").unlink()
    with pytest.raises(DamagedCheckpointError, match=r"state\.json: No such file"):
        check_whole(folder)


def test_the_rule_of_what_is_kept() -> None:
    saved_steps = [10, 20, 30, 40, 50]
    assert kept_steps(saved_steps, 50, last=1, every=None, best=None) == {50}
    assert kept_steps(saved_steps, 50, last=2, every=None, best=20) == {20, 40, 50}
    assert kept_steps(saved_steps, 50, last=1, every=20, best=None) == {20, 40, 50}
    assert kept_steps(saved_steps, 50, last=9, every=None, best=7) == set(saved_steps)
    # A run that went back before a damaged step 50 is at 40 again.
    assert kept_steps(saved_steps, 40, last=2, every=None, best=50) == {30, 40}


def test_another_shape_is_refused_by_name(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1)
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
        ("state.json", "is damaged: its state.json cannot be read"),
        ("model.safetensors", "model.safetensors cannot be read"),
        ("optimizer/__0_0.distcp", "optimizer cannot be used"),
        ("optimizer/.metadata", "optimizer cannot be used"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, message: str) -> None:
    folder = saved(tmp_path, 1)
    (folder / file).write_bytes((folder / file).read_bytes()[:20])
    model, optimizer = trained()
    with pytest.raises(ValueError, match=message):
        load_checkpoint(folder, model, optimizer)


def test_another_format_is_refused_not_skipped(tmp_path: Path) -> None:
    folder = saved(tmp_path, 1, 2)
    (folder / "manifest.json").unlink()
    (folder / "state.json").write_text(json.dumps({"format_version": 1}), encoding="utf-8")
    with pytest.raises(ValueError, match=r"step-2 has format version 1; this metro-t0 reads 2"):
        newest_whole(tmp_path)
