"""Which label a model gives where another was right: gold against predicted, counted over a task's templates.

    counter = ConfusionCounter()
    for predictions in record.predictions():
        counter.add(predictions)
    counter.confusion("RTE").counts             # [gold, predicted]

Only tasks whose answers mean the same in every row have labels: each of a task's templates must offer the same
answers in all of its rows, and all templates the same number. Labels are named as the first template names them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from metro_t0.evaluation.predictions import TemplatePredictions

_MOST_LABELS = 12


@dataclass(frozen=True)
class Confusion:
    """Counts of a task, or of several together.

    Attributes:
        labels: the answers, as the first template words them.
        counts: ``[labels, labels]`` integers, gold by predicted, summed over templates and rows.
        templates: how many templates are in the counts.
    """

    labels: list[str]
    counts: np.ndarray
    templates: int


class ConfusionCounter:
    """Counts gold against predicted as templates are added; ``group`` puts several tasks under one name."""

    def __init__(self) -> None:
        self._found: dict[str, Confusion | None] = {}

    def add(self, predictions: TemplatePredictions, *, group: str | None = None) -> None:
        """Counts a template under its task's name, or the group's."""
        name = group or predictions.task
        if not predictions.items:
            return
        labels = predictions.items[0].choices
        before = self._found.get(name, Confusion(labels, np.zeros((len(labels),) * 2, dtype=np.int64), 0))
        fixed = all(item.choices == labels for item in predictions.items)
        if before is None or not fixed or len(labels) != len(before.labels) or len(labels) > _MOST_LABELS:
            self._found[name] = None
            return
        counts = before.counts.copy()
        np.add.at(
            counts,
            ([item.gold for item in predictions.items], [item.prediction for item in predictions.items]),
            1,
        )
        self._found[name] = Confusion(before.labels, counts, before.templates + 1)

    def confusion(self, name: str) -> Confusion | None:
        """The counts of a task or group; None where its answers are not labels."""
        return self._found.get(name)

    def names(self) -> list[str]:
        """Tasks and groups that have counts, in the order they were first added."""
        return [name for name, found in self._found.items() if found is not None]
