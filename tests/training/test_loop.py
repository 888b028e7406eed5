"""The loop, on a model one can see through: learning, resuming, skipping, keeping what is best."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from small_runs import BAG_OPTIMIZER, BagObjective, bag_model, bag_settings, losses

from metro_t0.training.checkpoint import best_checkpoint, newest_whole, read_state, steps_saved
from metro_t0.training.loop import Loop
from metro_t0.training.metrics import NonFiniteError
from metro_t0.training.training_data import TrainingData
from metro_t0.training.validation import Validation


def make_loop(
    folder: Path, data: TrainingData, objective: BagObjective | None = None, **settings: Any
) -> Loop:
    objective = objective or BagObjective()
    resolved = bag_settings(**settings)
    folder.mkdir(exist_ok=True)
    validation = Validation(
        objective, data.validation, number=resolved.validation_rows, micro_batch_tokens=100, seed=1
    )
    return Loop(
        bag_model(), objective, data, resolved, BAG_OPTIMIZER, validation=validation, folder=folder, facts={}
    )


def test_it_learns_and_says_how(tmp_path: Path, bag_data: TrainingData) -> None:
    loop = make_loop(tmp_path / "run", bag_data, steps=100, log_every=20)
    loop.run()
    train, validation = losses(tmp_path / "run"), losses(tmp_path / "run", "validation")
    assert list(train) == [20, 40, 60, 80, 100]
    assert list(validation) == list(range(10, 101, 10))
    assert train[20]["loss"] > 2 * train[100]["loss"]
    assert validation[100]["accuracy"] > 0.95
    assert set(train[20]) >= {
        "kind",
        "step",
        "tokens",
        "learning_rate",
        "gradient_norm",
        "loss",
        "class_loss",
        "accuracy",
        "padding_share",
    }
    assert 0 < train[100]["padding_share"] < 1
    # Pieces of whole rows, which fill 200 tokens as well as they can.
    assert 100 * 140 <= train[100]["tokens"] == loop.standing.tokens <= 100 * 200
    # A mean of steps beside a mean of rows.
    assert train[20]["loss"] == pytest.approx(train[20]["class_loss"], rel=0.1)


@pytest.mark.parametrize("log_every", [1, 7])
def test_a_resumed_run_goes_on_to_the_same_losses(
    tmp_path: Path, bag_data: TrainingData, log_every: int
) -> None:
    make_loop(tmp_path / "whole", bag_data, log_every=log_every).run()
    stopped = make_loop(tmp_path / "stopped", bag_data, log_every=log_every)
    write_log = stopped._write_log

    def stop_at_25(*arguments: Any) -> None:
        if stopped.standing.step >= 25:
            raise RuntimeError
        write_log(*arguments)

    stopped._write_log = stop_at_25  # type: ignore[method-assign]
    with pytest.raises(RuntimeError):
        stopped.run()
    latest = newest_whole(tmp_path / "stopped" / "checkpoints")
    assert latest is not None and latest.name == "step-20"
    resumed = make_loop(tmp_path / "stopped", bag_data, log_every=log_every)
    resumed.resume(latest)
    resumed.run()
    for kind in ("train", "validation"):
        assert losses(tmp_path / "stopped", kind) == losses(tmp_path / "whole", kind)


def test_micro_batches_change_the_losses_only_by_rounding(tmp_path: Path, bag_data: TrainingData) -> None:
    runs = []
    for size in (30, 100_000):
        loop = make_loop(tmp_path / str(size), bag_data, micro_batch_tokens=size)
        loop._model.dropout.p = 0.0
        loop.run()
        runs.append([line["loss"] for line in losses(tmp_path / str(size)).values()])
    assert runs[0] == pytest.approx(runs[1], rel=1e-5)


@pytest.mark.parametrize("part", ["loss", "gradient"])
def test_a_skip_within_the_limit_is_counted_and_survived(
    tmp_path: Path, bag_data: TrainingData, part: str
) -> None:
    make_loop(tmp_path / "run", bag_data, BagObjective({4: part, 15: part}), max_nonfinite=2).run()
    train = losses(tmp_path / "run")
    assert [train[step]["skipped_updates"] for step in (3, 4, 14, 15, 30)] == [0, 1, 1, 2, 2]
    assert train[4]["loss"] is None and train[5]["loss"] > 0
    assert train[30]["loss"] < train[1]["loss"]


@pytest.mark.parametrize(("part", "named"), [("loss", "class_loss"), ("gradient", "gradient")])
def test_over_the_limit_it_stops_and_the_last_checkpoint_stands(
    tmp_path: Path, bag_data: TrainingData, part: str, named: str
) -> None:
    # Read at the save at the latest: log steps are far apart.
    loop = make_loop(tmp_path / "run", bag_data, BagObjective({13: part}), log_every=1000)
    with pytest.raises(NonFiniteError, match=rf"first at step 13, in {named}$"):
        loop.run()
    assert steps_saved(tmp_path / "run" / "checkpoints") == [10]


def test_the_limit_is_none_in_fp32_and_ten_in_bf16() -> None:
    assert bag_settings(max_nonfinite=None).nonfinite_limit == 0
    assert bag_settings(max_nonfinite=None, precision="bf16").nonfinite_limit == 10
    assert bag_settings(max_nonfinite=3).nonfinite_limit == 3


def test_what_the_rule_keeps(tmp_path: Path, bag_data: TrainingData) -> None:
    kept = {"validation_rows": 0, "save_every": 5}
    make_loop(tmp_path / "default", bag_data, **kept).run()
    assert steps_saved(tmp_path / "default" / "checkpoints") == [25, 30]
    make_loop(tmp_path / "last", bag_data, keep_last=1, **kept).run()
    assert steps_saved(tmp_path / "last" / "checkpoints") == [30]
    # Saved where save_every alone would not.
    make_loop(tmp_path / "every", bag_data, keep_last=1, keep_every=12, **kept).run()
    assert steps_saved(tmp_path / "every" / "checkpoints") == [12, 24, 30]


def test_the_best_checkpoint_is_kept_beside_the_last(tmp_path: Path, bag_data: TrainingData) -> None:
    loop = make_loop(tmp_path / "run", bag_data, keep_last=1)
    # Uphill from there on: the model only gets worse.
    loop._rate = lambda step: 0.05 if step <= 20 else -0.05  # type: ignore[method-assign]
    loop.run()
    validation = losses(tmp_path / "run", "validation")
    assert validation[30]["loss"] > validation[20]["loss"] < validation[10]["loss"]
    checkpoints = tmp_path / "run" / "checkpoints"
    assert steps_saved(checkpoints) == [20, 30]
    best = best_checkpoint(checkpoints)
    assert best is not None
    assert read_state(best)["standing"]["best_loss"] == validation[20]["loss"]


def test_it_runs_in_bf16_with_float32_weights(tmp_path: Path, bag_data: TrainingData) -> None:
    loop = make_loop(tmp_path / "run", bag_data, precision="bf16")
    loop.run()
    train = losses(tmp_path / "run")
    assert train[30]["loss"] < 0.9 * train[1]["loss"]
    assert {str(parameter.dtype) for parameter in loop._model.parameters()} == {"torch.float32"}


def test_without_held_out_rows_it_only_trains(tmp_path: Path, bag_data: TrainingData) -> None:
    make_loop(tmp_path / "run", bag_data, validation_rows=0).run()
    assert losses(tmp_path / "run", "validation") == {}
    assert steps_saved(tmp_path / "run" / "checkpoints") == [20, 30]
