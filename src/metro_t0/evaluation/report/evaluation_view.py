"""What the report page shows of an evaluation: its headline, its rows, what is missing, confusions, generated answers.

    view = evaluation_view(read_evaluation(Path("results")), "results", sample)   # a dictionary for the page's template

A row that could not be measured stands among the others, as missing; no mean is taken over it, and the headline
says over how many of the suite's rows it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from metro_t0.evaluation.aggregate import verdict
from metro_t0.evaluation.confusion import Confusion, ConfusionCounter
from metro_t0.evaluation.published_scores import published_scores
from metro_t0.evaluation.records import EvaluationRecord, Record
from metro_t0.evaluation.report import charts
from metro_t0.evaluation.report.prediction_sample import PredictionSample
from metro_t0.evaluation.report.run_view import flatten

_FACTS = (
    "suite",
    "split",
    "shots",
    "seed",
    "limit",
    "max_input_length",
    "scoring",
    "precision",
    "checksums",
    "written",
    "examples_per_second",
    "environment",
)

_ABSENT_AT_VERSION_1: Record = {"supervised": False, "group": None}


def evaluation_view(record: EvaluationRecord, label: str, sample: PredictionSample) -> dict[str, Any]:
    """An evaluation for the page; its predictions are read once, counted, and drawn from for the browser.

    Args:
        record: the evaluation.
        label: what the page calls it.
        sample: gets the predictions.

    Raises:
        ValueError: a file of predictions is broken.
    """
    results = record.results
    groups = {task["task"]: task.get("group") for task in results["tasks"]}
    counter = ConfusionCounter()
    for predictions in record.predictions():
        counter.add(predictions, group=groups[predictions.task])
        sample.add(label, predictions)
    tasks = [_task_view(task) for task in results["tasks"]]
    verdicts = [task["verdict"] for task in tasks]
    return {
        "label": label,
        "suite": results.get("suite", record.path.name),
        "model": results.get("model", ""),
        "limit": results.get("limit"),
        "overall": _overall_view(results),
        "rows": in_suite_order(tasks + absent_rows(results)),
        "tasks": tasks,
        "groups": _group_views(tasks, results.get("groups", [])),
        "scorings": [name for name in results.get("scoring", []) if name != "official"],
        "wordings": any(len(task["templates"]) > 1 for task in tasks),
        "confusions": [
            _confusion_view(
                name, counter.confusion(name), "subject" if name in groups.values() else "template"
            )
            for name in counter.names()
        ],
        "generated": results.get("generated", []),
        "skipped": results.get("skipped", []),
        "counts": {name: verdicts.count(name) for name in ("above chance", "within noise", "below chance")},
        "supervised": [task["name"] for task in tasks if task.get("supervised")],
        "truncated": results.get("truncated_prompts", 0),
        "shots": results.get("shots"),
        "shots_left_out": sum(t.get("shots_left_out", 0) for task in tasks for t in task["templates"]),
        "prompts": results.get("prompts", 0),
        "precision": _precision_text(results.get("precision")),
        "facts": flatten({key: results[key] for key in _FACTS if key in results}),
        "seconds": results.get("seconds"),
    }


def absent_rows(results: Record) -> list[dict[str, str]]:
    """Tasks of the suite without a score: ``{name, absent: "missing" or "failed", reason}``."""
    kinds = (("missing", results.get("missing", [])), ("failed", results.get("failures", [])))
    return [
        {"name": str(entry["task"]), "absent": kind, "reason": str(entry["reason"])}
        for kind, entries in kinds
        for entry in entries
    ]


def count_text(results: Record) -> str:
    """``8 of 11 rows``, or ``11 rows`` where none is missing."""
    present = len(results["tasks"])
    expected = (results.get("overall") or {}).get("expected_tasks") or present + len(absent_rows(results))
    if present == expected:
        return f"{present} {'row' if present == 1 else 'rows'}"
    return f"{present} of {expected} rows"


def rows_text(task: Record) -> str:
    """``1,000 of 10,042 rows`` of a task's data, or ``277 rows`` where that is all, or nobody knows."""
    expected = task.get("expected_rows")
    if expected and expected != task["rows"]:
        return f"{task['rows']:,} of {expected:,} rows"
    return f"{task['rows']:,} {'row' if task['rows'] == 1 else 'rows'}"


def in_suite_order(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of T0 Eval in the order of its table; those of other suites as they come."""
    columns = list(published_scores()[0].scores)
    if all(row["name"] in columns for row in rows):
        return sorted(rows, key=lambda row: columns.index(row["name"]))
    return rows


def _overall_view(results: Record) -> dict[str, Any] | None:
    overall = results.get("overall")
    if not overall:
        return None
    interval = (overall["interval"][0], overall["interval"][1])
    return {
        "micro": None,
        **overall,
        "interval": interval,
        "verdict": verdict(interval, overall["chance"]),
        "count": count_text(results),
        "complete": " of " not in count_text(results),
        "strip": charts.interval_strip(
            overall["mean"], interval, overall["chance"], description="mean over tasks"
        ),
    }


def _task_view(task: Record) -> dict[str, Any]:
    interval = (task["interval"][0], task["interval"][1])
    where = verdict(interval, task["chance"])
    name = task["task"]
    described = (
        f"{name}: mean accuracy {100 * task['mean']:.1f} %, 95 % interval {100 * interval[0]:.1f} to "
        f"{100 * interval[1]:.1f} %, chance {100 * task['chance']:.1f} %"
    )
    return {
        **_ABSENT_AT_VERSION_1,
        **task,
        "name": name,
        "absent": None,
        "rows_text": rows_text(task),
        "interval": interval,
        "verdict": where,
        "statement": _statement(task, interval, where),
        "strip": charts.interval_strip(task["mean"], interval, task["chance"], description=described),
        "templates": [
            {**template, "verdict": verdict(tuple(template["interval"]), template["chance"])}
            for template in task["templates"]
        ],
        "template_strip": charts.template_strip(
            [(template["template"], template["accuracy"]) for template in task["templates"]],
            task["chance"],
            description=f"{name}: accuracies of {len(task['templates'])} templates, median "
            f"{100 * task['median']:.1f} %",
        ),
    }


# From here on a model goes by the length of an answer rather than by what it says.
_MOSTLY = 0.8


def _statement(task: Record, interval: tuple[float, float], where: str) -> str:
    """One plain sentence: does this task lie above chance, and would a fixed answer have done as well?"""
    text = {
        "above chance": "The whole interval lies over chance.",
        "within noise": "Chance lies inside the interval.",
        "below chance": "The whole interval lies under chance.",
    }[where]
    majority = task.get("majority")
    if where == "above chance" and majority is not None and interval[0] <= majority:
        level = charts.format_value(majority, "percent")
        text += f" But always giving the commonest answer would score {level}."
    shortest = task.get("shortest")
    if shortest and shortest["chosen"] >= _MOSTLY > shortest["even"]:
        share = charts.format_value(shortest["chosen"], "percent")
        text += f" Where answers differ in length, the shortest was chosen in {share} of the questions."
    return text


def _group_views(tasks: Sequence[dict[str, Any]], entries: Sequence[Record]) -> list[dict[str, Any]]:
    """Fields of a suite that has them, the best first; a field's score is the plain mean of its tasks."""
    intervals = {entry["group"]: entry["interval"] for entry in entries}
    by_group: dict[str, list[dict[str, Any]]] = {}
    for task in tasks:
        if task.get("group"):
            by_group.setdefault(task["group"], []).append(task)
    views = []
    for name, members in by_group.items():
        mean = math.fsum(task["mean"] for task in members) / len(members)
        chance = math.fsum(task["chance"] for task in members) / len(members)
        ranked = sorted(members, key=lambda task: -task["mean"])
        views.append(
            {
                "name": name,
                "mean": mean,
                "interval": intervals.get(name),
                "chance": chance,
                "tasks": ranked,
                "strip": charts.template_strip(
                    [(task["name"], task["mean"]) for task in ranked],
                    chance,
                    description=f"{name}: accuracies of {len(members)} subjects, mean {100 * mean:.1f} %",
                ),
            }
        )
    return sorted(views, key=lambda view: -view["mean"])


def _confusion_view(name: str, confusion: Confusion | None, kind: str) -> dict[str, Any]:
    assert confusion is not None
    totals = confusion.counts.sum(axis=1)
    return {
        "name": name,
        "labels": confusion.labels,
        "summed_over": f"{confusion.templates} {kind}{'' if confusion.templates == 1 else 's'}",
        "rows": [
            {
                "label": label,
                "total": int(total),
                "cells": [
                    {"count": int(count), "share": float(count / total) if total else 0.0, "right": i == j}
                    for j, count in enumerate(counts)
                ],
            }
            for i, (label, counts, total) in enumerate(
                zip(confusion.labels, confusion.counts, totals, strict=True)
            )
        ],
        "predicted": [int(count) for count in confusion.counts.sum(axis=0)],
    }


def _precision_text(precision: Record | None) -> str:
    if not precision or precision.get("dtype") in (None, "float32"):
        return ""
    text = f"Likelihoods were computed in {precision['dtype']}."
    if precision.get("sample"):
        share = precision["changed"] / precision["sample"]
        text += (
            f" Of {precision['sample']:,} predictions computed in float32 as well, {precision['changed']:,} "
            f"({charts.format_value(share, 'percent')}) came out differently."
        )
    return text
