"""Accuracies, chance levels and intervals against closed forms, enumeration and simulated coverage."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.evaluation.aggregate import (
    TemplateScore,
    bootstrap_draws,
    score_overall,
    score_task,
    score_template,
    verdict,
    wilson_interval,
)


def template_of(correct: np.ndarray, number_of_choices: int = 2) -> TemplateScore:
    applied = correct[~np.isnan(correct)]
    golds = [0] * len(applied)
    predictions = [0 if c else 1 for c in applied]
    return score_template(predictions, golds, [[str(i) for i in range(number_of_choices)]] * len(applied))


@settings(deadline=None)
@given(st.integers(1, 400), st.data())
def test_wilson_interval_solves_the_score_equation(examples: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, examples))
    low, high = wilson_interval(correct, examples)
    share = correct / examples
    assert 0 <= low <= share <= high <= 1
    for bound in (low, high):
        if 0 < bound < 1:
            # A bound is where the observed share lies 1.96 standard errors (at the bound) away.
            distance = abs(share - bound) / math.sqrt(bound * (1 - bound) / examples)
            assert distance == pytest.approx(1.959964, rel=1e-5)


def test_wilson_interval_of_nothing_right_stays_at_zero_and_is_not_a_point() -> None:
    low, high = wilson_interval(0, 10)
    assert low == 0 and high == pytest.approx(0.2775, abs=1e-4)
    assert wilson_interval(10, 10) == (pytest.approx(1 - 0.2775, abs=1e-4), 1.0)


def test_chance_and_majority_are_means_over_rows() -> None:
    choices = [["yes", "no"], ["yes", "no"], ["yes", "no", "maybe"], ["a", "b", "c", "d"]]
    score = score_template([0, 1, 0, 3], [0, 0, 0, 3], choices)
    assert score.correct == 3 and score.accuracy == 0.75
    assert score.chance == pytest.approx((1 / 2 + 1 / 2 + 1 / 3 + 1 / 4) / 4)
    assert score.majority == 0.75  # "yes" is right three times of four


def test_no_row_is_an_error() -> None:
    with pytest.raises(ValueError, match="no example"):
        score_template([], [], [])
    with pytest.raises(ValueError, match="no template"):
        score_task([], np.zeros((3, 0)))
    with pytest.raises(ValueError, match="no task"):
        score_overall([])


def test_bootstrap_equals_the_exhaustive_bootstrap_of_three_rows() -> None:
    correct = np.array([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    exact = [correct[list(rows)].mean() for rows in itertools.product(range(3), repeat=3)]
    draws = bootstrap_draws(correct, seed=3, draws=20_000)
    assert draws.mean() == pytest.approx(np.mean(exact), abs=0.01)
    assert draws.std() == pytest.approx(np.std(exact), abs=0.01)
    assert set(np.round(draws, 6)) <= set(np.round(exact, 6))


def test_bootstrap_with_rows_that_a_template_skips() -> None:
    correct = np.array([[1.0, np.nan], [0.0, 1.0], [1.0, 0.0], [1.0, np.nan]])
    draws = bootstrap_draws(correct, seed=0)
    assert np.isfinite(draws).all() and 0 <= draws.min() <= draws.max() <= 1
    score = score_task([template_of(correct[:, 0]), template_of(correct[:, 1])], correct)
    assert score.mean == pytest.approx((3 / 4 + 1 / 2) / 2)


def test_bootstrap_is_seeded_and_the_same_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    correct = np.random.default_rng(0).integers(0, 2, (50, 3)).astype(float)
    whole = bootstrap_draws(correct, seed=7)
    monkeypatch.setattr("metro_t0.evaluation.aggregate._CELLS_PER_CHUNK", 500)
    assert np.array_equal(whole, bootstrap_draws(correct, seed=7))
    assert not np.array_equal(whole, bootstrap_draws(correct, seed=8))


def test_templates_on_the_same_rows_do_not_count_as_more_evidence() -> None:
    """Ten copies of one template say what one says: the interval stays about as wide as Wilson's of one."""
    rows = np.random.default_rng(1).integers(0, 2, 200).astype(float)
    copied = np.repeat(rows[:, None], 10, axis=1)
    low, high = score_task([template_of(rows)] * 10, copied).interval
    one_low, one_high = wilson_interval(int(rows.sum()), 200)
    assert high - low == pytest.approx(one_high - one_low, rel=0.1)


def test_interval_of_a_mean_over_templates_covers_the_truth() -> None:
    """In about 95 of 100 simulated evaluations the interval holds the accuracy the rows were drawn from."""
    rng = np.random.default_rng(0)
    held = 0
    for trial in range(200):
        difficulty = rng.normal(size=(80, 1))
        correct = (difficulty + rng.normal(size=(80, 4)) > 0).astype(float)  # true accuracy 0.5
        low, high = score_task([template_of(c) for c in correct.T], correct, seed=trial).interval
        held += low <= 0.5 <= high
    assert 180 <= held <= 199


def test_all_rows_alike_do_not_give_certainty() -> None:
    correct = np.ones((12, 3))
    score = score_task([template_of(c) for c in correct.T], correct)
    assert score.interval == wilson_interval(12, 12)


def test_task_mean_median_and_spread() -> None:
    columns = [np.array([1.0] * k + [0.0] * (10 - k)) for k in (2, 4, 9)]
    correct = np.stack(columns, axis=1)
    score = score_task([template_of(c, 4) for c in columns], correct)
    assert score.mean == pytest.approx(0.5) and score.median == pytest.approx(0.4)
    assert (score.spread.lowest, score.spread.highest) == (0.2, 0.9)
    assert score.spread.first_quartile == pytest.approx(0.3)
    assert score.spread.standard_deviation == pytest.approx(np.std([0.2, 0.4, 0.9]))
    assert score.chance == pytest.approx(0.25)


def test_overall_is_the_mean_over_tasks_with_a_narrower_interval() -> None:
    rng = np.random.default_rng(5)
    tasks = []
    for seed in range(4):
        correct = rng.integers(0, 2, (60, 2)).astype(float)
        tasks.append(score_task([template_of(c) for c in correct.T], correct, seed=seed))
    overall = score_overall(tasks)
    assert overall.mean == pytest.approx(np.mean([t.mean for t in tasks]))
    assert overall.tasks == 4 and overall.interval[0] < overall.mean < overall.interval[1]
    widths = [t.interval[1] - t.interval[0] for t in tasks]
    assert overall.interval[1] - overall.interval[0] < min(widths)
    assert score_overall(tasks[:1]).interval == tasks[0].interval


def test_verdict() -> None:
    assert verdict((0.51, 0.6), 0.5) == "above chance"
    assert verdict((0.45, 0.5), 0.5) == "within noise"
    assert verdict((0.3, 0.49), 0.5) == "below chance"
