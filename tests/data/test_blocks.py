"""Blocks against a plain per-token twin, and the properties they promise."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.data.blocks import pack_document

BOS, EOS = 0, 2

documents = st.lists(st.lists(st.integers(4, 99), max_size=30), max_size=12)
lengths = st.integers(3, 16)


def segments_of(lines: list[list[int]], capacity: int) -> list[list[int]]:
    """What packing may not break: lines with their ``</s>``, long ones cut every ``capacity`` tokens."""
    segments: list[list[int]] = []
    for line in lines:
        if line:
            segments.append([])
            for token in [*line, EOS]:
                if len(segments[-1]) == capacity:
                    segments.append([])
                segments[-1].append(token)
    return segments


def twin(lines: list[list[int]], max_length: int) -> list[list[int]]:
    """One token at a time: look ahead to the end of its segment to know whether it still fits."""
    blocks: list[list[int]] = [[]]
    for segment in segments_of(lines, max_length - 1):
        room = max_length - 1 - len(blocks[-1])
        for position, token in enumerate(segment):
            if position == 0 and room < len(segment):
                blocks.append([])
            blocks[-1].append(token)
    return [[BOS, *block] for block in blocks if len(block) > 1]


@given(documents, lengths)
def test_blocks_equal_the_per_token_twin(lines: list[list[int]], max_length: int) -> None:
    assert pack_document(lines, max_length=max_length).blocks == twin(lines, max_length)


@given(documents, lengths)
def test_no_token_is_lost_but_counted_lone_ends(lines: list[list[int]], max_length: int) -> None:
    packed = pack_document(lines, max_length=max_length)
    tokens = [token for line in lines if line for token in [*line, EOS]]
    kept = [token for block in packed.blocks for token in block[1:]]
    if packed.dropped_blocks == 0:
        assert kept == tokens
    else:
        assert len(kept) == len(tokens) - packed.dropped_blocks
        assert [t for t in kept if t != EOS] == [t for t in tokens if t != EOS]


@given(documents, lengths)
def test_blocks_fit_and_begin_with_bos(lines: list[list[int]], max_length: int) -> None:
    for block in pack_document(lines, max_length=max_length).blocks:
        assert 2 < len(block) <= max_length
        assert block[0] == BOS and BOS not in block[1:]


@given(documents, lengths)
def test_a_block_ends_only_where_the_next_segment_does_not_fit(
    lines: list[list[int]], max_length: int
) -> None:
    packed = pack_document(lines, max_length=max_length)
    if packed.dropped_blocks:
        return
    remaining = segments_of(lines, max_length - 1)
    for block in packed.blocks:
        body = block[1:]
        while remaining and body:
            assert body[: len(remaining[0])] == remaining[0], "a block holds whole segments"
            body = body[len(remaining.pop(0)) :]
        assert not body
        if remaining:
            assert len(block) + len(remaining[0]) > max_length, "the next segment would have fitted"
    assert not remaining


def test_whole_lines_are_packed() -> None:
    packed = pack_document([[5, 6], [], [7], [8, 9, 10]], max_length=7)
    assert packed.blocks == [[0, 5, 6, 2, 7, 2], [0, 8, 9, 10, 2]]
    assert (packed.cut_lines, packed.dropped_blocks) == (0, 0)


def test_a_long_line_is_cut_and_only_its_last_window_keeps_the_end() -> None:
    packed = pack_document([[5] * 9, [6]], max_length=5)
    assert packed.blocks == [[0, 5, 5, 5, 5], [0, 5, 5, 5, 5], [0, 5, 2, 6, 2]]
    assert packed.cut_lines == 1


def test_a_lone_end_is_dropped_and_counted() -> None:
    packed = pack_document([[5] * 4, [6] * 3], max_length=5)
    assert packed.blocks == [[0, 5, 5, 5, 5], [0, 6, 6, 6, 2]]
    assert (packed.cut_lines, packed.dropped_blocks) == (1, 1)


def test_special_ids_are_settings() -> None:
    assert pack_document([[5]], bos_token_id=7, eos_token_id=8).blocks == [[7, 5, 8]]


def test_an_empty_document_has_no_block() -> None:
    assert pack_document([]).blocks == [] and pack_document([[]]).blocks == []


def test_too_small_a_block_is_refused() -> None:
    with pytest.raises(ValueError, match="max_length must be at least 3"):
        pack_document([[5]], max_length=2)
