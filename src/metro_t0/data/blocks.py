"""Token blocks for pretraining: whole lines packed greedily, never across documents.

A document is a list of lines, each a list of token ids without specials. Every line ends in ``</s>``;
whole lines are packed one after the other while they fit; every block begins with ``<s>``. This is the
``complete_doc`` construction of the official code (`token_block_utils_fast.pyx`), with one difference: a
line that is longer than a block is cut into consecutive windows, so that all text is used, where the
official code keeps one random window of it. Only the last window of such a line ends in ``</s>``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field


@dataclass(slots=True)
class PackedDocument:
    """The blocks of one document, and what happened on the way.

    Attributes:
        blocks: token ids, each block at most ``max_length`` long and beginning with ``<s>``.
        cut_lines: lines longer than a block, which were cut into windows.
        dropped_blocks: blocks of a single token, left out as in the official code. The token is always the
            ``</s>`` of a cut line whose last window held nothing else, so no text is lost.
    """

    blocks: list[list[int]] = field(default_factory=list)
    cut_lines: int = 0
    dropped_blocks: int = 0


def pack_document(
    lines: Iterable[Sequence[int]], *, max_length: int = 512, bos_token_id: int = 0, eos_token_id: int = 2
) -> PackedDocument:
    """Pack the lines of one document into blocks of at most ``max_length`` tokens, ``<s>`` included.

    Args:
        lines: token ids of each line, without specials; lines without a token are left out.
        max_length: the most tokens a block may have, at least 3.

    Raises:
        ValueError: ``max_length`` is below 3.
    """
    if max_length < 3:
        raise ValueError(f"max_length must be at least 3 (<s>, a token, </s>), not {max_length}")
    capacity = max_length - 1
    packed = PackedDocument()
    block = [bos_token_id]
    for line in lines:
        if not line:
            continue
        packed.cut_lines += len(line) + 1 > capacity
        for window in _windows([*line, eos_token_id], capacity):
            if len(block) + len(window) > max_length:
                _close(packed, block)
                block = [bos_token_id]
            block += window
    _close(packed, block)
    return packed


def _windows(line: list[int], capacity: int) -> Iterator[list[int]]:
    if len(line) <= capacity:
        yield line
        return
    for start in range(0, len(line), capacity):
        yield line[start : start + capacity]


def _close(packed: PackedDocument, block: list[int]) -> None:
    tokens = len(block) - 1
    if tokens > 1:
        packed.blocks.append(block)
    elif tokens == 1:
        packed.dropped_blocks += 1
