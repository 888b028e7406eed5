"""Which rows a training step reads, in which micro-batches: seeded, and resumed from a plain dictionary.

    sampler = StepSampler(rows.lengths, batch_tokens=2**20, micro_batch_tokens=8192, seed=1)
    step = sampler.next_step()
    for micro_batch in step.micro_batches:
        micro_batch.rows, micro_batch.keys
    state = sampler.state_dict()           # {"step": 1, "epoch": 0, "position": 2048}

An epoch is a permutation of all rows, or an order of the caller's own. A step takes rows from it, one after the
other and on into the next epoch, until their real tokens reach ``batch_tokens``. Inside the step rows are sorted by
length and cut into micro-batches. A row's key is (step, place in the drawn order): how the step is cut changes no
row's draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EpochOrder = Callable[[int], NDArray[np.int64]]
RowKey = tuple[int, ...]


@dataclass(frozen=True)
class MicroBatch:
    """Rows that go through the network at once, of like lengths, with their keys."""

    rows: list[int]
    keys: list[RowKey]


@dataclass(frozen=True)
class StepRows:
    """One step's rows.

    Attributes:
        step: its number, from 1.
        micro_batches: the longest rows first, so that a step too large for the memory fails at once.
        tokens: real tokens, padding not counted.
    """

    step: int
    micro_batches: list[MicroBatch]
    tokens: int


def padded_tokens(lengths: NDArray[np.int32]) -> int:
    """Tokens of a batch of rows ``[rows, columns]`` once each column is padded to its longest."""
    return len(lengths) * int(lengths.max(axis=0).sum()) if len(lengths) else 0


def cut_into_micro_batches(lengths: NDArray[np.int32], micro_batch_tokens: int) -> list[NDArray[np.int64]]:
    """Sort rows by length, longest first, and cut them into micro-batches.

    Args:
        lengths: ``[rows, columns]``.
        micro_batch_tokens: padded tokens that no micro-batch exceeds, unless a single row does.

    Returns:
        Places ``[rows of the micro-batch]`` in ``lengths``; together each row once.
    """
    order = np.lexsort(tuple(-lengths[:, column] for column in range(lengths.shape[1] - 1, -1, -1)))
    batches = []
    start, widths = 0, np.zeros(lengths.shape[1], dtype=np.int64)
    for end, place in enumerate(order):
        grown = np.maximum(widths, lengths[place])
        if end > start and (end - start + 1) * int(grown.sum()) > micro_batch_tokens:
            batches.append(order[start:end])
            start, grown = end, lengths[place].astype(np.int64)
        widths = grown
    if start < len(order):
        batches.append(order[start:])
    return batches


class StepSampler:
    """Gives a step's rows, step after step.

    Args:
        lengths: ``[rows, columns]`` real tokens of every row.
        batch_tokens: a step's rows reach this many real tokens.
        micro_batch_tokens: padded tokens of a micro-batch.
        seed: of the permutations.
        epoch_order: rows of an epoch (from 0) in order; a permutation of all rows unless given.

    Raises:
        ValueError: there are no rows.
    """

    def __init__(
        self,
        lengths: NDArray[np.int32],
        *,
        batch_tokens: int,
        micro_batch_tokens: int,
        seed: int,
        epoch_order: EpochOrder | None = None,
    ) -> None:
        if not len(lengths):
            raise ValueError("there are no rows to train on")
        self._lengths = lengths
        self._row_tokens = lengths.sum(axis=1, dtype=np.int64)
        self._batch_tokens = batch_tokens
        self._micro_batch_tokens = micro_batch_tokens
        self._seed = seed
        self._epoch_order = epoch_order or self._permutation
        self._step, self._epoch, self._position = 0, 0, 0
        self._order: NDArray[np.int64] | None = None

    def next_step(self) -> StepRows:
        """The next step's rows."""
        self._step += 1
        drawn, tokens = self._draw()
        micro_batches = [
            MicroBatch(rows=drawn[places].tolist(), keys=[(self._step, place) for place in places.tolist()])
            for places in cut_into_micro_batches(self._lengths[drawn], self._micro_batch_tokens)
        ]
        return StepRows(self._step, micro_batches, tokens)

    def state_dict(self) -> dict[str, int]:
        """Where the next step starts."""
        return {"step": self._step, "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._step, self._epoch, self._position = state["step"], state["epoch"], state["position"]
        self._order = None

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._lengths))

    def _draw(self) -> tuple[NDArray[np.int64], int]:
        """Rows in drawn order and their tokens."""
        pieces: list[NDArray[np.int64]] = []
        tokens = 0
        while tokens < self._batch_tokens:
            if self._order is None:
                self._order = self._epoch_order(self._epoch)
                assert len(self._order), "an epoch without rows"
            left = self._order[self._position :]
            # No row is shorter than one token, so that no more rows than missing tokens are needed.
            sums = np.cumsum(self._row_tokens[left[: self._batch_tokens - tokens]])
            taken = int(np.searchsorted(sums, self._batch_tokens - tokens, side="left")) + 1
            taken = min(taken, len(sums))
            pieces.append(left[:taken])
            tokens += int(sums[taken - 1]) if taken else 0
            self._position += taken
            if self._position >= len(self._order):
                self._epoch, self._position, self._order = self._epoch + 1, 0, None
        return np.concatenate(pieces), tokens
