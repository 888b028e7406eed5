"""Scores with the doubt that belongs to them: accuracies, chance levels and 95 % intervals.

    scores = [score_template(predictions, golds, choices) for each template]
    task = score_task(scores, correct)          # correct [rows, templates]: templates ask about the same rows
    overall = score_overall([task, ...])

How sure a score is:

- one template: the Wilson score interval of a proportion, which stays inside 0-1 and is honest for few rows;
- the mean over templates of the same rows: a seeded percentile bootstrap over *rows*. Templates ask about the
  same rows, so their errors go together, and counting each (row, template) pair as evidence of its own
  would make the interval far too narrow. Templates are the ones given, not a sample of templates: the
  interval says what other rows would do to this mean, and the spread over templates is reported beside it;
- the mean over tasks: the mean of the tasks' bootstrap draws, tasks drawn independently of each other.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

Interval = tuple[float, float]
Verdict = Literal["above chance", "within noise", "below chance"]

BOOTSTRAP_DRAWS = 2000
_Z_95 = 1.959963984540054
_CELLS_PER_CHUNK = 4_000_000


@dataclass(frozen=True)
class TemplateScore:
    """One template's result.

    Attributes:
        correct: number of rows answered correctly.
        examples: number of rows scored.
        accuracy: ``correct / examples``, 0-1.
        chance: expected accuracy of a uniform guess: the mean over rows of 1 / number of choices.
        majority: accuracy of always giving the commonest correct answer, 0-1.
        interval: 95 % Wilson interval of the accuracy.
    """

    correct: int
    examples: int
    accuracy: float
    chance: float
    majority: float
    interval: Interval


@dataclass(frozen=True)
class Spread:
    """How far templates of one task differ: a box plot's numbers and the standard deviation (population)."""

    lowest: float
    first_quartile: float
    third_quartile: float
    highest: float
    standard_deviation: float


@dataclass(frozen=True)
class TaskScore:
    """Templates of one task taken together; accuracies are 0-1.

    Attributes:
        mean: unweighted mean over templates, the official score of a task
            (``t-zero/evaluation/run_all_multi.py``).
        median: median over templates.
        spread: quartiles and extremes over templates.
        chance: unweighted mean over templates of their chance levels.
        majority: unweighted mean over templates of their majority levels.
        interval: 95 % interval of the mean (Wilson for one template, else bootstrap over rows).
        draws: bootstrap draws of the mean ``[BOOTSTRAP_DRAWS]``, for means over tasks.
    """

    mean: float
    median: float
    spread: Spread
    chance: float
    majority: float
    interval: Interval
    draws: np.ndarray

    @property
    def verdict(self) -> Verdict:
        """Where the mean lies against chance."""
        return verdict(self.interval, self.chance)


def wilson_interval(correct: int, examples: int) -> Interval:
    """95 % Wilson score interval of a proportion.

    Args:
        correct: successes, between 0 and ``examples``.
        examples: trials, at least 1.

    Source: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    JASA 22 (1927).
    """
    assert 0 <= correct <= examples and examples > 0
    share = correct / examples
    z_squared = _Z_95 * _Z_95
    denominator = 1 + z_squared / examples
    centre = (share + z_squared / (2 * examples)) / denominator
    reach = _Z_95 * math.sqrt(share * (1 - share) / examples + z_squared / (4 * examples**2)) / denominator
    low = 0.0 if correct == 0 else max(0.0, centre - reach)
    high = 1.0 if correct == examples else min(1.0, centre + reach)
    return low, high


def verdict(interval: Interval, chance: float) -> Verdict:
    """Where a score lies against chance: outside its 95 % interval, or inside, which is noise."""
    low, high = interval
    if low > chance:
        return "above chance"
    if high < chance:
        return "below chance"
    return "within noise"


def score_template(
    predictions: Sequence[int], golds: Sequence[int], choices: Sequence[Sequence[str]]
) -> TemplateScore:
    """Accuracy of one template.

    Args:
        predictions: index of the chosen answer, a row.
        golds: index of the correct answer, a row.
        choices: the answers a row offers.

    Raises:
        ValueError: there is no row to score.
    """
    if not len(predictions):
        raise ValueError("no example to score")
    assert len(predictions) == len(golds) == len(choices)
    examples = len(predictions)
    correct = sum(int(p == g) for p, g in zip(predictions, golds, strict=True))
    answers = Counter(row[gold] for row, gold in zip(choices, golds, strict=True))
    return TemplateScore(
        correct=correct,
        examples=examples,
        accuracy=correct / examples,
        chance=math.fsum(1 / len(row) for row in choices) / examples,
        majority=max(answers.values()) / examples,
        interval=wilson_interval(correct, examples),
    )


def bootstrap_draws(correct: np.ndarray, *, seed: int, draws: int = BOOTSTRAP_DRAWS) -> np.ndarray:
    """Bootstrap draws of the mean over templates of their accuracies, rows resampled with replacement.

    Args:
        correct: ``[rows, templates]``, 1 right, 0 wrong, NaN where a template did not apply to a row.
        seed: of the resampling; equal seeds give equal draws.
        draws: how many.

    Returns:
        ``[draws]`` means, 0-1.
    """
    rows, _ = correct.shape
    present = ~np.isnan(correct)
    assert rows > 0 and present.any(axis=0).all(), "every template needs a scored row"
    values = np.where(present, correct, 0.0)
    counted = present.astype(np.float64)
    rng = np.random.default_rng(seed)
    chunk = max(1, _CELLS_PER_CHUNK // rows)
    means: list[np.ndarray] = []
    for start in range(0, draws, chunk):
        size = min(chunk, draws - start)
        weights = rng.multinomial(rows, np.full(rows, 1 / rows), size=size).astype(np.float64)
        counts = weights @ counted
        with np.errstate(invalid="ignore", divide="ignore"):
            # A template with no row in a draw is left out of that draw's mean.
            accuracies = np.where(counts > 0, weights @ values / counts, np.nan)
        means.append(np.nanmean(accuracies, axis=1))
    return np.concatenate(means)


def task_seed(seed: int, task: str) -> int:
    """A seed of a task's own: with the same one, tasks whose rows lie alike would be drawn together."""
    return zlib.crc32(task.encode(), seed & 0xFFFFFFFF)


def percentile_interval(draws: np.ndarray) -> Interval:
    """The middle 95 % of bootstrap draws."""
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def score_task(scores: Sequence[TemplateScore], correct: np.ndarray, *, seed: int = 0) -> TaskScore:
    """A task's score from its templates'.

    Args:
        scores: one a template.
        correct: ``[rows, templates]`` of 1 (right), 0 (wrong), NaN (the template did not apply to the row).
        seed: of the bootstrap.

    Raises:
        ValueError: there is no template.
    """
    if not scores:
        raise ValueError("no template to take the mean of")
    assert correct.shape[1] == len(scores)
    accuracies = np.array([score.accuracy for score in scores])
    lowest, first, third, highest = (float(q) for q in np.percentile(accuracies, [0, 25, 75, 100]))
    draws = bootstrap_draws(correct, seed=seed)
    if len(scores) == 1:
        interval = scores[0].interval
    elif np.ptp(draws) == 0:
        # Rows that all score the same resample to themselves: a bootstrap would claim certainty. Taken as one
        # template's worth of evidence instead, the widest reading of the same rows.
        rows = min(score.examples for score in scores)
        interval = wilson_interval(round(float(accuracies.mean()) * rows), rows)
    else:
        interval = percentile_interval(draws)
    return TaskScore(
        mean=float(accuracies.mean()),
        median=float(np.median(accuracies)),
        spread=Spread(lowest, first, third, highest, standard_deviation=float(accuracies.std())),
        chance=math.fsum(score.chance for score in scores) / len(scores),
        majority=math.fsum(score.majority for score in scores) / len(scores),
        interval=interval,
        draws=draws,
    )


@dataclass(frozen=True)
class OverallScore:
    """Unweighted mean over tasks, each counting once, with its chance level and 95 % interval."""

    mean: float
    chance: float
    interval: Interval
    tasks: int

    @property
    def verdict(self) -> Verdict:
        """Where the mean lies against chance."""
        return verdict(self.interval, self.chance)


def score_overall(tasks: Sequence[TaskScore]) -> OverallScore:
    """The suite's headline from its tasks' scores.

    Raises:
        ValueError: there is no task.
    """
    if not tasks:
        raise ValueError("no task to take the mean of")
    if len(tasks) == 1:
        interval = tasks[0].interval
    else:
        interval = percentile_interval(np.mean([task.draws for task in tasks], axis=0))
    return OverallScore(
        mean=math.fsum(task.mean for task in tasks) / len(tasks),
        chance=math.fsum(task.chance for task in tasks) / len(tasks),
        interval=interval,
        tasks=len(tasks),
    )
