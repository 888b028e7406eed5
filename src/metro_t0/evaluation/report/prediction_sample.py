"""A sample of an evaluation's predictions, small enough to travel inside a page.

    sample = PredictionSample(budget_bytes=3_000_000, seed=0)
    for predictions in record.predictions():
        sample.add("runs/finetune", predictions)
    sample.json_text()                          # safe between <script type="application/json"> and </script>

Every template gives the same number of predictions, as far as it has them, and right ones stand to wrong ones as they
do in all of them, so that what a reader leafs through is what the model does. Which ones is drawn with a seed. Of
further models the same rows are taken, so that answers to one prompt can be held against each other.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Sequence

import numpy as np

from metro_t0.evaluation.predictions import Prediction, TemplatePredictions

_MOST_PER_TEMPLATE = 400
_LONGEST_PROMPT = 4000


class PredictionSample:
    """Collects predictions template by template; :meth:`json_text` keeps what fits.

    Args:
        budget_bytes: of the predictions in the text, UTF-8.
        seed: of the draw.
    """

    def __init__(self, *, budget_bytes: int, seed: int = 0) -> None:
        self._budget = budget_bytes
        self._seed = seed
        self._drawn: list[list[str]] = []
        self._models: list[str] = []
        self._rows: dict[tuple[str, str], list[int]] = {}
        self.total = 0

    def add(self, model: str, predictions: TemplatePredictions) -> None:
        """Draws from one template's predictions by ``model``; the rows that were drawn for a model before, if any."""
        self.total += len(predictions.items)
        if model not in self._models:
            self._models.append(model)
        key = (predictions.task, predictions.template)
        if key not in self._rows:
            seed = zlib.crc32(repr((self._seed, key)).encode())
            order = proportional_order(predictions.items, seed)[:_MOST_PER_TEMPLATE]
            self._rows[key] = [predictions.items[place].row for place in order]
        where = [self._models.index(model), list(self._rows).index(key)]
        by_row = {item.row: item for item in predictions.items}
        drawn = (by_row[row] for row in self._rows[key] if row in by_row)
        self._drawn.append([_encode([*where, *_fields(item)]) for item in drawn])

    @property
    def kept(self) -> int:
        """How many predictions :meth:`json_text` holds."""
        return len(self._fitting())

    def json_text(self) -> str:
        """The sample as JSON, with every character escaped that could end a script element.

        ``{total, models: [name], templates: [[task, template]], items: [[model, template, row, prompt, characters
        of the prompt left out, choices, log-likelihoods, prediction, gold, truncated]]}``; models and templates of
        an item are places in those lists, a log-likelihood is null where it is not finite.
        """
        head = {"total": self.total, "models": self._models, "templates": list(self._rows)}
        return f'{_encode(head)[:-1]},"items":[{",".join(self._fitting())}]}}'

    def _fitting(self) -> list[str]:
        """One more prediction of each template in turn, until the budget is spent; in the order of templates."""
        spent, kept = 0, 0
        deepest = max(map(len, self._drawn), default=0)
        for depth in range(deepest):
            level = [drawn[depth] for drawn in self._drawn if depth < len(drawn)]
            spent += sum(len(text) + 1 for text in level)
            if spent > self._budget and depth > 0:
                break
            kept = depth + 1
        return [text for drawn in self._drawn for text in drawn[:kept]]


def proportional_order(items: Sequence[Prediction], seed: int) -> list[int]:
    """A shuffled order of which every beginning holds right and wrong predictions in proportion."""
    rng = np.random.default_rng(seed)
    right = np.array([item.prediction == item.gold for item in items], dtype=bool)
    place = np.empty(len(items))
    for part in (right, ~right):
        places = np.flatnonzero(part)
        place[rng.permutation(places)] = (np.arange(len(places)) + 0.5) / max(len(places), 1)
    return [int(index) for index in np.argsort(place, kind="stable")]


def _fields(item: Prediction) -> list[object]:
    return [
        item.row,
        item.prompt[:_LONGEST_PROMPT],
        max(0, len(item.prompt) - _LONGEST_PROMPT),
        item.choices,
        [round(value, 4) if math.isfinite(value) else None for value in item.log_likelihoods],
        item.prediction,
        item.gold,
        int(item.truncated),
    ]


def _encode(value: object) -> str:
    """JSON in ASCII without ``<``, ``>`` and ``&``: nothing in it can be taken for markup or end a line of script."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
