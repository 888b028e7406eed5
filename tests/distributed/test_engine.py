"""Updates on 2 and 4 processes are those of one: losses, gradients, metrics, skips, validation, weights."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import engine
import pytest
from launch import HERE, torchrun

from metro_t0.training.distributed import World

Steps = list[dict[str, Any]]


@pytest.fixture(scope="module")
def alone() -> dict[str, Steps]:
    """What one process does, by task."""
    return {task: engine.run_task(task, World(), "ddp") for task in engine.TASKS}


def on(processes: int, kinds: list[str], folder: Path) -> dict[str, Any]:
    finished = torchrun(processes, HERE / "engine.py", folder / "out.json", *kinds)
    assert finished.returncode == 0, finished.stderr
    found: dict[str, Any] = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    return found


def values_of(step: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Everything that must be the same on any number of processes, by its path."""
    for name, value in step.items():
        if isinstance(value, dict):
            yield from values_of(value, f"{prefix}{name}.")
        elif name not in {"passes", "idle"}:
            yield prefix + name, value


def check_same(found: Steps, alone: Steps) -> None:
    for step, reference in zip(found, alone, strict=True):
        found_values, wanted_values = dict(values_of(step)), dict(values_of(reference))
        assert list(found_values) == list(wanted_values)
        for name, wanted in wanted_values.items():
            # Biases of attention keys change nothing: their gradients are rounding and nothing else.
            nothing = 1e-4 if name.startswith("weights.") else 1e-6
            # A metric over nothing has no value; that of a poisoned step is not a number.
            near = None if wanted is None else pytest.approx(wanted, rel=1e-5, abs=nothing, nan_ok=True)
            assert found_values[name] == near, name
    assert all(step["passes"] < reference["passes"] for step, reference in zip(found, alone, strict=True))


def check_all(found: dict[str, Any], kinds: list[str], alone: dict[str, Steps], processes: int) -> None:
    for kind in kinds:
        for task, reference in alone.items():
            check_same(found[f"{kind} {task}"], reference)
    # Some processes had no row of some micro-batches.
    assert any(step["idle"] for step in found[f"{kinds[0]} metro"])
    assert [step["skipped"] for step in found[f"{kinds[0]} poisoned"]] == [
        number in engine.POISON for number in range(1, engine.STEPS + 1)
    ]
    agreement = found["agreement"]
    assert agreement["from main"] == "process 0"
    assert agreement["own mistake"] == f"process {processes - 1} is at fault"
    assert agreement["another's mistake"] == "process 0 is at fault"


def test_two_processes_with_ddp(alone: dict[str, Steps], tmp_path: Path) -> None:
    check_all(on(2, ["ddp"], tmp_path), ["ddp"], alone, 2)


@pytest.mark.slow
def test_two_processes_with_fsdp(alone: dict[str, Steps], tmp_path: Path) -> None:
    check_all(on(2, ["fsdp"], tmp_path), ["fsdp"], alone, 2)


@pytest.mark.slow
def test_four_processes_with_either(alone: dict[str, Steps], tmp_path: Path) -> None:
    check_all(on(4, ["ddp", "fsdp"], tmp_path), ["ddp", "fsdp"], alone, 4)
