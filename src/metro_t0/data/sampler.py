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

# What one more micro-batch costs beside its tokens, as a share of ``micro_batch_tokens``: the launches and Python of a
# forward and backward pass.
_PASS_SHARE = 1 / 32


@dataclass(frozen=True)
class MicroBatch:
    """Rows that go through the network at once, of like lengths, with their keys.

    Attributes:
        rows, keys: of this process.
        idle: there are fewer rows than processes, and this one repeats another's: they count for nothing.
    """

    rows: list[int]
    keys: list[RowKey]
    idle: bool = False


@dataclass(frozen=True)
class StepRows:
    """One step's rows.

    Attributes:
        step: its number, from 1.
        micro_batches: the longest rows first, so that a step too large for the memory fails at once; the same number
            on every process.
        tokens: real tokens of all processes, padding not counted.
    """

    step: int
    micro_batches: list[MicroBatch]
    tokens: int

    @property
    def idle(self) -> set[int]:
        """Places of the micro-batches that count for nothing here."""
        return {place for place, micro_batch in enumerate(self.micro_batches) if micro_batch.idle}


def padded_tokens(lengths: NDArray[np.int32]) -> int:
    """Tokens of a batch of rows ``[rows, columns]`` once each column is padded to its longest."""
    return len(lengths) * int(lengths.max(axis=0).sum()) if len(lengths) else 0


def cut_into_micro_batches(
    lengths: NDArray[np.int32], micro_batch_tokens: int, processes: int = 1
) -> list[NDArray[np.int64]]:
    """Sort rows by length, longest first, and cut them where padded tokens and passes together cost least.

    Args:
        lengths: ``[rows, columns]``.
        micro_batch_tokens: padded tokens that no process's share of a micro-batch exceeds, unless a single row does.
        processes: over how many a micro-batch is dealt (see ``share``).

    Returns:
        Places ``[rows of the micro-batch]`` in ``lengths``; together each row once.
    """
    order = np.lexsort(tuple(-lengths[:, column] for column in range(lengths.shape[1] - 1, -1, -1)))
    ordered = lengths[order].astype(np.int64)
    number = len(ordered)
    # Least cost of the first n rows, and where the last micro-batch of that cut begins.
    costs = np.full(number + 1, np.inf)
    costs[0] = 0.0
    begins = np.zeros(number + 1, dtype=np.int64)
    for start in range(number):
        most = processes * max(1, micro_batch_tokens // max(1, int(ordered[start].sum())))
        widths = np.maximum.accumulate(ordered[start : start + most], axis=0).sum(axis=1)
        # Of the largest share.
        padded = widths * -(-np.arange(1, len(widths) + 1) // processes)
        # Padded tokens only grow with more rows, so that those within the bound come first.
        fitting = max(processes, int(np.searchsorted(padded, micro_batch_tokens, side="right")))
        fitting = min(fitting, len(padded))
        found = costs[start] + padded[:fitting] + _PASS_SHARE * micro_batch_tokens
        ends = slice(start + 1, start + 1 + fitting)
        better = found < costs[ends]
        costs[ends][better] = found[better]
        begins[ends][better] = start
    batches: list[NDArray[np.int64]] = []
    end = number
    while end:
        batches.append(order[begins[end] : end])
        end = int(begins[end])
    return batches[::-1]


def share(places: NDArray[np.int64], rank: int, processes: int) -> tuple[NDArray[np.int64], bool]:
    """One process's rows of a micro-batch, dealt in turn so that all have like lengths and numbers.

    Returns:
        Its places, and whether it is idle: where there is none left it repeats the first.
    """
    own = places[rank::processes]
    return (own, False) if len(own) else (places[:1], True)


class StepSampler:
    """Gives a step's rows, step after step.

    Args:
        lengths: ``[rows, columns]`` real tokens of every row.
        batch_tokens: a step's rows reach this many real tokens.
        micro_batch_tokens: padded tokens of a micro-batch.
        seed: of the permutations.
        epoch_order: rows of an epoch (from 0) in order; a permutation of all rows unless given.
        rank, processes: whose share of every micro-batch is given; steps and keys are the same on any number.

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
        rank: int = 0,
        processes: int = 1,
    ) -> None:
        if not len(lengths):
            raise ValueError("there are no rows to train on")
        self._lengths = lengths
        self._row_tokens = lengths.sum(axis=1, dtype=np.int64)
        self._batch_tokens = batch_tokens
        self._micro_batch_tokens = micro_batch_tokens
        self._seed = seed
        self._rank, self._processes = rank, processes
        self._epoch_order = epoch_order or self._permutation
        self._step, self._epoch, self._position = 0, 0, 0
        self._order: NDArray[np.int64] | None = None

    def next_step(self) -> StepRows:
        """The next step's rows."""
        self._step += 1
        drawn, tokens = self._draw()
        cut = cut_into_micro_batches(self._lengths[drawn], self._micro_batch_tokens, self._processes)
        return StepRows(self._step, [self._own(drawn, places) for places in cut], tokens)

    def state_dict(self) -> dict[str, int]:
        """Where the next step starts."""
        return {"step": self._step, "epoch": self._epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._step, self._epoch, self._position = state["step"], state["epoch"], state["position"]
        self._order = None

    def _own(self, drawn: NDArray[np.int64], places: NDArray[np.int64]) -> MicroBatch:
        own, idle = share(places, self._rank, self._processes)
        return MicroBatch(drawn[own].tolist(), [(self._step, place) for place in own.tolist()], idle)

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
