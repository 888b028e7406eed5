"""What a study costs: measured speeds, and budgets that make it shorter or refuse it."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_studies import write_study

from metro_t0.study.costs import Costs, measured_costs
from metro_t0.study.study_file import load_study

SHAPE = {"vocabulary": 600, "sentinels": 16, "length": 40.0}


def test_nothing_is_measured_where_nothing_depends_on_it(tmp_path: Path) -> None:
    costs = measured_costs(
        load_study(write_study(tmp_path)), tmp_path / "no corpus", budget_seconds=None, **SHAPE
    )
    assert costs == Costs(speeds={}, scale=1.0, expected_seconds=None)


@given(scale=st.floats(1e-4, 1.0))
def test_a_scale_makes_everything_shorter_and_nothing_vanish(
    scale: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    study = load_study(write_study(tmp_path_factory.getbasetemp() / "scaled"))
    made = Costs(speeds={}, scale=scale, expected_seconds=None).shortened(study)
    assert 1 <= made.tokens <= study.tokens
    finetuning = made.finetunings["weather"]
    if scale == 1.0:
        assert made == study
    else:
        assert 1 <= finetuning.settings["training.steps"] <= 2
        assert finetuning.limit is not None and 10 <= finetuning.limit <= 1000


def test_equal_time_and_a_budget_are_measured_on_the_real_thing(tmp_path: Path, study_corpus: Path) -> None:
    study = load_study(write_study(tmp_path, axes={"objective": None}, tokens=50_000_000))
    costs = measured_costs(study, study_corpus, budget_seconds=600.0, **SHAPE)
    assert set(costs.speeds) == {"one-size/base", "one-size/objective=span-corruption"}
    assert all(speed > 0 for speed in costs.speeds.values())
    assert 0 < costs.scale < 1
    assert costs.expected_seconds == pytest.approx(600.0, rel=0.01)
    with pytest.raises(ValueError, match=r"a budget of 5 s is too short for the 4 runs .* at least \d+ s"):
        measured_costs(study, study_corpus, budget_seconds=5.0, **SHAPE)
