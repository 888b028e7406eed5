"""Reliability bins: against a plain loop, at the bins' edges, and not where nothing counts."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.objectives.calibration import BIN_METRICS, BINS, calibration_totals

POSITION = st.tuples(st.floats(-30, 30, width=32), st.booleans(), st.booleans())


@given(st.lists(POSITION, min_size=1, max_size=60))
def test_bins_are_those_of_a_plain_loop(positions: list[tuple[float, bool, bool]]) -> None:
    logits, replaced, counted = (torch.tensor(column) for column in zip(*positions, strict=True))
    totals = calibration_totals(logits.float().view(1, -1), replaced.view(1, -1), counted.view(1, -1))
    assert len(totals) == len(BIN_METRICS) * BINS
    plain = [[0, 0.0, 0] for _ in range(BINS)]
    for probability, label, counts in zip(logits.float().sigmoid().tolist(), replaced, counted, strict=True):
        if counts:
            held = plain[min(int(torch.tensor(probability) * BINS), BINS - 1)]
            held[0] += 1
            held[1] += probability
            held[2] += int(label)
    for index, (count, predicted, observed) in enumerate(plain):
        assert totals[f"rtd_bin_share_{index}"].tolist() == [count, int(counted.sum())]
        assert totals[f"rtd_observed_{index}"].tolist() == [observed, count]
        assert totals[f"rtd_predicted_{index}"].tolist() == pytest.approx([predicted, count], rel=1e-5)


@pytest.mark.parametrize(("logit", "index"), [(-math.inf, 0), (-80.0, 0), (0.0, 5), (80.0, 9), (math.inf, 9)])
def test_every_probability_has_a_bin(logit: float, index: int) -> None:
    one = torch.tensor([True])
    totals = calibration_totals(torch.tensor([logit]), one, one)
    found = [k for k in range(BINS) if totals[f"rtd_bin_share_{k}"].tolist() == [1, 1]]
    assert found == [index]


def test_what_does_not_count_may_be_anything() -> None:
    logits, counted = torch.tensor([math.nan, 2.0]), torch.tensor([False, True])
    totals = calibration_totals(logits, torch.tensor([True, True]), counted)
    assert all(total.isfinite().all() for total in totals.values())
