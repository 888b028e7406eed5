"""Costs: what is measured, and how a short budget shrinks a study."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_studies import SMALL_FINETUNING, TOO_HIGH, write_study

from metro_t0.study.costs import Costs, measured_costs
from metro_t0.study.plan import plan_runs
from metro_t0.study.study_file import Study, load_study, shipped_axes

SHAPE: dict[str, Any] = {"vocabulary": 600, "sentinels": 16, "length": 40.0}


@given(
    scale=st.floats(0.001, 1.0),
    tokens=st.integers(1, 10**9),
    steps=st.integers(1, 10**5),
    limit=st.none() | st.integers(1, 5000),
)
def test_a_scale_shrinks_everything_and_nothing_grows(
    scale: float, tokens: int, steps: int, limit: int | None
) -> None:
    finetuning = {"mixture": "m", "suite": "s", "limit": limit, "settings": {"training.steps": steps}}
    study = Study.model_validate(
        {"base": "tiny", "axes": {}, "tokens": tokens, "finetunings": {"one": finetuning}}
    )
    short = Costs(speeds={}, scale=scale, expected_seconds=None).shortened(study)
    assert short.tokens == max(1, round(tokens * scale)) <= tokens
    found = short.finetunings["one"]
    assert found.config(1).training.steps == max(1, round(steps * scale)) <= steps
    if scale == 1.0:
        assert short == study
    else:
        assert found.limit is not None and 1 <= found.limit <= (limit or 1000)
    assert {**found.settings, "training.steps": steps} == study.finetunings["one"].settings


def test_a_preset_s_own_length_shrinks_too(tmp_path: Path) -> None:
    written = {"mixture": "mixture.yaml", "suite": "mixture.yaml", "preset": "finetune-tiny"}
    study = load_study(write_study(tmp_path, finetunings={"weather": written}))
    short = Costs(speeds={}, scale=0.25, expected_seconds=None).shortened(study)
    assert short.finetunings["weather"].config(1).training.steps == 250


def test_nothing_is_measured_where_nothing_depends_on_it(study_corpus: Path, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path))
    assert measured_costs(study, study_corpus, budget_seconds=None, **SHAPE) == Costs(
        speeds={}, scale=1.0, expected_seconds=None
    )


def test_runs_of_equal_time_go_by_measured_speeds(study_corpus: Path, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, axes={"objective": None}, finetunings={}))
    costs = measured_costs(study, study_corpus, budget_seconds=None, **SHAPE)
    base, spans = "one-size/base", "one-size/objective=span-corruption"
    assert set(costs.speeds) == {base, spans} and min(costs.speeds.values()) > 0
    assert costs.scale == 1.0
    runs = {run.equality: run for run in plan_runs(study, **SHAPE, speeds=costs.speeds).runs}
    assert runs["time"].tokens == round(1500 * costs.speeds[spans] / costs.speeds[base])
    # A run that is not as long as its base's tokens is as long as its time.
    assert runs["time"].tokens / costs.speeds[spans] == pytest.approx(1500 / costs.speeds[base], rel=0.01)


def test_a_budget_is_what_the_study_is_expected_to_take(study_corpus: Path, tmp_path: Path) -> None:
    study = load_study(write_study(tmp_path, tokens=5_000_000))
    costs = measured_costs(study, study_corpus, budget_seconds=120.0, **SHAPE)
    assert 0.02 < costs.scale < 1
    assert costs.expected_seconds == pytest.approx(120, abs=0.2)
    long = measured_costs(study, study_corpus, budget_seconds=1e9, **SHAPE)
    assert long.scale == 1.0 and long.expected_seconds is not None and long.expected_seconds < 1e6
    # Only what a long budget is measured by: the base.
    assert set(costs.speeds) == {"one-size/base"}


@pytest.mark.parametrize("order", [["wide", "narrow"], ["narrow", "wide"]])
def test_a_run_costs_its_operations_at_the_base_s_speed(
    order: list[str], study_corpus: Path, tmp_path: Path
) -> None:
    widths = {"wide": 4096, "narrow": 16}
    values = {name: {"settings": {"model.d_ff": widths[name]}} for name in order}
    axes = {"width": {"base": "as it is", "values": values}}
    study = load_study(write_study(tmp_path, axes=axes, finetunings={}, tokens=1_000_000))
    costs = measured_costs(study, study_corpus, budget_seconds=1e9, **SHAPE)
    runs = plan_runs(study, **SHAPE).runs
    [speed] = costs.speeds.values()
    training = sum(run.flops for run in runs) / runs[0].flops * 1_000_000 / speed
    assert costs.expected_seconds == pytest.approx(training + 3 * 2 * 4.0, abs=0.1)


def test_too_short_a_budget_is_one_line_that_says_how_much_it_takes(
    study_corpus: Path, tmp_path: Path
) -> None:
    study = load_study(write_study(tmp_path))
    with pytest.raises(ValueError) as told:
        measured_costs(study, study_corpus, budget_seconds=10.0, **SHAPE)
    found = re.fullmatch(
        r"a budget of 10 s is too short for the 2 runs of study: give at least (\d+) s, or fewer axes, seeds or sizes",
        str(told.value),
    )
    assert found and int(found[1]) >= 2 * 4 * 4
    costs = measured_costs(study, study_corpus, budget_seconds=int(found[1]) * 1.5, **SHAPE)
    assert costs.scale > 0.02


def test_a_recipe_that_diverges_does_not_end_the_measuring(study_corpus: Path, tmp_path: Path) -> None:
    [value] = TOO_HIGH["values"].values()  # type: ignore[attr-defined]
    axes = {"rate": {"base": "b", "values": {"too high": {**value, "equal": ["time"]}}}}
    study = load_study(write_study(tmp_path, axes=axes, finetunings={"weather": _finetuning()}))
    costs = measured_costs(study, study_corpus, budget_seconds=None, **SHAPE)
    assert costs.speeds["one-size/rate=too-high"] > 0


def _finetuning() -> dict[str, Any]:
    return {"mixture": "mixture.yaml", "suite": "mixture.yaml", "settings": SMALL_FINETUNING}


def test_shipped_axes_need_a_speed_for_equal_time_alone() -> None:
    timed = [
        name for name, axis in shipped_axes().items() if any("time" in v.equal for v in axis.values.values())
    ]
    assert timed == ["objective"]
