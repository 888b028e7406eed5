"""How evenly a quantity is spread: Gini coefficient, entropy, Lorenz curve, share that holds half.

    gini(rates)                      # 0: all alike; near 1: a few have all
    lorenz_curve(importances, 51)    # what the lowest 0 %, 2 %, ... 100 % hold together

All take non-negative numbers ``[n]``. :class:`MagnitudeHistogram` answers the same of more numbers than fit in memory.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

Numbers = NDArray[np.float64]


def gini(values: ArrayLike) -> float:
    """Gini coefficient: half the mean difference of all pairs over the mean; 0 where all are zero.

    0 says that all are alike, ``(n - 1) / n`` that one holds everything.
    """
    ordered = np.sort(_checked(values))
    total = ordered.sum()
    if total == 0.0:
        return 0.0
    ranks = np.arange(1, len(ordered) + 1)
    return float(
        max(0.0, 2.0 * (ranks @ (ordered / total)) / len(ordered) - (len(ordered) + 1) / len(ordered))
    )


def normalized_entropy(values: ArrayLike) -> float:
    """Shannon entropy of the values as shares of their sum, over its most, ``log n``: 1 says that all are alike.

    1 for a single value, 0 where all are zero.
    """
    numbers = _checked(values)
    total = numbers.sum()
    if total == 0.0:
        return 0.0
    if len(numbers) == 1:
        return 1.0
    shares = numbers / total
    shares = shares[shares > 0.0]
    return float(-(shares @ np.log(shares)) / math.log(len(numbers)))


def lorenz_curve(values: ArrayLike, points: int) -> Numbers:
    """What the lowest part of the values holds of their sum, at ``points`` even parts from none to all.

    Between two values the curve is straight, so that twice the area above it is about the Gini coefficient. Where all
    are zero it is the diagonal.
    """
    ordered = np.sort(_checked(values))
    held = np.concatenate([[0.0], np.cumsum(ordered)])
    if held[-1] == 0.0:
        return np.linspace(0.0, 1.0, points)
    return np.interp(np.linspace(0.0, 1.0, points), np.arange(len(held)) / len(ordered), held / held[-1])


def share_for_half(values: ArrayLike) -> float:
    """The least share of the values, 0-1, that holds half of their sum; 0.5 is the most, where all are alike.

    Counted in whole values: of 10 like values 5 hold half. 0.5 where all are zero.
    """
    ordered = np.sort(_checked(values))[::-1]
    held = np.cumsum(ordered)
    if held[-1] == 0.0:
        return 0.5
    # Rounding of long sums must not ask for one more.
    return float((np.searchsorted(held, held[-1] * 0.5 * (1.0 - 1e-12)) + 1) / len(ordered))


def rank_correlation(one: ArrayLike, other: ArrayLike) -> float | None:
    """Spearman's: the correlation of ranks, equal values sharing their mean rank; None where one has no spread."""
    ranks = [_ranks(np.asarray(values, dtype=np.float64)) for values in (one, other)]
    spreads = [values - values.mean() for values in ranks]
    size = math.sqrt(float(spreads[0] @ spreads[0]) * float(spreads[1] @ spreads[1]))
    return None if size == 0.0 else float(spreads[0] @ spreads[1]) / size


def _ranks(values: Numbers) -> Numbers:
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2.0)[group]


def _checked(values: ArrayLike) -> Numbers:
    numbers = np.asarray(values, dtype=np.float64).reshape(-1)
    assert len(numbers), "statistics of nothing"
    assert np.isfinite(numbers).all() and (numbers >= 0.0).all(), (
        "statistics of numbers below 0 or not finite"
    )
    return numbers


class MagnitudeHistogram:
    """Counts and sums of non-negative numbers by magnitude: the statistics above for any number of them.

    Numbers of one bin differ by 0.14 % at most and count as their mean, so that what comes out is as exact as this.
    Bins run from 1e-38 to 1e+38, what is smaller is zero; a histogram is 2 MiB, whatever goes in.

    >>> histogram = MagnitudeHistogram()
    >>> for tensor in tensors: histogram.add(tensor)
    >>> histogram.gini(), histogram.lorenz_curve(51), histogram.share_for_half()
    """

    _BINS, _LEAST, _DECADES = 1 << 17, -38.0, 76.0
    _AT_ONCE = 1 << 20

    def __init__(self) -> None:
        self._counts = np.zeros(self._BINS + 1, dtype=np.int64)
        self._sums = np.zeros(self._BINS + 1)

    @property
    def count(self) -> int:
        """How many numbers went in."""
        return int(self._counts.sum())

    @property
    def total(self) -> float:
        """Their sum."""
        return float(self._sums.sum())

    def add(self, values: torch.Tensor) -> None:
        """Count a tensor of any shape, a piece at a time."""
        for piece in values.detach().reshape(-1).split(self._AT_ONCE):
            numbers = piece.to("cpu", torch.float64).numpy()
            assert np.isfinite(numbers).all() and (numbers >= 0.0).all(), "statistics of numbers below 0"
            with np.errstate(divide="ignore"):
                place = (np.log10(numbers) - self._LEAST) * (self._BINS / self._DECADES)
            # Bin 0 is for zeros.
            index = np.where(place < 0.0, 0, np.clip(place, 0, self._BINS - 1) + 1).astype(np.int64)
            self._counts += np.bincount(index, minlength=self._BINS + 1)
            self._sums += np.bincount(index, weights=numbers, minlength=self._BINS + 1)

    def merge(self, other: MagnitudeHistogram) -> None:
        """Count what another has counted."""
        self._counts += other._counts
        self._sums += other._sums

    def gini(self) -> float:
        """As :func:`gini`."""
        counts, sums = self._filled()
        total, number = sums.sum(), counts.sum()
        if total == 0.0:
            return 0.0
        before = np.cumsum(counts) - counts
        mean_rank = before + (counts + 1) / 2.0
        return float(max(0.0, 2.0 * (mean_rank @ (sums / total)) / number - (number + 1) / number))

    def lorenz_curve(self, points: int) -> Numbers:
        """As :func:`lorenz_curve`."""
        counts, sums = self._filled()
        total, number = sums.sum(), counts.sum()
        if total == 0.0:
            return np.linspace(0.0, 1.0, points)
        parts = np.concatenate([[0.0], np.cumsum(counts) / number])
        return np.interp(
            np.linspace(0.0, 1.0, points), parts, np.concatenate([[0.0], np.cumsum(sums) / total])
        )

    def held_by_top(self, share: float) -> float:
        """What the largest values hold of the sum, where they are such a share of all, 0-1."""
        counts, sums = self._filled()
        if sums.sum() == 0.0:
            return share
        parts = np.concatenate([[0.0], np.cumsum(counts) / counts.sum()])
        held = np.concatenate([[0.0], np.cumsum(sums) / sums.sum()])
        return float(1.0 - np.interp(1.0 - share, parts, held))

    def share_for_half(self) -> float:
        """As :func:`share_for_half`, the last bin taken in part."""
        counts, sums = (part[::-1] for part in self._filled())
        held, total = np.cumsum(sums), sums.sum()
        if total == 0.0:
            return 0.5
        last = int(np.searchsorted(held, total * 0.5 * (1.0 - 1e-12)))
        missing = total * 0.5 - (held[last] - sums[last])
        taken = counts[:last].sum() + np.ceil(counts[last] * missing / sums[last] - 1e-9)
        return float(taken / counts.sum())

    def _filled(self) -> tuple[Numbers, Numbers]:
        kept = self._counts > 0
        return self._counts[kept].astype(np.float64), self._sums[kept]
