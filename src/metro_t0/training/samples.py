"""What the models do to a few held-out rows, token by token, at some points of a run: ``samples.jsonl``.

    samples = Samples(objective, rows, tokenizer)              # an objective that is Inspectable
    file.append({"step": 400, "tokens": 1_600_000, "rows": samples.take(parallel, "fp32")})

A row of the file's ``rows``, each a list over the row's tokens:

    original     pieces of the tokenizer
    masked       whether the auxiliary model wrote here
    replaced     the piece it wrote where that is another, else null
    detection    the probability from 0 to 1 that RTD gives to "replaced"; null where it was not asked
    restored     the piece that the decoder holds most likely, where masked, else null

Always the same rows with the same masks and draws, so that two points differ by the models alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

import torch

from metro_t0.data.rows import TokenRows
from metro_t0.objectives.base import Batch, Inspectable, Inspection, Objective, Row
from metro_t0.training.distributed import Parallel
from metro_t0.training.update import Precision, autocast, move
from metro_t0.training.validation import VALIDATION_STEP

ROWS, LENGTH = 4, 64

# Shares of a run after which the next validation is kept: most changes early.
_POINTS = (0.0, 0.05, 0.2, 0.4, 0.7, 1.0)


class Pieces(Protocol):
    """A tokenizer as this module needs it."""

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]: ...


def points_passed(step: int, steps: int) -> int:
    """How many of a run's points lie at or before a step; the first at its start, the last at its end."""
    return sum(step >= point * steps for point in _POINTS)


class Samples:
    """Fixed rows, collated once: the first few held-out ones, cut.

    Args:
        objective: collates the rows and shows what happens to them.
        rows: held-out rows, at least one.
        tokenizer: turns ids into pieces.
    """

    def __init__(self, objective: Objective, rows: TokenRows, tokenizer: Pieces) -> None:
        assert isinstance(objective, Inspectable) and len(rows)
        self._tokenizer = tokenizer
        cut: list[Row] = [
            {name: ids[:LENGTH] for name, ids in rows[index].items()} for index in range(min(ROWS, len(rows)))
        ]
        self._batch: Batch = objective.collate(cut, [(VALIDATION_STEP, place) for place in range(len(cut))])

    def take(self, parallel: Parallel, precision: Precision) -> list[dict[str, Any]]:
        """The rows as the models treat them now; all processes call it and get the same.

        The network is left in training mode.
        """
        with parallel.evaluating(), autocast(parallel.device, precision):
            found = parallel.inspect(move(self._batch, parallel.device))
        return [self._row(found, place) for place in range(len(found.original))]

    def _row(self, found: Inspection, place: int) -> dict[str, Any]:
        real = found.real[place]

        def values(tensor: torch.Tensor) -> list[Any]:
            listed: list[Any] = tensor[place][real].tolist()
            return listed

        masked = values(found.masked)
        written = values(found.masked & found.corrupted.ne(found.original))
        return {
            "original": self._pieces(values(found.original)),
            "masked": masked,
            "replaced": _where(written, self._pieces(values(found.corrupted))),
            "detection": [None if math.isnan(p) else round(p, 3) for p in values(found.detection)],
            "restored": _where(masked, self._pieces(values(found.restored))),
        }

    def _pieces(self, ids: list[int]) -> list[str]:
        return self._tokenizer.convert_ids_to_tokens(ids)


def _where(wanted: Sequence[bool], pieces: Sequence[str]) -> list[str | None]:
    return [piece if here else None for here, piece in zip(wanted, pieces, strict=True)]
