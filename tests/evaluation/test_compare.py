"""The paired bootstrap against a direct computation and against what can be known on paper."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_folders import T0_TASKS, PlannedTask, write_evaluation

from metro_t0.evaluation.aggregate import BOOTSTRAP_DRAWS, wilson_interval
from metro_t0.evaluation.compare import compare, spread_over
from metro_t0.evaluation.predictions import Prediction, TemplatePredictions, write_predictions
from metro_t0.evaluation.records import EvaluationRecord, read_evaluation

FEW = (
    PlannedTask("RTE", 0.6, ["yes", "no"], 3, 60),
    PlannedTask("CB", 0.5, ["Yes", "No", "Maybe"], 2, 40),
)
Columns = dict[str, dict[int, bool]]


def plain_evaluation(folder: Path, tasks: dict[str, Columns], **settings: Any) -> EvaluationRecord:
    """An evaluation of which only this is known: by task and template, which rows were answered rightly."""
    for task, columns in tasks.items():
        for template, rows in columns.items():
            items = [
                Prediction(row, f"row {row}", ["a", "b"], [-1.0, -2.0], [2, 2], 0 if right else 1, 0)
                for row, right in rows.items()
            ]
            write_predictions(folder / "predictions", TemplatePredictions(task, template, items))
    entries = [
        {
            "task": task,
            "mean": float(np.mean([np.mean(list(rows.values())) for rows in columns.values()])),
            "templates": [{"template": template} for template in columns],
        }
        for task, columns in tasks.items()
    ]
    (folder / "results.json").write_text(json.dumps({"format_version": 2, "tasks": entries} | settings))
    return read_evaluation(folder)


def rows_of(*rights: int) -> dict[int, bool]:
    return {row: bool(right) for row, right in enumerate(rights)}


def slow_draws(first: Columns, second: Columns, *, seed: int) -> np.ndarray:
    """Each draw picks rows for both models, and scores each model on them as if nothing else were known."""
    rows = sorted({row for columns in first.values() for row in columns})
    rng = np.random.default_rng(seed)
    draws = []
    for _ in range(BOOTSTRAP_DRAWS):
        drawn = rng.choice(rows, size=len(rows))
        accuracies = []
        for columns in (first, second):
            scores = [np.mean([column[row] for row in drawn]) for column in columns.values()]
            accuracies.append(np.mean(scores))
        draws.append(accuracies[1] - accuracies[0])
    return np.array(draws)


@pytest.fixture
def make(tmp_path: Path) -> Callable[..., EvaluationRecord]:
    numbers = iter(range(1000))

    def make(tasks: dict[str, Columns], **settings: Any) -> EvaluationRecord:
        return plain_evaluation(tmp_path / str(next(numbers)), tasks, **settings)

    return make


def test_bootstrap_agrees_with_a_direct_computation(make: Callable[..., EvaluationRecord]) -> None:
    rng = np.random.default_rng(5)
    ease = rng.normal(0, 0.2, 80)
    first, second = (
        {f"t{i}": rows_of(*(rng.random(80) < 0.5 + gain + ease)) for i in range(3)} for gain in (0, 0.12)
    )
    comparison = compare(make({"task": first}), make({"task": second}))
    (task,) = comparison.tasks
    direct = [np.mean([np.mean(list(rows.values())) for rows in c.values()]) for c in (first, second)]
    assert (task.first, task.second) == pytest.approx(direct)
    assert task.difference == pytest.approx(direct[1] - direct[0])
    slow = np.percentile(slow_draws(first, second, seed=1), [2.5, 97.5])
    # Two bootstraps of 2,000 draws differ by their ends' own error, about 0.06 standard deviations.
    assert task.interval == pytest.approx(tuple(slow), abs=0.012)
    assert (task.rows, task.templates) == (80, 3)


def test_pairing_is_worth_its_name(make: Callable[..., EvaluationRecord]) -> None:
    """With p+ of the rows won and p- lost, the difference's variance is (p+ + p- - (p+ - p-)^2) / n."""
    n, won, lost = 400, 24, 8
    first = {"t": rows_of(*[0] * won, *[1] * lost, *[1] * 200, *[0] * (n - won - lost - 200))}
    second = {"t": rows_of(*[1] * won, *[0] * lost, *[1] * 200, *[0] * (n - won - lost - 200))}
    (task,) = compare(make({"task": first}), make({"task": second})).tasks
    assert task.difference == pytest.approx((won - lost) / n)
    gained, given = won / n, lost / n
    error = math.sqrt((gained + given - (gained - given) ** 2) / n)
    expected = (task.difference - 1.96 * error, task.difference + 1.96 * error)
    assert task.interval == pytest.approx(expected, abs=0.15 * error + 1 / n)
    assert task.moved
    unpaired = math.sqrt(2 * 0.25 / n)
    assert task.interval[1] - task.interval[0] < 2 * 1.96 * unpaired / 2


def test_what_all_rows_agree_on_is_not_certain(make: Callable[..., EvaluationRecord]) -> None:
    same = {"t": rows_of(*[1, 0] * 10)}
    (equal,) = compare(make({"task": same}), make({"task": same})).tasks
    reach = wilson_interval(0, 20)[1]
    assert (equal.difference, equal.interval, equal.moved) == (0, (-reach, reach), False)
    worse, better = {"t": rows_of(*[0] * 20)}, {"t": rows_of(*[1] * 20)}
    (up,) = compare(make({"task": worse}), make({"task": better})).tasks
    (down,) = compare(make({"task": better}), make({"task": worse})).tasks
    assert up.interval == pytest.approx((wilson_interval(20, 20)[0], 1.0)) and up.moved
    assert down.interval == pytest.approx((-1.0, -wilson_interval(20, 20)[0])) and down.moved


def test_overall_is_the_mean_over_tasks_drawn_independently(make: Callable[..., EvaluationRecord]) -> None:
    """Two tasks whose rows differ in the same places: drawn together their errors would add up, not cancel."""
    n = 300
    columns = {"t": rows_of(*[0, 1, 0] * (n // 3))}, {"t": rows_of(*[1, 0, 0] * (n // 3))}
    first, second = ({"a": column, "b": column} for column in columns)
    comparison = compare(make(first), make(second))
    one = [high - low for low, high in (task.interval for task in comparison.tasks)]
    assert comparison.overall is not None
    low, high = comparison.overall.interval
    assert high - low == pytest.approx(np.mean(one) / math.sqrt(2), rel=0.1)
    assert comparison.overall.difference == pytest.approx(0)
    assert comparison.overall.rows == 2 * n


def test_only_what_both_have_is_compared(make: Callable[..., EvaluationRecord]) -> None:
    first = make(
        {"a": {"s": rows_of(1, 0, 1, 1), "t": rows_of(0, 0, 0, 0)}, "b": {"t": rows_of(1)}}, limit=None
    )
    second = make({"a": {"s": rows_of(0, 0), "u": rows_of(1, 1)}, "c": {"t": rows_of(1)}}, limit=2)
    comparison = compare(first, second)
    (task,) = comparison.tasks
    assert (task.task, task.rows, task.templates) == ("a", 2, 1)
    assert (task.first, task.second, task.difference) == (0.5, 0.0, -0.5)
    assert comparison.notes == [
        "The limits of rows differ: none and 2.",
        "Only the first has predictions of these tasks that could be paired: b.",
        "Only the second has predictions of these tasks that could be paired: c.",
        "Only templates that both have are compared; they differ in a.",
    ]


def test_rows_a_template_dropped_are_left_out_of_its_mean_alone(
    make: Callable[..., EvaluationRecord],
) -> None:
    first = make({"a": {"s": rows_of(1, 1, 0, 0), "t": {1: True, 3: False}}})
    second = make({"a": {"s": rows_of(1, 1, 1, 0), "t": {0: True, 3: True}}})
    (task,) = compare(first, second).tasks
    assert (task.first, task.second) == (np.mean([0.5, 0.0]), np.mean([0.75, 1.0]))
    assert task.rows == 4


def test_evaluations_of_other_rows_are_refused(make: Callable[..., EvaluationRecord], tmp_path: Path) -> None:
    first = make({"a": {"t": rows_of(1, 0)}})
    nothing = compare(first, make({"b": {"t": rows_of(1, 0)}}))
    assert (nothing.tasks, nothing.overall) == ([], None)
    assert nothing.notes[-1] == "They have no predictions of a task in common: nothing to compare."
    (tmp_path / "x").mkdir()
    (tmp_path / "x" / "results.json").write_text(json.dumps(first.results))
    for choices, gold in ((["a", "b"], 1), (["a", "b", "c"], 0)):
        items = [Prediction(0, "row 0", choices, [-1.0] * len(choices), [2] * len(choices), 0, gold)]
        write_predictions(tmp_path / "x" / "predictions", TemplatePredictions("a", "t", items))
        with pytest.raises(
            ValueError, match=r"task 'a', template 't', row 1: another answer .* different data"
        ):
            compare(first, read_evaluation(tmp_path / "x"))


def test_other_wordings_and_checksums_are_said(make: Callable[..., EvaluationRecord]) -> None:
    first = make({"a": {"t": rows_of(1, 0)}}, checksums={"data": "d", "templates": "1"})
    second = make({"a": {"t": rows_of(1, 0)}}, checksums={"data": "d", "templates": "2"})
    items = [Prediction(row, f"Row {row}?", ["x", "y"], [-1.0, -2.0], [2, 2], 0, 0) for row in range(2)]
    write_predictions(second.path / "predictions", TemplatePredictions("a", "t", items))
    assert compare(first, second).notes == [
        "The templates are not the same (their checksums differ).",
        "a: 2 of 2 prompts were not the same for both.",
    ]


def test_spread_over_several_evaluations(tmp_path: Path) -> None:
    records = [
        read_evaluation(write_evaluation(tmp_path / str(seed), FEW, seed=seed, missing=["CB"] * (seed == 3)))
        for seed in (1, 2, 3)
    ]
    rte, overall = spread_over(records)
    values = [record.results["tasks"][0]["mean"] for record in records]
    assert (rte.task, rte.values) == ("RTE", values)
    assert rte.mean == pytest.approx(np.mean(values))
    deviation = math.sqrt(sum((value - np.mean(values)) ** 2 for value in values) / 2)
    assert rte.standard_deviation == pytest.approx(deviation)
    assert (rte.lowest, rte.highest) == (min(values), max(values))
    assert overall.task is None and overall.values == values, "over the one task that all three have"


def test_a_better_model_of_the_whole_suite_is_seen(tmp_path: Path) -> None:
    first = read_evaluation(write_evaluation(tmp_path / "a", T0_TASKS, missing=["StoryCloze"]))
    second = read_evaluation(write_evaluation(tmp_path / "b", T0_TASKS, skill=0.06, seed=2))
    comparison = compare(first, second)
    assert len(comparison.tasks) == 10 and comparison.overall is not None and comparison.overall.moved
    assert comparison.overall.difference == pytest.approx(0.06, abs=0.03)
    scores = {task["task"]: task["mean"] for task in second.results["tasks"]}
    for task in comparison.tasks:
        assert task.second == pytest.approx(scores[task.task])
    assert compare(first, second) == comparison, "the same draws every time"
