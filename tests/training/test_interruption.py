"""A run that is asked to stop finishes its step, saves, and goes on later as if nothing had been."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
import torch
from small_runs import (
    SMALL_RUN,
    BagObjective,
    losses,
    small_config,
    started,
    wait_for_step,
    wait_until,
)
from test_loop import make_loop
from torch import nn

from metro_t0.objectives.base import Batch, ObjectiveOutput, Row, RowKey
from metro_t0.training.checkpoint import newest_whole, steps_saved
from metro_t0.training.interruption import Interruption, RunStoppedError, stopped_at_once
from metro_t0.training.run import pretrain
from metro_t0.training.training_data import TrainingData


class InterruptedObjective(BagObjective):
    """Something happens in the middle of a step."""

    def __init__(self, step: int, happens: Callable[[], object]) -> None:
        super().__init__()
        self.step: int | None = step
        self.happens = happens

    def collate(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> Batch:
        return {**super().collate(rows, keys), "step": torch.tensor(keys[0][0])}

    def __call__(
        self, model: nn.Module, batch: Batch, normalizers: Mapping[str, float | torch.Tensor] | None = None
    ) -> ObjectiveOutput:
        if batch["step"] == self.step:
            self.step = None
            self.happens()
        return super().__call__(model, batch, normalizers)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_step_is_finished_and_saved(
    tmp_path: Path, bag_data: TrainingData, number: signal.Signals
) -> None:
    make_loop(tmp_path / "whole", bag_data).run()
    before = signal.getsignal(number)
    stopped = make_loop(tmp_path / "run", bag_data, InterruptedObjective(13, lambda: send(number)))
    with pytest.raises(
        RunStoppedError, match=rf"stopped by {number.name} after step 13 of 30, saved in .*run"
    ):
        stopped.run()
    assert signal.getsignal(number) is before
    checkpoints = tmp_path / "run" / "checkpoints"
    assert max(losses(tmp_path / "run")) == 13 and steps_saved(checkpoints) == [10, 13]
    resumed = make_loop(tmp_path / "run", bag_data)
    checkpoint = newest_whole(checkpoints)
    assert checkpoint is not None
    resumed.resume(checkpoint)
    resumed.run()
    for kind in ("train", "validation"):
        assert losses(tmp_path / "run", kind) == losses(tmp_path / "whole", kind)


def test_asked_in_the_last_step_it_has_simply_ended(tmp_path: Path, bag_data: TrainingData) -> None:
    make_loop(tmp_path / "run", bag_data, InterruptedObjective(30, lambda: send(signal.SIGTERM))).run()
    assert steps_saved(tmp_path / "run" / "checkpoints")[-1] == 30


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_asked_in_the_last_step_what_is_around_ends(
    tmp_path: Path, bag_data: TrainingData, number: signal.Signals
) -> None:
    loop = make_loop(tmp_path / "run", bag_data, InterruptedObjective(30, lambda: send(number)))
    with pytest.raises(RunStoppedError, match=f"stopped by {number.name}"), stopped_at_once():
        loop.run()
    assert newest_whole(tmp_path / "run" / "checkpoints") == tmp_path / "run" / "checkpoints" / "step-30"


def test_asked_in_a_training_that_fails_what_is_around_ends() -> None:
    with pytest.raises(RunStoppedError), stopped_at_once(), Interruption():
        send(signal.SIGTERM)
        raise ValueError("not finite")


def test_nothing_takes_a_stop_for_a_failure_to_do_without() -> None:
    with pytest.raises(RunStoppedError), stopped_at_once():
        try:
            send(signal.SIGTERM)
        except Exception:
            pytest.fail("taken for a failure")


def test_a_signal_passed_on_twice_is_one_press(tmp_path: Path, bag_data: TrainingData) -> None:
    def twice() -> None:
        send(signal.SIGINT)
        send(signal.SIGINT)

    with pytest.raises(RunStoppedError, match="after step 4"):
        make_loop(tmp_path / "run", bag_data, InterruptedObjective(4, twice)).run()


def test_a_second_press_is_obeyed_at_once(tmp_path: Path, bag_data: TrainingData) -> None:
    def again() -> None:
        send(signal.SIGINT)
        time.sleep(1.05)
        send(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        make_loop(tmp_path / "run", bag_data, InterruptedObjective(14, again)).run()
    assert max(losses(tmp_path / "run")) == 13


def test_in_another_thread_it_runs_and_takes_no_signals(tmp_path: Path, bag_data: TrainingData) -> None:
    before = signal.getsignal(signal.SIGTERM)
    during: list[object] = []
    objective = InterruptedObjective(5, lambda: during.append(signal.getsignal(signal.SIGTERM)))
    thread = threading.Thread(target=make_loop(tmp_path / "run", bag_data, objective).run)
    thread.start()
    thread.join()
    assert during == [before] and steps_saved(tmp_path / "run" / "checkpoints")[-1] == 30


def test_handlers_are_put_back_after_an_error() -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(RuntimeError), Interruption():
        assert signal.getsignal(signal.SIGINT) != before
        raise RuntimeError
    assert signal.getsignal(signal.SIGINT) is before


# ---------------------------------------------------------------- the command


def test_the_command_ends_with_75_and_resume_goes_on(corpus: Path, tmp_path: Path) -> None:
    settings = ["training.steps=100", "training.validate_every=50", "model.dropout_rate=0.1"]
    whole = pretrain(small_config(*settings), corpus, tmp_path / "whole")
    run = tmp_path / "run"
    process = started(corpus, run, "--preset", "tiny", *SMALL_RUN, *settings)
    wait_for_step(process, run, 5)
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    line = said.strip().splitlines()[-1]
    step = max(losses(run))
    assert process.returncode == 75, said
    assert line.startswith(f"metro-t0: stopped by SIGTERM after step {step} of 100, saved in {run}")
    assert line.endswith("the same command with --resume goes on") and "Traceback" not in said
    process = started(corpus, run, "--resume", "auto")
    wait_for_step(process, run, step + 3)
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 75 and "stopped by SIGINT" in said, said
    pretrain(small_config(*settings), corpus, run, resume=True)
    for kind in ("train", "validation"):
        assert losses(run, kind) == losses(whole, kind)


def test_a_second_ctrl_c_ends_the_command_inside_a_step(corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    # A step of a good while.
    settings = ["training.steps=2", "training.batch_tokens=4000000"]
    process = started(corpus, run, "--preset", "tiny", *SMALL_RUN, *settings)
    wait_until(process, (run / "config.yaml").exists)
    time.sleep(1.0)
    process.send_signal(signal.SIGINT)
    time.sleep(3.0)
    assert process.poll() is None
    process.send_signal(signal.SIGINT)
    said = process.communicate()[1]
    assert process.returncode == 130, said
    assert "stopped at once" in said and "Traceback" not in said
    assert not losses(run)
