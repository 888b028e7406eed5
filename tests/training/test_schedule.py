"""A time budget on a clock of the test's own: the run ends on time, whatever the machine does meanwhile."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import BAG_OPTIMIZER, BagObjective, bag_model, bag_settings, losses
from torch import nn

from metro_t0.objectives.base import Batch, ObjectiveOutput
from metro_t0.training.checkpoint import newest_whole, read_state
from metro_t0.training.loop import Loop
from metro_t0.training.optimizer import learning_rate_at
from metro_t0.training.schedule import Costs, Schedule, TimeBudget
from metro_t0.training.training_data import TrainingData
from metro_t0.training.validation import Validation

VALIDATION, SAVE, MODEL = 2.0, 1.0, 0.5
USED = 3.0


class Clock:
    """Goes on when work is done."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class TimedObjective(BagObjective):
    """Every step and validation takes its time on the clock."""

    def __init__(self, clock: Clock, seconds_per_step: Callable[[float], float]) -> None:
        super().__init__()
        self.clock, self.seconds_per_step, self.begun = clock, seconds_per_step, clock.now

    def __call__(
        self, model: nn.Module, batch: Batch, normalizers: Mapping[str, float | torch.Tensor] | None = None
    ) -> ObjectiveOutput:
        training = torch.is_grad_enabled()
        self.clock.now += self.seconds_per_step(self.clock.now - self.begun) if training else VALIDATION
        return super().__call__(model, batch, normalizers)


class SlowToSave:
    """Takes its time on the clock where a tokenizer is saved, which is once a checkpoint."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def save_pretrained(self, save_directory: str) -> None:
        self.clock.now += SAVE


def timed_loop(
    folder: Path,
    data: TrainingData,
    seconds_per_step: Callable[[float], float],
    *,
    budget: float,
    planned: int,
    **settings: Any,
) -> tuple[Loop, Clock]:
    clock = Clock()
    objective = TimedObjective(clock, seconds_per_step)
    # One micro-batch a step, one validation batch.
    every = max(1, planned // 10)
    defaults = {
        "batch_tokens": 20,
        "micro_batch_tokens": 10_000,
        "validate_every": every,
        "save_every": every,
    }
    resolved = bag_settings(steps=planned, budget_seconds=budget, log_every=50, **{**defaults, **settings})
    folder.mkdir(exist_ok=True)
    validation = Validation(objective, data.validation, number=20, micro_batch_tokens=10_000, seed=1)
    assert len(validation.batches) == 1
    loop = Loop(
        bag_model(),
        objective,
        data,
        resolved,
        BAG_OPTIMIZER.model_copy(update={"warmup_steps": round(0.1 * planned)}),
        validation=validation,
        folder=folder,
        facts={},
        tokenizer=SlowToSave(clock),
        budget=TimeBudget(budget, USED, Costs(0.0, VALIDATION / 2, SAVE / 2)),
        clock=clock,
    )
    return loop, clock


def fits(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [line for line in lines if line["kind"] == "schedule"]


LOADS = {
    "as planned": lambda now: 0.5,
    "slower from the middle on": lambda now: 0.5 if now < 100 else 1.5,
    "faster from the middle on": lambda now: 0.5 if now < 100 else 0.1,
    "much slower than planned": lambda now: 2.5,
    "a slow first step": lambda now: 20.0 if now == 0 else 0.5,
    "slower near the end": lambda now: 0.5 if now < 170 else 2.0,
}


@pytest.mark.parametrize("load", LOADS)
def test_it_ends_on_time_with_the_rate_at_its_end(load: str, tmp_path: Path, bag_data: TrainingData) -> None:
    budget, peak = 200.0, BAG_OPTIMIZER.learning_rate
    loop, clock = timed_loop(tmp_path / "run", bag_data, LOADS[load], budget=budget, planned=340)
    rates: list[float] = []
    rate = loop._rate

    def noted(step: int) -> float:
        if step > len(rates):
            rates.append(rate(step))
        return rate(step)

    loop._rate = noted  # type: ignore[method-assign]
    loop.run()
    taken = USED + clock.now - 1000.0 + MODEL
    assert taken == pytest.approx(budget, rel=0.05)
    steps = loop.standing.step
    assert len(rates) == steps and rates[-1] < 0.02 * peak
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1]) and rates[top:] == sorted(rates[top:], reverse=True)
    assert max(rates) == pytest.approx(peak, rel=0.1)
    validation = losses(tmp_path / "run", "validation")
    assert max(validation) == max(losses(tmp_path / "run")) == steps
    assert fits(tmp_path / "run")[-1]["steps"] == steps


def test_a_resumed_run_keeps_its_fit_and_its_seconds(tmp_path: Path, bag_data: TrainingData) -> None:
    run = tmp_path / "run"
    loop, _ = timed_loop(run, bag_data, LOADS["much slower than planned"], budget=200.0, planned=340)
    take_step = loop._take_step

    def until_60() -> None:
        if loop.standing.step == 60:
            raise RuntimeError
        take_step()

    loop._take_step = until_60  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        loop.run()
    checkpoint = newest_whole(run / "checkpoints", print)
    assert checkpoint is not None
    state = read_state(checkpoint)
    spent = state["standing"]["seconds"]
    # A validation was timed; the first save was still being written, so that its cost is as estimated.
    costs = {"step": 0.0, "validation": VALIDATION, "save": SAVE / 2, "disk": 0.0}
    assert state["budget"] == {"used": USED, **costs}
    until = [fit for fit in fits(run) if fit["step"] <= state["step"]]
    assert state["schedule"] == {name: until[-1][name] for name in ("step", "progress", "steps")}
    # Twice as fast from there on.
    resumed, clock = timed_loop(run, bag_data, lambda now: 1.25, budget=200.0, planned=340)
    resumed.resume(checkpoint)
    assert resumed._schedule.steps == until[-1]["steps"]
    resumed.run()
    assert USED + spent + clock.now - 1000.0 + MODEL == pytest.approx(200.0, rel=0.05)
    assert fits(run)[: len(until)] == until and resumed.standing.step > until[-1]["steps"]
    again, clock = timed_loop(run, bag_data, lambda now: 1.0, budget=200.0, planned=340)
    again.resume(run / "checkpoints" / f"step-{resumed.standing.step}")
    again.run()
    assert clock.now == 1000.0


@given(st.integers(1, 500), st.integers(0, 100), st.data())
def test_unfitted_it_is_the_plain_schedule_and_a_fit_that_changes_nothing_changes_nothing(
    steps: int, warmup: int, draw: st.DataObject
) -> None:
    warmup = min(warmup, steps - 1)
    schedule = Schedule(steps, warmup, 1e-3)
    plain = [learning_rate_at(step, steps, warmup, 1e-3) for step in range(1, steps + 1)]
    assert [schedule.rate(step) for step in range(1, steps + 1)] == plain
    at = draw.draw(st.integers(1, steps))
    schedule.refit(at, steps - at)
    assert schedule.steps == steps
    # A warm-up of no steps is one of one step, which the ruler cannot say.
    if warmup:
        for step in range(at + 1, steps + 1):
            assert schedule.rate(step) == pytest.approx(plain[step - 1], rel=1e-4, abs=1e-10)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 200)), min_size=1, max_size=8))
def test_progress_only_grows_and_never_jumps(changes: list[tuple[int, int]]) -> None:
    schedule = Schedule(100, 10, 1.0)
    step, before = 0, 0.0
    for ahead, left in changes:
        until = min(step + ahead, schedule.steps)
        for each in range(step + 1, until + 1):
            now = schedule.fit.at(each)
            assert before < now < 1.0
            before = now
        step = until
        schedule.refit(step, left)
        assert schedule.fit.at(step) == before
        if not left:
            return


def test_steps_left_beside_what_else_takes_time() -> None:
    budget = TimeBudget(100.0, used=10.0, costs=Costs(validation=2.0, save=1.0))
    budget.passed(1, 5.0)
    assert budget.steps_left(5.0, None, None) is None
    for step in range(2, 6):
        budget.passed(step, 4.0 + step)
    # 90 - 10 seconds, less the last save and the final model.
    assert budget.steps_left(10.0, None, None) == int(80 - 1.5)
    # Every tenth step a validation and a save: 1.3 seconds a step.
    assert budget.steps_left(10.0, 10, 10) == int((80 - 2 - 1.5) / 1.3)
    assert budget.steps_left(89.0, 10, 10) == 0
    # Saves that hold up training for less than the disk needs, but the last one is waited for.
    budget = TimeBudget(100.0, used=20.0, costs=Costs(save=1.0, disk=8.0))
    budget.passed(1, 5.0)
    budget.passed(2, 6.0)
    assert budget.steps_left(0.0, None, 10) == int((80 - 12) / 1.1)


def test_a_slower_machine_is_slower_at_everything() -> None:
    budget = TimeBudget(100.0, used=0.0, costs=Costs(step=1.0, validation=2.0, save=1.0))
    for step in range(6):
        budget.passed(step, 3.0 * step)
    assert budget.steps_left(18.0, 10, 10) == int((82 - 3 * 3.5) / (3 * 1.3))
    budget.took(validation=9.0)
    assert budget.costs == Costs(step=1.0, validation=3.0, save=1.0)
