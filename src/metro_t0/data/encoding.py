"""Documents to token blocks, many at a time.

    batch = encode_texts(texts, numbers=[0, 1], tokenizer=folder, max_length=512)
    batch.tokens, batch.lengths, batch.documents

The blocks are those of ``blocks.pack_document``, whose tokens here never become Python objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """The blocks of some documents.

    Attributes:
        tokens: ids of all blocks, one after the other, ``[tokens]``.
        lengths: tokens of each block, ``[blocks]``.
        documents: number of each block's document, ``[blocks]``.
        lines, cut_lines, blank_lines: lines packed; those longer than a block; those that held no token.
        dropped_blocks: blocks of a single token, left out.
        unknown_tokens: tokens that are ``<unk>``.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    lines: int
    cut_lines: int
    blank_lines: int
    dropped_blocks: int
    unknown_tokens: int


def encode_texts(
    texts: Sequence[str],
    *,
    numbers: Sequence[int],
    tokenizer: Path,
    max_length: int,
    copies: Sequence[int] | None = None,
) -> BlockBatch:
    """Tokenise the lines of some documents and pack each document's into blocks of at most ``max_length``.

    Args:
        texts: the documents.
        numbers: their numbers, for ``documents``.
        tokenizer: folder of the tokenizer, loaded once a process.
        max_length: the most tokens of a block, ``<s>`` included.
        copies: how often the blocks of each document are given, one after the other; once unless given.
    """
    encoder = loaded_tokenizer(tokenizer)
    lines = [[line for line in text.splitlines() if line and not line.isspace()] for text in texts]
    encoded = encoder.encode_texts(list(chain.from_iterable(lines)))
    sizes = np.fromiter(map(len, encoded), np.int64, len(encoded))
    tokens = _with_line_ends(encoded, sizes, token_dtype(len(encoder)), encoder.eos_token_id)
    documents = np.repeat(np.arange(len(lines)), np.fromiter(map(len, lines), np.int64, len(lines)))
    full = sizes > 0
    starts, ends, owners = _block_bounds(sizes[full] + 1, documents[full], max_length - 1)
    kept = ends - starts > 1
    starts, ends, owners, dropped = starts[kept], ends[kept], owners[kept], int((~kept).sum())
    if copies is not None:
        chosen = _repeated(owners, np.asarray(copies, np.int64))
        starts, ends, owners = starts[chosen], ends[chosen], owners[chosen]
    blocks = _gathered(tokens, starts, ends, encoder.bos_token_id)
    return BlockBatch(
        tokens=blocks,
        lengths=(ends - starts + 1).astype(np.int32),
        documents=np.asarray(numbers, np.int32)[owners],
        lines=int(full.sum()),
        cut_lines=int((sizes + 1 > max_length - 1).sum()),
        blank_lines=int((~full).sum()),
        dropped_blocks=dropped,
        unknown_tokens=int((blocks == encoder.unk_token_id).sum()),
    )


def _with_line_ends(
    encoded: list[list[int]], sizes: np.ndarray, dtype: type[np.uint16] | type[np.int32], end: int
) -> np.ndarray:
    """All lines that hold a token, one after the other, each with ``</s>`` behind it: ``[tokens]``."""
    total = int(sizes.sum())
    ids = np.fromiter(chain.from_iterable(encoded), dtype, total)
    filled = sizes[sizes > 0]
    tokens = np.empty(total + len(filled), dtype)
    places = np.cumsum(filled + 1) - 1
    of_ids = np.ones(len(tokens), bool)
    of_ids[places] = False
    tokens[of_ids] = ids
    tokens[places] = end
    return tokens


def _block_bounds(
    sizes: np.ndarray, documents: np.ndarray, capacity: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """First token, end and document of each block; ``sizes`` and ``documents`` of lines, ``</s>`` counted.

    Lines lie one behind the other, and blocks are packed in their order, so a block is a stretch of the tokens.
    """
    starts: list[int] = []
    ends: list[int] = []
    owners: list[int] = []
    place, room, document = 0, 0, -1
    for size, owner in zip(sizes.tolist(), documents.tolist(), strict=True):
        if owner != document or size > room:
            document, room = owner, 0
        while size > room:  # a new block; of a line longer than one, as many as it takes
            if starts and len(ends) < len(starts):
                ends.append(place)
            starts.append(place)
            owners.append(owner)
            room = capacity
            if size > capacity:
                place += capacity
                size -= capacity
                room = 0
        place += size
        room -= size
    if starts:
        ends.append(place)
    return np.array(starts, np.int64), np.array(ends, np.int64), np.array(owners, np.int64)


def _repeated(owners: np.ndarray, copies: np.ndarray) -> np.ndarray:
    """Indices of blocks, those of each document together as often as it has copies."""
    counts = np.bincount(owners, minlength=len(copies))
    firsts = np.cumsum(counts) - counts
    wholes = np.repeat(np.arange(len(copies)), copies)
    return _stretches(firsts[wholes], counts[wholes])


def _stretches(firsts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The numbers ``firsts[i], firsts[i] + 1, ...``, ``lengths[i]`` of them, for all i one after the other."""
    return np.repeat(firsts - np.cumsum(lengths) + lengths, lengths) + np.arange(int(lengths.sum()))


def _gathered(tokens: np.ndarray, starts: np.ndarray, ends: np.ndarray, begin: int) -> np.ndarray:
    """The blocks one after the other, ``<s>`` before each."""
    lengths = ends - starts
    blocks = np.empty(int(lengths.sum()) + len(starts), tokens.dtype)
    begins = np.cumsum(lengths + 1) - lengths - 1
    of_tokens = np.ones(len(blocks), bool)
    of_tokens[begins] = False
    blocks[begins] = begin
    blocks[of_tokens] = tokens[_stretches(starts, lengths)]
    return blocks


def token_dtype(vocabulary_size: int) -> type[np.uint16] | type[np.int32]:
    """The smallest type that columns of token ids are kept in."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.int32


@lru_cache(maxsize=1)
def loaded_tokenizer(folder: Path) -> MetroT0Tokenizer:
    """The tokenizer of a folder, loaded once a process (and once for all that are forked from it afterwards)."""
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

    return MetroT0Tokenizer.from_pretrained(str(folder))
