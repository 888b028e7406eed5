"""The documents of a corpus, read once, without repeats, staged in an Arrow file that is memory-mapped afterwards.

Sources may be slow to read (compressed, remote), and training a tokenizer, choosing the held-out part and
tokenising each go over the documents. Only a hash and a length of each document stay in memory, about 100 bytes.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from metro_t0.data.corpora import Document, Source, SplitDocuments, empty_corpus

_SCHEMA = pa.schema([("text", pa.large_string())])
_BATCH_CHARACTERS = 2_000_000
_BATCH_DOCUMENTS = 10_000
# Held-out blocks are estimated before there is a tokenizer; real ones hold about 2300 characters when full.
_CHARACTERS_A_BLOCK = 2_000


@dataclass(frozen=True, slots=True)
class SourceCount:
    """What one source gave: its own documents and characters, and how many documents an earlier one had."""

    source: Source
    documents: int
    characters: int
    duplicates: int


@dataclass(frozen=True, slots=True)
class StagedDocuments:
    """Distinct documents on disk, in reading order.

    Attributes:
        path: the Arrow file.
        characters: length of each document, ``[documents]``.
        sources: what each source gave.
    """

    path: Path
    characters: np.ndarray
    sources: tuple[SourceCount, ...]

    def __iter__(self) -> Iterator[str]:
        with pa.memory_map(str(self.path)) as file:
            reader = pa.ipc.open_file(file)
            for index in range(reader.num_record_batches):
                for text in reader.get_batch(index).column(0):
                    yield text.as_py()

    def __len__(self) -> int:
        return len(self.characters)


def stage_documents(
    sources: Sequence[Source],
    path: Path,
    *,
    split_documents: SplitDocuments = "file",
    text_column: str = "text",
    on_document: Callable[[Document], None] = lambda document: None,
) -> StagedDocuments:
    """Read the sources and write their distinct documents to ``path``; ``on_document`` sees each one read.

    Documents are the same if their texts are, blanks at both ends aside (a 64-bit hash decides).

    Raises:
        ValueError: a source cannot be read, or all of them together hold no text.
    """
    seen: set[int] = set()
    lengths = array("q")
    counts = []
    with _Writer(path) as writer:
        for source in sources:
            documents = characters = duplicates = 0
            for document in source.documents(split_documents=split_documents, text_column=text_column):
                on_document(document)
                text = document.text.strip()
                key = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())
                if key in seen:
                    duplicates += 1
                    continue
                seen.add(key)
                lengths.append(len(text))
                documents += 1
                characters += len(text)
                writer.write(text)
            counts.append(SourceCount(source, documents, characters, duplicates))
    if not lengths:
        raise empty_corpus([source.name for source in sources])
    return StagedDocuments(path, np.frombuffer(lengths, dtype=np.int64), tuple(counts))


class _Writer:
    """Gathers texts into Arrow batches."""

    def __init__(self, path: Path) -> None:
        self._file = pa.ipc.new_file(str(path), _SCHEMA)
        self._texts: list[str] = []
        self._characters = 0

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._flush()
        self._file.close()

    def write(self, text: str) -> None:
        self._texts.append(text)
        self._characters += len(text)
        if self._characters >= _BATCH_CHARACTERS or len(self._texts) >= _BATCH_DOCUMENTS:
            self._flush()

    def _flush(self) -> None:
        self._file.write_batch(pa.record_batch([pa.array(self._texts, pa.large_string())], schema=_SCHEMA))
        self._texts, self._characters = [], 0


def choose_held_out(
    characters: np.ndarray, fraction: float, seed: int, *, max_blocks: int = 1000
) -> np.ndarray:
    """Choose whole documents for validation, at random by ``seed``.

    Documents are drawn while they fit into ``fraction`` of the characters and an estimated ``max_blocks`` blocks;
    at least one is. Documents larger than ``max_blocks`` or than half of the corpus are left to training; if all
    are such, the smallest is held out.

    Args:
        characters: length of each document, ``[documents]``.

    Returns:
        Which documents are held out, boolean ``[documents]``.

    Raises:
        ValueError: there is only one document, so none can be held out.
    """
    if len(characters) < 2:
        raise ValueError(
            "the corpus is one document, so none can be held out for validation; "
            "split it at blank lines (--split-documents blank-line) or add another"
        )
    blocks = -(-characters // _CHARACTERS_A_BLOCK)
    total = characters.sum()
    fit = np.flatnonzero((blocks <= max_blocks) & (characters <= total / 2))
    held_out = np.zeros(len(characters), dtype=bool)
    if not len(fit):
        held_out[characters.argmin()] = True
        return held_out
    order = np.random.default_rng(seed).permutation(fit)
    within_fraction = np.searchsorted(np.cumsum(characters[order]), fraction * total, side="right")
    within_blocks = np.searchsorted(np.cumsum(blocks[order]), max_blocks, side="right")
    held_out[order[: max(1, min(within_fraction, within_blocks))]] = True
    return held_out


def sample_lines(
    documents: StagedDocuments, held_out: np.ndarray, *, max_characters: int, seed: int
) -> Iterator[str]:
    """Stream lines of the documents that are not held out: all, or a random share of about ``max_characters``."""
    available = int(documents.characters[~held_out].sum())
    share = max_characters / max(available, 1)
    rng = np.random.default_rng(seed)
    for text, hidden in zip(documents, held_out, strict=True):
        if hidden:
            continue
        lines = [line for line in text.splitlines() if line and not line.isspace()]
        if share >= 1:
            yield from lines
        else:
            yield from (
                line for line, draw in zip(lines, rng.random(len(lines)), strict=True) if draw < share
            )
