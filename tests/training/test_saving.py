"""Saving beside training: exact copies, whole or nothing, on full disks, from one process or several."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from small_runs import BAG_OPTIMIZER, bag_model, fill, small_network
from torch.distributed.checkpoint import FileSystemReader

from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.training.checkpoint import (
    best_checkpoint,
    check_whole,
    load_checkpoint,
    newest_whole,
    steps_saved,
)
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.saving import CheckpointSaver


def updated(model: Any, seed: int = 1) -> tuple[Any, torch.optim.Optimizer]:
    """A model and its optimizer after one update with gradients of noise."""
    optimizer = build_optimizer(model.parameters(), BAG_OPTIMIZER)
    torch.manual_seed(seed)
    update(model, optimizer)
    return model, optimizer


def update(model: Any, optimizer: torch.optim.Optimizer) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.randn_like(parameter)
    optimizer.step()
    optimizer.zero_grad()


def loaded(checkpoint: Path, model: Any) -> dict[str, torch.Tensor]:
    """Everything that a checkpoint puts into a model and an optimizer."""
    optimizer = build_optimizer(model.parameters(), BAG_OPTIMIZER)
    load_checkpoint(checkpoint, model, optimizer)
    return everything(model, optimizer)


def everything(model: Any, optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    values = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    for name, parameter in model.named_parameters():
        values |= {f"{name} {key}": value.clone() for key, value in optimizer.state[parameter].items()}
    return values


def assert_same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert list(one) == list(other)
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


def test_what_changes_after_a_save_is_not_in_it(tmp_path: Path) -> None:
    model, optimizer = updated(small_network(seed=1))
    at = {}
    with CheckpointSaver(tmp_path, model, optimizer, keep_last=9) as saver:
        for step in range(1, 6):
            at[step] = everything(model, optimizer)
            saver.save(step, {})
            update(model, optimizer)
    assert steps_saved(tmp_path) == [1, 2, 3, 4, 5]
    for step, values in at.items():
        check_whole(tmp_path / f"step-{step}")
        assert_same(loaded(tmp_path / f"step-{step}", small_network(seed=2)), values)


def test_a_checkpoint_is_a_model_that_anyone_can_load(tmp_path: Path) -> None:
    model, optimizer = updated(small_network(seed=1))
    with CheckpointSaver(tmp_path, model, optimizer) as saver:
        saver.save(1, {})
    found, info = MetroT0ForPreTraining.from_pretrained(tmp_path / "step-1", output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"]
    for name, value in model.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name
    # The weights are there once.
    weights = sum(parameter.numel() for parameter in model.parameters()) * 4
    assert weights < (tmp_path / "step-1" / "model.safetensors").stat().st_size < 1.1 * weights
    stored = FileSystemReader(tmp_path / "step-1" / "optimizer").read_metadata().state_dict_metadata
    assert all(name.startswith("optimizer.") for name in stored)


def test_older_ones_go_only_once_the_new_one_is_whole(tmp_path: Path) -> None:
    model, optimizer = updated(bag_model())
    with CheckpointSaver(tmp_path, model, optimizer, keep_last=1) as saver:
        saver.save(1, {}, best=1)
        saver.save(2, {}, best=1)
        saver.save(3, {}, best=1)
        saver.wait()
        assert steps_saved(tmp_path) == [1, 3]
        assert best_checkpoint(tmp_path) == tmp_path / "step-1"
        saver.save(4, {}, best=4)
    assert steps_saved(tmp_path) == [4]
    assert best_checkpoint(tmp_path) == tmp_path / "step-4"
    assert not list(tmp_path.glob(".*"))


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / ".step-3.partial" / "optimizer").mkdir(parents=True)
    (tmp_path / ".best.partial").write_text("step-")
    with CheckpointSaver(tmp_path, *updated(bag_model())):
        pass
    assert not list(tmp_path.iterdir())


def test_an_error_shows_at_the_next_look(tmp_path: Path) -> None:
    model, optimizer = updated(bag_model())
    in_the_way = tmp_path / "checkpoints"
    in_the_way.write_text("a file")
    for look in ("save", "check", "wait", "end"):
        with (
            pytest.raises(ValueError, match=r"the checkpoint of step 1 cannot be written to .*checkpoints: "),
            CheckpointSaver(in_the_way, model, optimizer) as saver,
        ):
            saver.save(1, {})
            if look == "save":
                saver.save(2, {})
            elif look == "check":
                while True:
                    saver.check()
            elif look == "wait":
                saver.wait()


def test_the_first_error_is_the_one_that_is_raised(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file")
    with (
        pytest.raises(RuntimeError, match="of training"),
        CheckpointSaver(tmp_path / "checkpoints", *updated(bag_model())) as saver,
    ):
        saver.save(1, {})
        raise RuntimeError("of training")


@pytest.mark.parametrize("room", [0, 200_000, 400_000, 900_000])
def test_a_full_disk_leaves_the_last_good_one_and_one_line(small_disk: Path, room: int) -> None:
    model, optimizer = updated(small_network(seed=1))
    values = everything(model, optimizer)
    checkpoints = small_disk / "checkpoints"
    with CheckpointSaver(checkpoints, model, optimizer) as saver:
        saver.save(1, {})
        saver.wait()
        size = sum(path.stat().st_size for path in (checkpoints / "step-1").rglob("*"))
        assert room < size
        fill(small_disk, room)
        update(model, optimizer)
        saver.save(2, {})
        with pytest.raises(ValueError, match=r"step 2 cannot be written to .*: No space left") as failure:
            saver.wait()
        said = str(failure.value)
        assert (
            "\n" not in said and "MB are free" in said and said.endswith("make room and go on with --resume")
        )
        assert [path.name for path in checkpoints.iterdir()] == ["step-1"]
        assert newest_whole(checkpoints) == checkpoints / "step-1"
        assert_same(loaded(checkpoints / "step-1", small_network(seed=2)), values)
        (small_disk / "filler").unlink()
        saver.save(2, {})
    assert newest_whole(checkpoints) == checkpoints / "step-2"


def test_processes_write_one_checkpoint_and_any_number_read_it(tmp_path: Path) -> None:
    model, optimizer = updated(small_network(seed=1))
    with CheckpointSaver(tmp_path / "alone", model, optimizer) as saver:
        saver.save(1, {"note": "kept"})
    script = Path(__file__).with_name("two_processes.py")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    ran = subprocess.run([*launch, str(script), str(tmp_path)], capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    wanted = everything(model, optimizer)
    for kind in ("alone", "fsdp", "ddp", "refsdp"):
        checkpoint = newest_whole(tmp_path / kind)
        assert checkpoint is not None
        assert_same(loaded(checkpoint, small_network(seed=2)), wanted)
        found = MetroT0ForPreTraining.from_pretrained(checkpoint)
        assert torch.equal(found.lm_head.weight, model.lm_head.weight)
        parts = len(list((checkpoint / "optimizer").glob("*.distcp")))
        assert parts == (1 if kind == "alone" else 2)
    asked = [(tmp_path / f"asked-{rank}").read_text() for rank in range(2)]
    assert asked == ["a signal to another process", "SIGTERM"]
