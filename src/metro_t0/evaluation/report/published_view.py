"""The table of T0 Eval as the paper has it, one's own models first and the published ones below.

    view = published_view([record], ["my model"], SHOWN_AT_FIRST)    # None for suites with other rows

Averages are given twice where one's own rows are not all eleven: over the eleven, and over the rows that one has, so
that like stands beside like.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from metro_t0.evaluation.published_scores import find_published, published_scores
from metro_t0.evaluation.records import EvaluationRecord


def published_view(
    records: Sequence[EvaluationRecord], labels: Sequence[str], shown: Sequence[str]
) -> dict[str, Any] | None:
    """The table for the page: columns, a row a model, which published rows are shown at first.

    Args:
        records: evaluations; those of suites with other rows are left out.
        labels: their names on the page.
        shown: names of the published rows to show at first.

    Returns:
        None if no evaluation has rows of the table.

    Raises:
        ValueError: ``shown`` has a name that no published row has.
    """
    ticked = {model.name for model in find_published(shown)}
    models = published_scores()
    columns = list(models[0].scores)
    own: list[tuple[str, dict[str, float], set[str]]] = []
    for record, label in zip(records, labels, strict=True):
        tasks = record.results["tasks"]
        if tasks and all(task["task"] in columns for task in tasks):
            scores = {task["task"]: 100 * task["mean"] for task in tasks}
            own.append((label, scores, {task["task"] for task in tasks if task.get("supervised")}))
    if not own:
        return None
    common = [column for column in columns if all(column in scores for _, scores, _ in own)]
    rows = [_row(label, "", scores, columns, common, supervised) for label, scores, supervised in own]
    published = [
        {
            **_row(model.name, model.parameters, model.scores, columns, common, model.supervised),
            # As printed: a mean of rounded scores can differ in the last figure.
            "average": model.average,
            "ticked": model.name in ticked,
            "source": model.source,
            "section": _section(model.source, model.mixture),
        }
        for model in models
    ]
    sections = list(dict.fromkeys(row["section"] for row in published))
    return {
        "columns": columns,
        "common": common,
        "complete": common == columns,
        "own": rows,
        "published": published,
        "sections": [(name, [row for row in published if row["section"] == name]) for name in sections],
        "sources": list(dict.fromkeys((model.title, model.url) for model in models)),
    }


def _row(
    name: str,
    parameters: str,
    scores: dict[str, float] | dict[str, float | None],
    columns: Sequence[str],
    common: Sequence[str],
    supervised: set[str] | frozenset[str],
) -> dict[str, Any]:
    return {
        "name": name,
        "parameters": parameters,
        "cells": [{"score": scores.get(column), "supervised": column in supervised} for column in columns],
        "average": _mean([scores.get(column) for column in columns]),
        "common_average": _mean([scores.get(column) for column in common]),
    }


def _mean(scores: Sequence[float | None]) -> float | None:
    """The mean, None where there is nothing or a score is not known."""
    known = [score for score in scores if score is not None]
    return math.fsum(known) / len(known) if known and len(known) == len(scores) else None


def _section(source: str, mixture: str | None) -> str:
    if source != "paper":
        return "Model cards of the released checkpoints"
    return f"Finetuned on {mixture} Train" if mixture else "Not finetuned on prompts"
