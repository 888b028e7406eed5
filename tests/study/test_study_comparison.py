"""What is said of a change: against a plain bootstrap, and against outcomes whose truth is known."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_records import AXES, TASKS, write_made_study

from metro_t0.study.comparison import compare_study, effect_of, verdict_of
from metro_t0.study.record import read_record


def equal(axis: str | None, value: str | None, seed: int) -> float:
    return 0.6


def truth(axis: str | None, value: str | None, seed: int) -> float:
    """A gate that helps by 20 points, a weight of 0 that harms by 25, others that change nothing."""
    return {"on": 0.8, "0": 0.35}.get(value or "", 0.6)


def test_what_helps_helps_and_what_does_nothing_is_within_noise(tmp_path: Path) -> None:
    comparison = compare_study(write_made_study(tmp_path, truth))
    verdicts = {row.label: row.effects["zero-shot"].verdict for row in comparison.rows if row.axis}
    assert verdicts == {
        "rtd-gate: on": "better",
        "rtd-weight: 0": "worse",
        "rtd-weight: 10": "within noise",
        "rtd-weight: 100": "within noise",
    }
    base, *_ = comparison.rows
    assert base.label == "base" and not base.effects and base.seeds == [1, 2, 3]
    assert base.chance == {"zero-shot": 0.5} and len(base.accuracy["zero-shot"]) == 3


def test_an_effect_is_the_mean_over_seeds_and_its_interval_a_bootstrap_over_rows(tmp_path: Path) -> None:
    write_made_study(tmp_path, truth, seeds=(1, 2))
    records = {
        (value, seed): read_record(tmp_path, f"one-size/{arm}/seed-{seed}")
        for value, arm in (("base", "base"), ("on", "rtd-gate=on"))
        for seed in (1, 2)
    }
    bases = [record for (value, _), record in records.items() if value == "base" and record is not None]
    changed = [record for (value, _), record in records.items() if value == "on" and record is not None]
    effect = effect_of(bases, changed, "zero-shot")
    assert effect is not None and effect.seeds == [1, 2]
    by_seed = [
        new.accuracy("zero-shot") - old.accuracy("zero-shot") for old, new in zip(bases, changed, strict=True)
    ]
    assert effect.by_seed == pytest.approx(by_seed)
    assert effect.difference == pytest.approx(np.mean(by_seed))
    assert effect.deviation == pytest.approx(np.std(by_seed, ddof=1))
    # The plain twin: draw rows, take each run's accuracy on them, the same rows for all four runs.
    rng = np.random.default_rng(5)
    draws = []
    for _ in range(4000):
        tasks = []
        for task, (rows, _) in TASKS.items():
            drawn = rng.integers(0, rows, rows)
            means = [
                np.mean([record.tasks("zero-shot")[task].outcomes[drawn].mean() for record in group])
                for group in (bases, changed)
            ]
            tasks.append(means[1] - means[0])
        draws.append(np.mean(tasks))
    assert effect.interval == pytest.approx(np.percentile(draws, [2.5, 97.5]), abs=0.006)


def test_equal_runs_are_seldom_told_apart(tmp_path: Path) -> None:
    """Of 40 changes that change nothing, three seeds each, at most a few are called anything."""
    axes = {"nothing": ("as it is", [str(number) for number in range(40)])}
    comparison = compare_study(write_made_study(tmp_path, equal, axes=axes))
    called = sum(row.effects["zero-shot"].verdict != "within noise" for row in comparison.rows if row.axis)
    assert called <= 5


intervals = st.tuples(st.floats(-1, 1), st.floats(-1, 1)).map(lambda ends: (min(ends), max(ends)))


@given(intervals, st.lists(st.floats(-1, 1), min_size=1, max_size=5))
def test_verdicts_need_the_interval_and_every_seed(
    interval: tuple[float, float], by_seed: list[float]
) -> None:
    said = verdict_of(interval, by_seed)
    turned = verdict_of((-interval[1], -interval[0]), [-one for one in by_seed])
    assert (said, turned) in {("better", "worse"), ("worse", "better"), ("within noise", "within noise")}
    if said == "better":
        assert interval[0] > 0 and min(by_seed) > 0
    if interval[0] <= 0 <= interval[1] or min(by_seed) < 0 < max(by_seed):
        assert said == "within noise"


def test_runs_without_a_partner_are_left_out_of_the_difference(tmp_path: Path) -> None:
    gate = "one-size/rtd-gate=on"
    write_made_study(
        tmp_path,
        truth,
        failed=[f"{gate}/seed-2"],
        unfinished=["one-size/base/seed-3", "one-size/rtd-weight=10/seed-1"],
    )
    comparison = compare_study(tmp_path)
    rows = {row.label: row for row in comparison.rows}
    assert rows["base"].seeds == [1, 2] and rows["rtd-gate: on"].seeds == [1, 3]
    effect = rows["rtd-gate: on"].effects["zero-shot"]
    assert effect.seeds == [1] and effect.deviation is None
    assert comparison.failed == [(f"{gate}/seed-2", "diverged", "1 update that is not finite")]
    assert comparison.unfinished == ["one-size/rtd-weight=10/seed-1", "one-size/base/seed-3"]


def test_sizes_have_bases_of_their_own(tmp_path: Path) -> None:
    comparison = compare_study(write_made_study(tmp_path, truth, sizes=("narrow", "wide")))
    assert [row.size for row in comparison.rows if row.axis is None] == ["narrow", "wide"]
    assert len(comparison.rows) == 2 * (1 + sum(len(values) for _, values in AXES.values()))


def test_records_alone_say_the_same_anywhere(made_study: Path, tmp_path: Path) -> None:
    """Of a real study, when nothing is left of its runs."""
    once = json.dumps(compare_study(made_study).as_values())
    for name in ("study.json", "records"):
        source = made_study / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    assert json.dumps(compare_study(tmp_path).as_values()) == once
    [base, gate] = compare_study(tmp_path).rows
    assert gate.effects["weather"].seeds == [1] and base.insides.keys() == gate.insides.keys() != set()


def test_what_is_no_study_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="there is no study in"):
        compare_study(tmp_path / "nowhere")
    write_made_study(tmp_path, equal)
    stored = json.loads((tmp_path / "study.json").read_text())
    stored["runs"][0]["fingerprint"] = "other"
    (tmp_path / "study.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"the record of one-size/base/seed-1 .* is of another study"):
        compare_study(tmp_path)
