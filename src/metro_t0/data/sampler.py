"""Which rows a training step reads, in which micro-batches: seeded, and resumed from a plain dictionary.

    sampler = StepSampler(rows.lengths, batch_tokens=2**20, micro_batch_tokens=8192, seed=1)
    step = sampler.next_step()
    for micro_batch in step.micro_batches:
        micro_batch.rows, micro_batch.keys
    state = sampler.state_dict()

An epoch is a permutation of all rows, or an order of the caller's own. Rows are taken from it in windows, sorted by
length, cut into pieces of about a micro-batch, and the pieces dealt to the window's steps in random order: so next
to nothing is padding, and a step still mixes lengths (the official code sorts whole epochs). Inside the step rows are
sorted by length and cut into micro-batches. A row's key is (step, place in the step): neither the size of micro-batches
nor the number of processes changes a step's rows or their draws.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

EpochOrder = Callable[[int], NDArray[np.int64]]
RowKey = tuple[int, ...]

# A window holds so many pieces, or tokens where those are fewer: padding is then below 2 %.
_WINDOW_PIECES = 256
_WINDOW_TOKENS = 1 << 22
# A step of many tokens mixes at least so many lengths; a piece is worth a micro-batch of its own.
_PIECES_A_STEP = 8
_PIECE_TOKENS = 8192
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


def cut_into_micro_batches(lengths: NDArray[np.int32], micro_batch_tokens: int) -> list[NDArray[np.int64]]:
    """Sort rows by length, longest first, and cut them where padded tokens and passes together cost least.

    Args:
        lengths: ``[rows, columns]``.
        micro_batch_tokens: padded tokens that no micro-batch exceeds, unless a single row does.

    Returns:
        Places ``[rows of the micro-batch]`` in ``lengths``; together each row once.
    """
    order = _longest_first(lengths)
    ordered = lengths[order].astype(np.int64)
    number = len(ordered)
    # Least cost of the first n rows, and where the last micro-batch of that cut begins.
    costs = np.full(number + 1, np.inf)
    costs[0] = 0.0
    begins = np.zeros(number + 1, dtype=np.int64)
    for start in range(number):
        padded = _fitting(ordered, start, micro_batch_tokens)
        found = costs[start] + padded + _PASS_SHARE * micro_batch_tokens
        ends = slice(start + 1, start + 1 + len(padded))
        better = found < costs[ends]
        costs[ends][better] = found[better]
        begins[ends][better] = start
    batches: list[NDArray[np.int64]] = []
    end = number
    while end:
        batches.append(order[begins[end] : end])
        end = int(begins[end])
    return batches[::-1]


def _longest_first(lengths: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.lexsort(tuple(-lengths[:, column] for column in range(lengths.shape[1] - 1, -1, -1)))


def _fitting(ordered: NDArray[np.int64], start: int, bound: int) -> NDArray[np.int64]:
    """Padded tokens of the first 1, 2, … of the sorted rows from ``start`` on, as many as the bound allows."""
    most = max(1, bound // max(1, int(ordered[start].sum())))
    widths = np.maximum.accumulate(ordered[start : start + most], axis=0).sum(axis=1)
    padded: NDArray[np.int64] = widths * np.arange(1, len(widths) + 1)
    # They only grow with more rows, so that those within the bound come first.
    return padded[: max(1, int(np.searchsorted(padded, bound, side="right")))]


def _full_pieces(lengths: NDArray[np.int32], tokens: int) -> list[NDArray[np.int64]]:
    """Places of sorted rows in pieces of so many padded tokens each, the last one smaller."""
    order = _longest_first(lengths)
    ordered = lengths[order].astype(np.int64)
    pieces, start = [], 0
    while start < len(order):
        end = start + len(_fitting(ordered, start, tokens))
        pieces.append(order[start:end])
        start = end
    return pieces


def deal(
    batches: list[NDArray[np.int64]], lengths: NDArray[np.int32], processes: int
) -> list[list[NDArray[np.int64]]]:
    """Micro-batches in rounds of one a process; those that are split for it are those that would take longest.

    Args:
        batches: places in ``lengths``, longest rows first.
        lengths: ``[rows, columns]``.
        processes: how many.

    Returns:
        Rounds of ``processes`` micro-batches of like lengths; empty ones only where there are fewer rows than places.
    """
    wanted = -(-len(batches) // processes) * processes
    parts = np.ones(len(batches), dtype=np.int64)
    sizes = np.array([padded_tokens(lengths[batch]) for batch in batches], dtype=np.float64)
    rows = np.array([len(batch) for batch in batches])
    for _ in range(wanted - len(batches)):
        parts[np.where(parts < rows, sizes / parts, -1.0).argmax()] += 1
    pieces = [
        piece
        for batch, number in zip(batches, parts.tolist(), strict=True)
        for piece in np.array_split(batch, number)
    ]
    return [pieces[start : start + processes] for start in range(0, wanted, processes)]


class StepSampler:
    """Gives a step's rows, step after step.

    Args:
        lengths: ``[rows, columns]`` real tokens of every row.
        batch_tokens: real tokens of a step, to within a piece and but for the little that is padding.
        micro_batch_tokens: padded tokens of a micro-batch.
        seed: of the permutations.
        epoch_order: rows of an epoch (from 0) in order; a permutation of all rows unless given.
        rank, processes: whose share of every step is given; steps and keys are the same on any number.

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
        self._piece_tokens = min(batch_tokens, max(_PIECE_TOKENS, batch_tokens // _PIECES_A_STEP))
        self._micro_batch_tokens = micro_batch_tokens
        self._seed = seed
        self._rank, self._processes = rank, processes
        self._epoch_order = epoch_order or self._permutation
        # Where the window began, how many of its steps are done, and how many steps are in all.
        self._epoch, self._position, self._taken, self._step = 0, 0, 0, 0
        self._window: list[NDArray[np.int64]] | None = None
        self._after = (0, 0)

    def next_step(self) -> StepRows:
        """The next step's rows."""
        if self._window is None:
            self._window = self._next_window()
        if self._taken == len(self._window):
            (self._epoch, self._position), self._taken = self._after, 0
            self._window = self._next_window()
        drawn = self._window[self._taken]
        self._taken += 1
        self._step += 1
        lengths = self._lengths[drawn]
        rounds = deal(cut_into_micro_batches(lengths, self._micro_batch_tokens), lengths, self._processes)
        micro_batches = [self._own(drawn, places) for places in rounds]
        return StepRows(self._step, micro_batches, int(self._row_tokens[drawn].sum()))

    def state_dict(self) -> dict[str, int]:
        """Where the next step starts."""
        return {
            "step": self._step,
            "epoch": self._epoch,
            "position": self._position,
            "taken": self._taken,
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._step, self._taken = state["step"], state["taken"]
        self._epoch, self._position = state["epoch"], state["position"]
        self._window = None

    def _own(self, drawn: NDArray[np.int64], places: list[NDArray[np.int64]]) -> MicroBatch:
        own = places[self._rank]
        idle = not len(own)
        if idle:
            own = next(piece for piece in places if len(piece))[:1]
        return MicroBatch(drawn[own].tolist(), [(self._step, place) for place in own.tolist()], idle)

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        return np.random.default_rng([self._seed, epoch]).permutation(len(self._lengths))

    def _next_window(self) -> list[NDArray[np.int64]]:
        """Rows of each step of the window that begins at the current epoch and position."""
        rows, tokens = self._draw()
        if tokens < 1.5 * self._batch_tokens:
            return [rows]
        pieces = [rows[places] for places in _full_pieces(self._lengths[rows], self._piece_tokens)]
        shuffled = np.random.default_rng([self._seed, self._epoch, self._position]).permutation(len(pieces))
        # A piece is full but for its padding; only the window's last one is smaller.
        steps = max(1, round(len(pieces) * self._piece_tokens / self._batch_tokens))
        dealt = np.array_split(shuffled, min(steps, len(pieces)))
        return [np.concatenate([pieces[piece] for piece in part]) for part in dealt]

    def _draw(self) -> tuple[NDArray[np.int64], int]:
        """The window's rows in drawn order and their tokens; says where the next one begins.

        A window ends with its epoch, unless it does not fill a step yet.
        """
        pieces: list[NDArray[np.int64]] = []
        tokens, epoch, position = 0, self._epoch, self._position
        wanted = max(self._batch_tokens, min(_WINDOW_TOKENS, _WINDOW_PIECES * self._piece_tokens))
        while tokens < self._batch_tokens:
            order = self._epoch_order(epoch)
            assert len(order), "an epoch without rows"
            left = order[position:]
            sums = np.cumsum(self._row_tokens[left[: wanted - tokens]])
            taken = min(int(np.searchsorted(sums, wanted - tokens, side="left")) + 1, len(sums))
            pieces.append(left[:taken])
            tokens += int(sums[taken - 1]) if taken else 0
            position += taken
            if position >= len(order):
                epoch, position = epoch + 1, 0
        self._after = (epoch, position)
        return np.concatenate(pieces), tokens
