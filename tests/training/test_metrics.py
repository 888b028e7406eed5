"""Metrics: what counts, when the limit is passed, and a file that reads as one run's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.training.gradient_norms import Norms
from metro_t0.training.metrics import (
    Meter,
    MetricsFile,
    NonFiniteError,
    TrainingLog,
    Utilization,
    peak_memory,
)
from metro_t0.training.update import StepTally

WATCHED = ("lm_loss", "rtd_loss", "loss", "gradient")


def tally(total: float, count: float, loss: float, broken: tuple[str, ...] = ()) -> StepTally:
    flags = torch.tensor([name in broken for name in WATCHED])
    value = float("nan") if broken else total
    return StepTally(
        ("lm_loss", "rtd_loss"),
        torch.tensor([[value, count], [1.0, 2.0]], dtype=torch.float64),
        torch.tensor(loss, dtype=torch.float64),
        Norms(torch.tensor(3.0), {"encoder": torch.tensor(2.0)}),
        flags,
    )


@given(st.lists(st.tuples(st.floats(-9, 9), st.integers(1, 99), st.floats(0, 9)), min_size=1, max_size=9))
def test_values_are_sums_over_counts(steps: list[tuple[float, int, float]]) -> None:
    log = TrainingLog(WATCHED, limit=0)
    for number, (total, count, loss) in enumerate(steps, start=1):
        log.add(tally(total, count, loss), number)
    values = log.read()
    assert values["lm_loss"] == pytest.approx(sum(s[0] for s in steps) / sum(s[1] for s in steps))
    assert values["loss"] == pytest.approx(sum(s[2] for s in steps) / len(steps))
    assert values["gradient_norm"] == 3.0 and values["gradient_norm_encoder"] == 2.0
    log.add(tally(5.0, 2.0, 1.5), len(steps) + 1)
    assert log.read()["lm_loss"] == 2.5


def test_a_window_of_other_metrics_is_let_go_and_the_skips_stay() -> None:
    """As a checkpoint has it that a version with fewer metrics wrote."""
    log = TrainingLog(WATCHED, limit=1)
    log.add(tally(0.0, 2.0, 1.0, broken=("loss",)), 1)
    state = log.state_dict()
    state["names"], state["window"] = state["names"][:-1], state["window"][:-1]
    other = TrainingLog(WATCHED, limit=1)
    other.load_state_dict(state)
    other.add(tally(4.0, 2.0, 1.0), 2)
    assert other.skipped == 1
    assert other.read()["lm_loss"] == 2.0


def test_a_skipped_update_counts_in_no_metric() -> None:
    log = TrainingLog(WATCHED, limit=1)
    log.add(tally(4.0, 2.0, 1.0), 1)
    log.add(tally(0.0, 2.0, float("nan"), broken=("lm_loss", "loss", "gradient")), 2)
    assert log.read()["lm_loss"] == 2.0
    assert log.skipped == 1


def test_over_the_limit_the_first_step_and_its_parts_are_named() -> None:
    log = TrainingLog(WATCHED, limit=1)
    log.add(tally(0.0, 1.0, 0.0, broken=("gradient",)), 4)
    log.check()
    log.add(tally(0.0, 1.0, 0.0, broken=("rtd_loss", "loss", "gradient")), 6)
    with pytest.raises(NonFiniteError, match=r"2 updates .* 1 allowed .*: first at step 4, in gradient$"):
        log.read()
    log = TrainingLog(WATCHED, limit=0)
    log.add(tally(0.0, 1.0, 0.0, broken=("lm_loss", "rtd_loss", "loss", "gradient")), 6)
    with pytest.raises(NonFiniteError, match=r"1 update .*first at step 6, in lm_loss and rtd_loss$"):
        log.check()


def test_what_was_not_read_yet_survives_a_checkpoint() -> None:
    log, other = TrainingLog(WATCHED, limit=1), TrainingLog(WATCHED, limit=1)
    log.add(tally(0.1, 3.0, 0.7), 1)
    log.add(tally(0.0, 1.0, 0.0, broken=("rtd_loss",)), 2)
    other.load_state_dict(json.loads(json.dumps(log.state_dict())))
    for one in (log, other):
        one.add(tally(0.2, 5.0, 0.9), 3)
    assert other.read() == log.read()
    assert other.skipped == 1


def test_the_file_of_a_resumed_run_reads_as_one_runs(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in range(1, 6):
        file.append({"kind": "train", "step": step, "loss": step / 10})
    file.close()
    with path.open("a", encoding="utf-8") as half:
        half.write('{"kind": "train", "step": 6, "lo')
    file = MetricsFile(path, keep_until=3)
    file.append({"kind": "train", "step": 4, "loss": float("nan")})
    file.close()
    lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4]
    assert lines[-1]["loss"] is None


def test_speed_padding_waiting_and_utilization_since_the_last_line() -> None:
    meter = Meter(torch.device("cpu"), Utilization(flops_per_token=1e6, peak=1e9))
    meter.add(tokens=100, real=100, processed=100, waited=0.0)
    meter.read(1.0)
    # One of two processes: its own padding, all tokens.
    meter.add(tokens=200, real=100, processed=150, waited=0.25)
    meter.add(tokens=400, real=200, processed=250, waited=0.75)
    other = Meter(torch.device("cpu"), Utilization(flops_per_token=1e6, peak=1e9))
    other.load_state_dict(json.loads(json.dumps(meter.state_dict())))
    for one in (meter, other):
        values = one.read(5.0)
        peak = values.pop("peak_memory_bytes")
        assert peak is not None and 10e6 < peak < 1e12
        assert values == {
            "tokens_per_second": 150.0,
            "processed_tokens_per_second": 200.0,
            "padding_share": 0.25,
            "data_wait_share": 0.25,
            "mfu": pytest.approx(0.15),
        }


def test_peak_memory_grows_with_what_is_held() -> None:
    before = peak_memory(torch.device("cpu"))
    held = torch.ones(before // 4 + 25_000_000)
    assert peak_memory(torch.device("cpu")) >= before + 50_000_000 and held[0] == 1
