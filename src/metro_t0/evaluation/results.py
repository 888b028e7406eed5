"""What ``results.json`` says: scores of templates, tasks and the whole suite, counted from predictions.

    entry, score = task_results(task, predictions, scoring=("official",), supervised=False, seed=0)
    overall = overall_entry([score, ...], [entry, ...], expected_tasks=11)

Accuracies are 0-1. The functions ending in ``_entry`` say which keys there are.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from metro_t0.evaluation.aggregate import (
    TaskScore,
    TemplateScore,
    score_overall,
    score_task,
    score_template,
    task_seed,
)
from metro_t0.evaluation.predictions import TemplatePredictions, rescored

if TYPE_CHECKING:
    from metro_t0.evaluation.questions import TaskQuestions

FORMAT_VERSION = 2

OFFICIAL = "official"
SCORINGS = (OFFICIAL, "length-normalised", "calibrated")
"""Ways of scoring an answer; see ``predictions.rescored``."""

Entry = dict[str, Any]


def task_results(
    asked: TaskQuestions,
    predictions: Sequence[TemplatePredictions],
    *,
    scoring: Sequence[str],
    supervised: bool,
    seed: int,
) -> tuple[Entry, TaskScore]:
    """A task's entry and score.

    Args:
        asked: the task.
        predictions: of each of its templates with answer choices, in their order.
        scoring: ways of scoring to report; the official one is always what the entry's own numbers are.
        supervised: whether the model was finetuned on the dataset.
        seed: of the bootstrap.
    """
    task = asked.task
    split = task.source("evaluation").split
    others = [name for name in scoring if name != OFFICIAL]
    correct = np.full((asked.number_of_rows, len(predictions)), math.nan)
    scores: list[TemplateScore] = []
    templates: list[Entry] = []
    for column, (of, questions) in enumerate(zip(predictions, asked.questions, strict=True)):
        golds = [item.gold for item in of.items]
        chosen = [item.prediction for item in of.items]
        correct[[item.row for item in of.items], column] = np.equal(chosen, golds)
        of_template = score_template(chosen, golds, [item.choices for item in of.items])
        scores.append(of_template)
        templates.append(
            template_entry(
                task.dataset,
                task.subset,
                split,
                of.template,
                of_template,
                truncated=sum(item.truncated for item in of.items),
                dropped=of.dropped,
                other_scores={
                    name: float(np.mean([rescored(item, name) == item.gold for item in of.items]))
                    for name in others
                },
                shots_left_out=questions.shots_left_out,
            )
        )
    score = score_task(scores, correct[~np.isnan(correct).all(axis=1)], seed=task_seed(seed, task.name))
    entry = task_entry(
        task.name,
        task.dataset,
        task.subset,
        split,
        asked.number_of_rows,
        score,
        templates,
        group=task.facts.group or None,
        expected_rows=task.facts.evaluation_size,
        supervised=supervised,
        seconds=math.fsum(of.seconds for of in predictions),
    )
    entry["shortest"] = shortest_entry(predictions)
    return entry, score


def shortest_entry(predictions: Sequence[TemplatePredictions]) -> Entry | None:
    """How often the answer of the fewest tokens was chosen where answers differ in length; None where none does.

    The official score adds up log-probabilities, so a model that knows nothing chooses the shortest answer. ``chosen``
    is the share that it got, ``even`` what a uniform choice would give it, of ``examples`` predictions.
    """
    differing = [item for of in predictions for item in of.items if len(set(item.lengths)) > 1]
    if not differing:
        return None
    return {
        "examples": len(differing),
        "chosen": float(np.mean([item.lengths[item.prediction] == min(item.lengths) for item in differing])),
        "even": float(
            np.mean([item.lengths.count(min(item.lengths)) / len(item.lengths) for item in differing])
        ),
    }


def template_entry(
    dataset: str,
    subset: str | None,
    split: str,
    template: str,
    score: TemplateScore,
    *,
    truncated: int = 0,
    dropped: dict[str, int] | None = None,
    other_scores: dict[str, float] | None = None,
    shots_left_out: int = 0,
) -> Entry:
    """One template's line: where it comes from, its score (:class:`TemplateScore`), and what was cut or left out."""
    return {
        "dataset": dataset,
        "subset": subset,
        "split": split,
        "template": template,
        "accuracy": score.accuracy,
        "examples": score.examples,
        "correct": score.correct,
        "chance": score.chance,
        "majority": score.majority,
        "interval": list(score.interval),
        "other_scores": other_scores or {},
        "truncated_prompts": truncated,
        "dropped": dropped or {},
        "shots_left_out": shots_left_out,
    }


def task_entry(
    name: str,
    dataset: str,
    subset: str | None,
    split: str,
    rows: int,
    score: TaskScore,
    templates: list[Entry],
    *,
    group: str | None = None,
    expected_rows: int | None = None,
    supervised: bool = False,
    seconds: float = 0.0,
) -> Entry:
    """One task's line: its :class:`TaskScore` and its templates' entries.

    ``expected_rows`` is how many the whole split has, ``rows`` how many the scores stand on.
    """
    names = templates[0]["other_scores"]
    return {
        "task": name,
        "dataset": dataset,
        "subset": subset,
        "split": split,
        "group": group,
        "supervised": supervised,
        "rows": rows,
        "expected_rows": expected_rows,
        "mean": score.mean,
        "median": score.median,
        "spread": dataclasses.asdict(score.spread),
        "interval": list(score.interval),
        "chance": score.chance,
        "majority": score.majority,
        "verdict": score.verdict,
        "other_scores": {
            scoring: float(np.mean([one["other_scores"][scoring] for one in templates])) for scoring in names
        },
        "truncated_prompts": sum(one["truncated_prompts"] for one in templates),
        "seconds": seconds,
        "templates": templates,
    }


def overall_entry(
    scores: Sequence[TaskScore], tasks: Sequence[Entry], *, expected_tasks: int
) -> Entry | None:
    """The suite's headline over the tasks that were scored; None when none was.

    ``mean`` counts each task once (the official mean, MMLU's macro accuracy), ``micro`` each example.
    """
    if not scores:
        return None
    score = score_overall(scores)
    templates = [template for task in tasks for template in task["templates"]]
    return {
        "mean": score.mean,
        "micro": sum(one["correct"] for one in templates) / sum(one["examples"] for one in templates),
        "interval": list(score.interval),
        "chance": score.chance,
        "tasks": score.tasks,
        "expected_tasks": expected_tasks,
        "verdict": score.verdict,
        "other_scores": {
            scoring: float(np.mean([task["other_scores"][scoring] for task in tasks]))
            for scoring in tasks[0]["other_scores"]
        },
    }


def group_entries(scores: Sequence[TaskScore], tasks: Sequence[Entry]) -> list[Entry]:
    """The tasks of each group together, as :func:`overall_entry` has them all; empty when none belongs to a group."""
    groups = dict.fromkeys(task["group"] for task in tasks if task["group"])
    entries: list[Entry] = []
    for group in groups:
        members = [index for index, task in enumerate(tasks) if task["group"] == group]
        of_group = overall_entry(
            [scores[index] for index in members],
            [tasks[index] for index in members],
            expected_tasks=len(members),
        )
        assert of_group is not None
        entries.append({"group": group, **of_group})
    return entries
