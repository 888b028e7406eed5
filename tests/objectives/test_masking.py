"""Masking: how many, where, what is shown instead, and that draws hang on the key alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from metro_t0.objectives.masking import Masking, mask_tokens, row_generator

VOCAB_SIZE = 33280
MASK_ID = 32768
LENGTH = 512
ROWS = 1500


def _row(length: int = LENGTH) -> NDArray[np.uint16]:
    """A block as the corpus stores it: ``<s>`` first, ordinary ids, ``</s>`` last."""
    ids = np.random.default_rng(5).integers(5, MASK_ID, length).astype(np.uint16)
    ids[0], ids[-1] = 0, 2
    return ids


@pytest.fixture(scope="module")
def masked_rows() -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """``ROWS`` maskings of one row: ids and masks, ``[rows, length]`` each."""
    drawn = [mask_tokens(_row(), Masking(), row_generator(1, i), VOCAB_SIZE, MASK_ID) for i in range(ROWS)]
    return np.stack([ids for ids, _ in drawn]), np.stack([mask for _, mask in drawn])


def _within(observed: float, share: float, trials: int, deviations: float = 4.0) -> bool:
    """Whether a binomial share lies within so many standard deviations of its expectation."""
    return abs(observed - share) <= deviations * math.sqrt(share * (1 - share) / trials)


def _chi_square_per_degree(counts: NDArray[np.int64]) -> float:
    expected = counts.sum() / counts.size
    return float(((counts - expected) ** 2 / expected).sum() / (counts.size - 1))


def test_number_of_masks_is_the_share_rounded_either_way_at_random(masked_rows: tuple) -> None:
    numbers = masked_rows[1].sum(axis=1)
    assert set(numbers.tolist()) == {76, 77}
    assert _within((numbers == 77).mean(), 0.15 * LENGTH - 76, ROWS)


@given(length=st.integers(0, 200), probability=st.floats(0, 1), key=st.integers(0, 2**40))
def test_number_of_masks_at_any_length(length: int, probability: float, key: int) -> None:
    masking = Masking(probability=probability)
    _, mask = mask_tokens(np.full(length, 7), masking, row_generator(0, key), VOCAB_SIZE, MASK_ID)
    assert mask.sum() in {math.floor(probability * length), math.floor(probability * length) + 1}


def test_positions_are_uniform_over_the_whole_row_and_independent(masked_rows: tuple) -> None:
    mask = masked_rows[1]
    # Fixed-size draws vary less than independent ones: by 1 - 0.15.
    assert _chi_square_per_degree(mask.sum(axis=0)) == pytest.approx(
        0.85, abs=0.85 * 4 * math.sqrt(2 / LENGTH)
    )
    assert mask[:, 0].any() and mask[:, -1].any()
    pairs = (mask[:, 1:] & mask[:, :-1]).mean()
    number = mask.sum(axis=1).mean()
    assert pairs == pytest.approx(number * (number - 1) / (LENGTH * (LENGTH - 1)), rel=0.02)


def test_shares_of_mask_random_and_kept_tokens(masked_rows: tuple) -> None:
    masked_ids, mask = masked_rows
    original = np.broadcast_to(_row(), mask.shape)[mask].astype(np.int64)
    shown, trials = masked_ids[mask], int(mask.sum())
    kept, hidden = shown == original, shown == MASK_ID
    assert _within(hidden.mean(), 0.8, trials)
    assert _within(kept.mean(), 0.1, trials)
    assert _within((~kept & ~hidden).mean(), 0.1, trials)
    kept_per_row = ((masked_ids == _row()) & mask).sum(axis=1)
    assert kept_per_row.var() == pytest.approx(76.8 * 0.1 * 0.9, rel=4 * math.sqrt(2 / ROWS))


def test_tokens_outside_the_mask_stay(masked_rows: tuple) -> None:
    masked_ids, mask = masked_rows
    assert (masked_ids == _row())[~mask].all()


def test_random_tokens_are_uniform_over_ids_from_4_sentinels_included() -> None:
    vocab_size, mask_id = 40, 32
    masking = Masking(probability=1.0, keep_probability=0.0, random_probability=1.0)
    counts = np.zeros(vocab_size, dtype=np.int64)
    for i in range(500):
        shown, mask = mask_tokens(np.full(100, 9), masking, row_generator(3, i), vocab_size, mask_id)
        counts += np.bincount(shown[mask], minlength=vocab_size)
    assert not counts[:4].any()
    assert _chi_square_per_degree(counts[4:]) == pytest.approx(1.0, abs=4 * math.sqrt(2 / 36))


def test_all_kept_and_all_hidden() -> None:
    ids = _row(64)
    kept, mask = mask_tokens(
        ids, Masking(keep_probability=1.0, random_probability=0.0), row_generator(1), VOCAB_SIZE, MASK_ID
    )
    assert mask.any() and (kept == ids).all()
    hidden, mask = mask_tokens(
        ids, Masking(keep_probability=0.0, random_probability=0.0), row_generator(1), VOCAB_SIZE, MASK_ID
    )
    assert (hidden[mask] == MASK_ID).all()


def _plain_mask(length: int, masking: Masking, rng: np.random.Generator) -> list[bool]:
    """The mask by loops, from the same draws."""
    number = int(masking.probability * length / masking.span_length + rng.random())
    mask = [False] * length
    for start in rng.choice(length, number, replace=False, shuffle=False):
        for position in range(start, min(start + masking.span_length, length)):
            mask[position] = True
    return mask


@given(
    length=st.integers(0, 150),
    probability=st.floats(0, 1),
    span_length=st.integers(1, 8),
    key=st.integers(0, 2**30),
)
def test_spans_are_the_union_of_runs_from_each_start(
    length: int, probability: float, span_length: int, key: int
) -> None:
    masking = Masking(probability=probability, span_length=span_length)
    _, mask = mask_tokens(np.full(length, 7), masking, row_generator(0, key), VOCAB_SIZE, MASK_ID)
    assert mask.tolist() == _plain_mask(length, masking, row_generator(0, key))
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        assert end - begin >= span_length or end == length


def test_span_coverage_is_that_of_starts_without_replacement() -> None:
    masking = Masking(span_length=4)
    masks = [mask_tokens(_row(), masking, row_generator(2, i), VOCAB_SIZE, MASK_ID)[1] for i in range(ROWS)]
    shares = np.mean(masks, axis=0)
    starts = 0.15 * LENGTH / 4
    assert _within(shares[0], starts / LENGTH, ROWS)
    inside = 1 - math.prod((LENGTH - starts - i) / (LENGTH - i) for i in range(4))
    assert shares[3:].mean() == pytest.approx(inside, rel=0.01)


def test_one_masked_token_of_a_span_is_shown_apart_from_the_next() -> None:
    masking = Masking(probability=1.0, span_length=5, keep_probability=0.5, random_probability=0.0)
    shown, mask = mask_tokens(_row(), masking, row_generator(4), VOCAB_SIZE, MASK_ID)
    hidden = (shown == MASK_ID)[mask]
    assert 0.4 < hidden.mean() < 0.6
    assert 0.4 < (hidden[1:] != hidden[:-1]).mean() < 0.6


def test_draws_are_a_function_of_seed_and_key() -> None:
    def masked(*key: int) -> tuple:
        ids, mask = mask_tokens(_row(), Masking(), row_generator(*key), VOCAB_SIZE, MASK_ID)
        return ids.tobytes(), mask.tobytes()

    assert masked(1, 2, 3) == masked(1, 2, 3)
    keys = [
        (1, 2, 3),
        (1, 3, 2),
        (2, 2, 3),
        (1, 2),
        (1, 2, 3, 0),
        (0, 1, 2, 3),
        (-1, 2, 3),
        (1, 2 + 2**32, 3),
    ]
    assert len({masked(*key) for key in keys}) == len(keys)


def test_generator_stream_does_not_change_between_releases() -> None:
    raw = row_generator(1, 2, 3).bit_generator.random_raw(2)
    assert raw.tolist() == [10737296836901022334, 15335025269063543822]


def test_generators_of_neighbouring_keys_are_unrelated() -> None:
    draws = np.stack([row_generator(1, i).random(64) for i in range(500)])
    assert abs(np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]) < 4 / math.sqrt(draws.size)
    assert draws.mean() == pytest.approx(0.5, abs=4 * math.sqrt(1 / 12 / draws.size))


@settings(max_examples=20)
@given(dtype=st.sampled_from([np.uint16, np.int32, np.int64]), length=st.integers(0, 30))
def test_input_is_left_alone_and_results_are_wide_enough(dtype: type, length: int) -> None:
    ids = np.full(length, 63999, dtype=dtype) if dtype is not np.int32 else np.full(length, 9, dtype=dtype)
    before = ids.copy()
    masked_ids, mask = mask_tokens(ids, Masking(probability=0.5), row_generator(1), 64512, 64000)
    assert (ids == before).all() and ids.dtype == dtype
    assert masked_ids.dtype == np.int64 and mask.dtype == np.bool_
    assert masked_ids.shape == mask.shape == (length,)


def test_a_row_with_the_mask_token_is_refused() -> None:
    ids = _row()
    ids[17] = MASK_ID
    with pytest.raises(ValueError, match=r"mask token \(id 32768\)"):
        mask_tokens(ids, Masking(), row_generator(1), VOCAB_SIZE, MASK_ID)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"probability": 1.5}, "probability is 1.5"),
        ({"probability": float("nan")}, "probability is nan"),
        ({"keep_probability": -0.1}, "keep_probability is -0.1"),
        ({"keep_probability": 0.7, "random_probability": 0.4}, "add up to more than 1"),
        ({"span_length": 0}, "span_length is 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(bad: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        Masking(**bad)
