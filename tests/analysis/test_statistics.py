"""Statistics against their definitions, written out."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.analysis.statistics import (
    MagnitudeHistogram,
    gini,
    lorenz_curve,
    normalized_entropy,
    rank_correlation,
    share_for_half,
)

NUMBERS = st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e6)), min_size=1, max_size=40)
SPREAD = st.floats(0.1, 5.0)


def all_pairs(values: list[float]) -> float:
    differences = sum(abs(one - other) for one in values for other in values)
    return differences / (2 * len(values) * sum(values)) if sum(values) else 0.0


@given(NUMBERS)
def test_gini_is_half_the_mean_difference_of_all_pairs_over_the_mean(values: list[float]) -> None:
    assert gini(values) == pytest.approx(all_pairs(values), abs=1e-9)


@given(NUMBERS)
def test_entropy_is_that_of_the_shares(values: list[float]) -> None:
    shares = [value / sum(values) for value in values if value] if sum(values) else []
    entropy = -sum(share * math.log(share) for share in shares)
    most = math.log(len(values))
    expected = entropy / most if most else float(bool(shares))
    assert normalized_entropy(values) == pytest.approx(expected, abs=1e-9)


@given(NUMBERS)
def test_lorenz_curve_holds_what_the_lowest_hold(values: list[float]) -> None:
    curve = lorenz_curve(values, len(values) + 1)
    ordered = sorted(values)
    for number, held in enumerate(curve):
        expected = sum(ordered[:number]) / sum(values) if sum(values) else number / len(values)
        assert held == pytest.approx(expected, abs=1e-9)


@given(NUMBERS)
def test_the_area_above_the_lorenz_curve_is_half_the_gini_coefficient(values: list[float]) -> None:
    curve = lorenz_curve(values, len(values) + 1)
    area = ((curve[1:] + curve[:-1]) / 2).mean()
    assert 1 - 2 * area == pytest.approx(gini(values), abs=1e-9)


@given(NUMBERS)
def test_the_fewest_values_that_hold_half(values: list[float]) -> None:
    if not sum(values):
        assert share_for_half(values) == 0.5
        return
    ordered = sorted(values, reverse=True)
    number = round(share_for_half(values) * len(values))
    assert sum(ordered[:number]) >= sum(values) * 0.5 * (1 - 1e-9)
    assert sum(ordered[: number - 1]) < sum(values) * 0.5 * (1 + 1e-9)


def test_extremes() -> None:
    assert (gini([3.0] * 7), normalized_entropy([3.0] * 7)) == (pytest.approx(0), pytest.approx(1))
    assert gini([0.0] * 9 + [5.0]) == pytest.approx(0.9)
    assert normalized_entropy([0.0] * 9 + [5.0]) == 0.0
    assert (share_for_half([1.0] * 10), share_for_half([0.0] * 9 + [5.0])) == (0.5, 0.1)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=20))
def test_rank_correlation_is_that_of_mean_ranks(pairs: list[tuple[int, int]]) -> None:
    def ranks(values: list[int]) -> np.ndarray:
        ordered = sorted(values)
        places = [[i + 1 for i, other in enumerate(ordered) if other == value] for value in values]
        return np.array([sum(own) / len(own) for own in places])

    one, other = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    found = rank_correlation(one, other)
    if len(set(one)) == 1 or len(set(other)) == 1:
        assert found is None
    else:
        assert found == pytest.approx(np.corrcoef(ranks(one), ranks(other))[0, 1], abs=1e-12)


@given(st.integers(0, 2**32 - 1), SPREAD, st.floats(1e-12, 1e3), st.integers(1, 3000), st.integers(1, 5))
def test_the_histogram_answers_as_the_values_themselves(
    seed: int, spread: float, scale: float, number: int, pieces: int
) -> None:
    rng = np.random.default_rng(seed)
    values = torch.from_numpy((rng.lognormal(sigma=spread, size=number) * scale).astype(np.float32))
    values[rng.random(number) < 0.1] = 0.0
    histogram = MagnitudeHistogram()
    for piece in values.chunk(pieces):
        part = MagnitudeHistogram()
        part.add(piece.reshape(1, -1))
        histogram.merge(part)
    exact = values.double().numpy()
    assert histogram.count == number
    assert histogram.total == pytest.approx(exact.sum())
    assert histogram.gini() == pytest.approx(gini(exact), abs=1e-3)
    assert histogram.share_for_half() == pytest.approx(share_for_half(exact), abs=1e-3 + 1 / number)
    np.testing.assert_allclose(histogram.lorenz_curve(21), lorenz_curve(exact, 21), atol=2e-3)


def test_a_histogram_of_zeros_or_of_numbers_too_small_for_its_bins() -> None:
    histogram = MagnitudeHistogram()
    histogram.add(torch.zeros(5))
    assert (histogram.gini(), histogram.share_for_half(), histogram.count) == (0.0, 0.5, 5)
    histogram.add(torch.tensor([1e-42, 3.0]))
    assert histogram.total == pytest.approx(3.0)
    assert histogram.share_for_half() == pytest.approx(1 / 7)
