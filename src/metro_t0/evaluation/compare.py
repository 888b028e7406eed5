"""Two evaluations over the same rows, by a paired bootstrap; and the spread over several, as over seeds.

    comparison = compare(read_evaluation(Path("results/a")), read_evaluation(Path("results/b")))
    comparison.overall.difference, comparison.overall.interval          # b minus a, 0-1
    [task.task for task in comparison.tasks if task.moved]

Both models answered the same rows, and a row that is hard for one is hard for the other. So rows are drawn together for
both, and what is looked at is the difference on the drawn rows: its interval is narrower than the two scores' own
intervals suggest. Only what both have is compared: tasks, templates, and rows that both models answered.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from metro_t0.evaluation.aggregate import (
    BOOTSTRAP_DRAWS,
    Interval,
    bootstrap_draws,
    percentile_interval,
    task_seed,
    wilson_interval,
)
from metro_t0.evaluation.predictions import Prediction
from metro_t0.evaluation.records import EvaluationRecord, Record

_SETTINGS = {
    "suite": "suites",
    "split": "splits",
    "limit": "limits of rows",
    "shots": "numbers of solved examples before a prompt",
    "max_input_length": "lengths at which prompts are cut",
}


@dataclass(frozen=True)
class Difference:
    """The second evaluation minus the first, accuracies 0-1.

    Attributes:
        first: accuracy of the first over what both have.
        second: that of the second.
        difference: second minus first.
        interval: 95 % interval of the difference.
        rows: rows that both answered.
    """

    first: float
    second: float
    difference: float
    interval: Interval
    rows: int

    @property
    def moved(self) -> bool:
        """Whether the interval leaves out no difference at all."""
        return self.interval[0] > 0 or self.interval[1] < 0


@dataclass(frozen=True)
class TaskDifference(Difference):
    """One task's difference: the mean over templates that both have.

    Attributes:
        task: its name.
        templates: how many both have.
    """

    task: str
    templates: int


@dataclass(frozen=True)
class Comparison:
    """What two evaluations have in common, and how far apart they are on it.

    Attributes:
        tasks: in the first one's order.
        overall: the plain mean over those tasks, None if there is no task in common.
        notes: plain sentences on what is not the same, and what is left out.
    """

    tasks: list[TaskDifference]
    overall: Difference | None
    notes: list[str]


@dataclass(frozen=True)
class RunSpread:
    """How far several evaluations lie apart, as of models trained with other seeds.

    Attributes:
        task: None for the mean over tasks that all have.
        values: a score each, in the order given, 0-1.
        mean: of them.
        standard_deviation: of the sample (n - 1), 0-1.
        lowest: of them.
        highest: of them.
    """

    task: str | None
    values: list[float]
    mean: float
    standard_deviation: float
    lowest: float
    highest: float


def compare(first: EvaluationRecord, second: EvaluationRecord, *, seed: int = 0) -> Comparison:
    """The paired bootstrap of the second evaluation against the first.

    Args:
        first: what is compared against.
        second: what is compared.
        seed: of the bootstrap; a task's draws depend on it and the task's name alone.

    Raises:
        ValueError: they answered different rows.
    """
    notes = list(_setting_notes(first.results, second.results))
    tasks: list[TaskDifference] = []
    draws: list[np.ndarray] = []
    ours, theirs = (_templates(record.results) for record in (first, second))
    for task in ours:
        if task in theirs and (pair := _pair(task, first, second)) is not None:
            task_draws = bootstrap_draws(pair.second - pair.first, seed=task_seed(seed, task))
            if pair.other_prompts:
                notes.append(
                    f"{task}: {pair.other_prompts:,} of {pair.answers:,} prompts were not the same for both."
                )
            tasks.append(_task_difference(task, pair, task_draws))
            draws.append(task_draws)
    notes += _left_out_notes(ours, theirs, {task.task for task in tasks})
    if not tasks:
        return Comparison(
            [], None, [*notes, "They have no predictions of a task in common: nothing to compare."]
        )
    mean_draws = np.mean(draws, axis=0)
    rows = sum(task.rows for task in tasks)
    means = (math.fsum(t.first for t in tasks) / len(tasks), math.fsum(t.second for t in tasks) / len(tasks))
    difference = math.fsum(task.difference for task in tasks) / len(tasks)
    overall = Difference(*means, difference, difference_interval(mean_draws, difference, rows), rows)
    return Comparison(tasks, overall, notes)


@dataclass(frozen=True)
class ComparedEvaluations:
    """Several evaluations side by side.

    Attributes:
        labels: their names.
        comparisons: each of the others against the first.
        spread: over all of them, by task; empty for fewer than three.
    """

    labels: list[str]
    comparisons: list[Comparison]
    spread: list[RunSpread]


def compare_all(
    records: Sequence[EvaluationRecord], labels: Sequence[str], *, seed: int = 0
) -> ComparedEvaluations:
    """Each evaluation against the first, and the spread over three or more.

    Raises:
        ValueError: two answered different rows.
    """
    first, *others = records
    comparisons = [compare(first, other, seed=seed) for other in others]
    return ComparedEvaluations(list(labels), comparisons, spread_over(records) if len(others) > 1 else [])


def spread_over(records: Sequence[EvaluationRecord]) -> list[RunSpread]:
    """The spread of each task's score over evaluations, and of the mean over tasks that all have, which comes last.

    Args:
        records: at least two.
    """
    assert len(records) > 1
    scores = [{task["task"]: float(task["mean"]) for task in record.results["tasks"]} for record in records]
    common = [task for task in scores[0] if all(task in others for others in scores)]
    spreads = [_spread(task, [others[task] for others in scores]) for task in common]
    if common:
        means = [math.fsum(others[task] for task in common) / len(common) for others in scores]
        spreads.append(_spread(None, means))
    return spreads


def _spread(task: str | None, values: list[float]) -> RunSpread:
    deviation = float(np.std(values, ddof=1))
    return RunSpread(task, values, math.fsum(values) / len(values), deviation, min(values), max(values))


# ---- what both have --------------------------------------------------------------------------------------


def _templates(results: Record) -> dict[str, list[str]]:
    return {task["task"]: [entry["template"] for entry in task["templates"]] for task in results["tasks"]}


@dataclass(frozen=True)
class _Pair:
    """A task's outcomes: ``[rows, templates]`` of each evaluation, 1 right, 0 wrong, NaN where not both answered."""

    first: np.ndarray
    second: np.ndarray
    answers: int
    other_prompts: int


def _pair(task: str, first: EvaluationRecord, second: EvaluationRecord) -> _Pair | None:
    """What both answered of a task; None if there is no such row."""
    columns: list[dict[int, tuple[float, float]]] = []
    answers = other_prompts = 0
    for template in _templates(first.results)[task]:
        ours, theirs = (record.template_predictions(task, template) for record in (first, second))
        if ours is None or theirs is None:
            continue
        by_row = {item.row: item for item in theirs.items}
        pairs = [(item, by_row[item.row]) for item in ours.items if item.row in by_row]
        _check_same_rows(f"task {task!r}, template {template!r}", pairs, first, second)
        answers += len(pairs)
        other_prompts += sum(a.prompt != b.prompt for a, b in pairs)
        if pairs:
            columns.append({a.row: (float(_right(a)), float(_right(b))) for a, b in pairs})
    if not columns:
        return None
    rows = sorted({row for column in columns for row in column})
    nothing = (math.nan, math.nan)
    both = np.array([[column.get(row, nothing) for column in columns] for row in rows])
    return _Pair(both[:, :, 0], both[:, :, 1], answers, other_prompts)


def _right(item: Prediction) -> bool:
    return item.prediction == item.gold


def _check_same_rows(
    where: str,
    pairs: Iterable[tuple[Prediction, Prediction]],
    first: EvaluationRecord,
    second: EvaluationRecord,
) -> None:
    """However a template words a row, the row has as many answers, and the same one is correct."""
    for ours, theirs in pairs:
        if len(ours.choices) != len(theirs.choices) or ours.gold != theirs.gold:
            raise ValueError(
                f"{where}, row {ours.row + 1}: another answer is correct in {first.path} than in {second.path}, so "
                "they are of different data and cannot be compared row by row"
            )


def _setting_notes(first: Record, second: Record) -> Iterable[str]:
    for key, name in _SETTINGS.items():
        if first.get(key) != second.get(key):
            before, after = ("none" if r.get(key) is None else r[key] for r in (first, second))
            yield f"The {name} differ: {before} and {after}."
    if _templates(first).keys() != _templates(second).keys():
        return  # The checksums are over all tasks, so they differ anyway.
    checksums = [record.get("checksums") or {} for record in (first, second)]
    for key in ("data", "templates"):
        if checksums[0].get(key) != checksums[1].get(key):
            yield f"The {key} are not the same (their checksums differ)."


def _left_out_notes(
    first: dict[str, list[str]], second: dict[str, list[str]], compared: set[str]
) -> Iterable[str]:
    for which, tasks in (("first", first), ("second", second)):
        alone = [task for task in tasks if task not in compared]
        if alone:
            yield f"Only the {which} has predictions of these tasks that could be paired: {', '.join(alone)}."
    apart = [task for task in compared if set(first[task]) != set(second[task])]
    if apart:
        yield f"Only templates that both have are compared; they differ in {', '.join(sorted(apart))}."


# ---- differences -----------------------------------------------------------------------------------------


def _task_difference(task: str, pair: _Pair, draws: np.ndarray) -> TaskDifference:
    first, second = (float(np.nanmean(correct, axis=0).mean()) for correct in (pair.first, pair.second))
    rows, templates = pair.first.shape
    difference = float(np.nanmean(pair.second - pair.first, axis=0).mean())
    interval = difference_interval(draws, difference, rows)
    return TaskDifference(first, second, difference, interval, rows, task=task, templates=templates)


def difference_interval(draws: np.ndarray, difference: float, rows: int) -> Interval:
    """The middle 95 % of a difference's bootstrap draws, 0-1.

    Rows that all differ by the same resample to themselves, which would claim certainty. The interval is then that of
    a share of which every row, or none, was an instance.
    """
    assert len(draws) == BOOTSTRAP_DRAWS
    if np.ptp(draws) > 0:
        return percentile_interval(draws)
    if difference == 0:
        reach = wilson_interval(0, rows)[1]
        return -reach, reach
    ends = sorted((difference, difference * wilson_interval(rows, rows)[0]))
    return ends[0], ends[1]
