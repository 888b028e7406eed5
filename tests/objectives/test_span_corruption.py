"""Span corruption: the official code's statistics, and that nothing of a row is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from metro_t0.objectives.masking import row_generator
from metro_t0.objectives.span_corruption import (
    SpanCorruption,
    SpanCorruptionObjective,
    corrupt_spans,
    draw_spans,
)

VOCAB_SIZE, SENTINELS = 33280, 512
FIRST_SENTINEL = VOCAB_SIZE - SENTINELS
LENGTH, ROWS = 512, 2000


def _runs(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Lengths of the runs of True, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return edges[1::2] - edges[::2]


def _restore(source: list[int], target: list[int], first_sentinel: int) -> list[int]:
    """Put every span of the target where its sentinel stands in the source."""
    assert target[-1] == first_sentinel
    spans: dict[int, list[int]] = {}
    for token in target[:-1]:
        if token > first_sentinel:
            assert token not in spans
            spans[token] = current = []
        else:
            current.append(token)
    row: list[int] = []
    for token in source:
        row.extend(spans.pop(token) if token > first_sentinel else [token])
    assert not spans
    return row


corruptions = st.builds(
    SpanCorruption,
    probability=st.floats(0, 1),
    empty_probability=st.floats(0, 1),
    max_span_length=st.integers(1, 9),
)


def test_statistics_at_the_recipe_settings() -> None:
    """Expected values: 20,000 rows of the official code's draws."""
    ids = np.full(LENGTH, 9)
    masked, empty, source_lengths, target_lengths, runs = [], [], [], [], []
    for i in range(ROWS):
        mask, positions = draw_spans(LENGTH, SpanCorruption(), row_generator(1, i))
        source, target = corrupt_spans(ids, SpanCorruption(), row_generator(1, i), VOCAB_SIZE, SENTINELS)
        masked.append(mask.mean())
        empty.append(positions.size)
        runs.append(_runs(mask))
        source_lengths.append(source.size)
        target_lengths.append(target.size)
    assert np.mean(masked) == pytest.approx(0.1285, abs=0.0007)
    assert np.mean([lengths.size for lengths in runs]) == pytest.approx(20.29, abs=0.12)
    assert np.mean(empty) == pytest.approx(7.81, abs=0.05)
    assert np.mean(source_lengths) == pytest.approx(474.29, abs=0.4)
    assert np.mean(target_lengths) == pytest.approx(94.92, abs=0.3)
    lengths = np.concatenate(runs)
    for length, share in enumerate([0.193, 0.187, 0.185, 0.186, 0.190], start=1):
        assert (lengths == length).mean() == pytest.approx(share, abs=0.008)
    assert (lengths >= 6).mean() == pytest.approx(0.059, abs=0.005)


def test_span_lengths_are_uniform_where_spans_are_too_rare_to_meet() -> None:
    sparse = SpanCorruption(probability=0.005, empty_probability=0.0)
    runs = np.concatenate([_runs(draw_spans(20000, sparse, row_generator(3, i))[0]) for i in range(200)])
    shares = np.bincount(runs, minlength=6)[1:6] / runs.size
    assert shares == pytest.approx(np.full(5, 0.2), abs=0.015)


@pytest.mark.parametrize(("length", "probability"), [(40, 0.15), (12, 0.6)])
def test_spans_wrap_around_the_row_so_that_every_position_is_alike(length: int, probability: float) -> None:
    corruption = SpanCorruption(probability=probability)
    masks = [draw_spans(length, corruption, row_generator(4, i))[0] for i in range(3000)]
    shares = np.mean(masks, axis=0)
    deviation = np.sqrt(shares.mean() * (1 - shares.mean()) / len(masks))
    assert np.abs(shares - shares.mean()).max() < 4.5 * deviation


@given(length=st.integers(0, 200), corruption=corruptions, key=st.integers(0, 2**40))
def test_empty_spans_stand_apart_from_cut_tokens(length: int, corruption: SpanCorruption, key: int) -> None:
    mask, empty = draw_spans(length, corruption, row_generator(0, key))
    assert len(set(empty.tolist())) == empty.size
    assert empty.size <= corruption.probability * corruption.empty_probability * length + 1
    assert mask.sum() + empty.size <= max(corruption.probability * length + 1, mask.sum())
    for position in empty:
        assert not mask[max(0, position - 1) : position + 2].any()


@given(length=st.integers(0, 200), corruption=corruptions, key=st.integers(0, 2**40), unsigned=st.booleans())
def test_source_and_target_restore_the_row(
    length: int, corruption: SpanCorruption, key: int, unsigned: bool
) -> None:
    ids = row_generator(9, key).integers(0, FIRST_SENTINEL, length)
    row = ids.astype(np.uint16) if unsigned else ids
    source, target = corrupt_spans(row, corruption, row_generator(0, key), VOCAB_SIZE, SENTINELS)
    assert source.dtype == target.dtype == np.int64
    assert _restore(source.tolist(), target.tolist(), FIRST_SENTINEL) == ids.tolist()
    in_source = source[source >= FIRST_SENTINEL]
    assert in_source.tolist() == list(range(FIRST_SENTINEL + 1, FIRST_SENTINEL + 1 + in_source.size))
    assert target[target >= FIRST_SENTINEL].tolist() == [*in_source.tolist(), FIRST_SENTINEL]
    assert source.size + target.size == length + 2 * in_source.size + 1


def test_rows_that_cannot_be_corrupted_are_refused() -> None:
    everywhere = SpanCorruption(probability=0.5, empty_probability=0.0, max_span_length=1)
    with pytest.raises(ValueError, match=r"a row of 200 tokens has \d+ spans, and 16 sentinels serve 15"):
        corrupt_spans(np.full(200, 9), everywhere, row_generator(1), 116, 16)
    source, _ = corrupt_spans(np.full(60, 9), everywhere, row_generator(1), 300, 200)
    spans = int((source > 100).sum())
    corrupt_spans(np.full(60, 9), everywhere, row_generator(1), 100 + spans + 1, spans + 1)
    with pytest.raises(ValueError, match=f"has {spans} spans"):
        corrupt_spans(np.full(60, 9), everywhere, row_generator(1), 100 + spans, spans)
    with pytest.raises(ValueError, match="holds id 105"):
        corrupt_spans(np.array([0, 9, 105]), SpanCorruption(), row_generator(1), 116, 16)


@pytest.mark.parametrize(
    ("bad", "named"),
    [
        ({"probability": -0.1}, "probability is -0.1"),
        ({"empty_probability": 2.0}, "empty_probability is 2.0"),
        ({"max_span_length": 0}, "max_span_length is 0"),
    ],
)
def test_impossible_settings_are_refused_by_name(bad: dict, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        SpanCorruption(**bad)


def test_collate_starts_the_decoder_with_the_first_sentinel_and_pads() -> None:
    objective = SpanCorruptionObjective(
        vocab_size=VOCAB_SIZE, num_sentinel_tokens=SENTINELS, pad_token_id=1, seed=7
    )
    rows = [{"input_ids": np.arange(5, 5 + n, dtype=np.uint16)} for n in (90, 33)]
    batch = objective.collate(rows, [(0, 0), (0, 1)])
    targets = []
    for i, row in enumerate(rows):
        source, target = corrupt_spans(
            row["input_ids"], SpanCorruption(), row_generator(7, 0, i), VOCAB_SIZE, SENTINELS
        )
        real = int(batch["attention_mask"][i].sum())
        assert batch["input_ids"][i, :real].tolist() == source.tolist()
        assert (batch["input_ids"][i, real:] == 1).all()
        assert batch["decoder_input_ids"][i, : target.size].tolist() == [FIRST_SENTINEL, *target[:-1]]
        assert (batch["decoder_input_ids"][i, target.size :] == 1).all()
        targets.append(target)
    assert batch["target_ids"].tolist() == np.concatenate(targets).tolist()
    assert objective.counts(batch) == {"lm": sum(target.size for target in targets)}
    assert batch["input_ids"].shape[1] % 8 == batch["decoder_input_ids"].shape[1] % 8 == 0


def test_a_row_is_corrupted_alike_in_any_batch() -> None:
    objective = SpanCorruptionObjective(
        vocab_size=VOCAB_SIZE, num_sentinel_tokens=SENTINELS, pad_token_id=1, seed=7
    )
    rows = [{"input_ids": np.full(64, 9)}, {"input_ids": np.arange(10, 74)}]
    together = objective.collate(rows, [(0, 0), (0, 1)])
    alone = objective.collate(rows[1:], [(0, 1)])
    real = int(alone["attention_mask"].sum())
    assert together["input_ids"][1, :real].tolist() == alone["input_ids"][0, :real].tolist()
    other_epoch = objective.collate(rows[1:], [(1, 1)])
    assert other_epoch["input_ids"].tolist() != alone["input_ids"].tolist()
