"""The documents of a corpus, read once and staged in Arrow files, and the choice of those that are used.

    stage_unit(unit, folder)                       # a process reads a unit: texts.arrow, documents.npz, counts.json
    staged = StagedCorpus([StagedUnit.open(folder) for folder in folders], keep_duplicates=False)
    staged.characters, staged.texts(0)             # of the distinct documents, in reading order
    held_out = choose_held_out(staged.characters, 0.01, seed=0)

Sources may be slow to read (compressed, remote), and training a tokenizer, choosing the held-out part and tokenising
each go over the documents. Texts stay on disk; a hash and a length of each document stay in memory, 16 bytes.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa

from metro_t0.data.cleaning import Cleaned, Cleaning
from metro_t0.data.decontamination import EvaluationNgrams
from metro_t0.data.units import Unit

_SCHEMA = pa.schema([("text", pa.large_string())])
# A batch is what a process tokenises at a time.
_BATCH_CHARACTERS = 1_000_000
_BATCH_DOCUMENTS = 4_000
# Held-out blocks are estimated before there is a tokenizer; real ones hold about 2300 characters when full.
_CHARACTERS_A_BLOCK = 2_000


@dataclass
class UnitCounts:
    """What reading a unit gave: documents that came, those that went on from the one before, those whose Unicode was
    repaired, those that a filter took lines out of, those left out by reason."""

    read: int = 0
    continued: int = 0
    repaired: int = 0
    trimmed: int = 0
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Selection:
    """What becomes of each document before it is staged.

    Attributes:
        cleaning: repair and filters.
        evaluation: documents that overlap with it are left out; None for none.
    """

    cleaning: Cleaning = field(default_factory=Cleaning)
    evaluation: EvaluationNgrams | None = None

    def open(self) -> Callable[[str], Cleaned]:
        """A function of a text; what it needs is loaded now."""
        cleaner, evaluation = self.cleaning.open(), self.evaluation

        def select(text: str) -> Cleaned:
            cleaned = cleaner(text)
            if evaluation is None or cleaned.text is None:
                return cleaned
            task = evaluation.overlap(cleaned.text)
            return cleaned if task is None else Cleaned(None, f"in the evaluation: {task}", cleaned.repaired)

        return select


def stage_unit(unit: Unit, folder: Path, selection: Selection | None = None) -> None:
    """Read a unit and write its documents, their hashes and lengths, and the counts into ``folder``.

    Documents have the same hash if their texts are the same, blanks at both ends aside.

    Raises:
        ValueError: a file of the unit cannot be read.
    """
    hashes, lengths, counts = array("Q"), array("q"), UnitCounts()
    select = (selection or Selection()).open()
    with _Writer(folder / "texts.arrow") as writer:
        for document in unit.documents():
            counts.read += 1
            counts.continued += document.continued
            cleaned = select(document.text)
            text = (cleaned.text or "").strip()
            if not text:
                counts.dropped[cleaned.dropped or "empty"] += 1
                continue
            counts.repaired += cleaned.repaired
            counts.trimmed += cleaned.trimmed
            digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
            hashes.append(int.from_bytes(digest, "little"))
            lengths.append(len(text))
            writer.write(text)
    np.savez(
        folder / "documents.npz",
        hashes=np.frombuffer(hashes, np.uint64) if hashes else np.zeros(0, np.uint64),
        characters=np.frombuffer(lengths, np.int64) if lengths else np.zeros(0, np.int64),
    )
    (folder / "counts.json").write_text(json.dumps(vars(counts)), encoding="utf-8")


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
        if self._texts:
            self._file.write_batch(
                pa.record_batch([pa.array(self._texts, pa.large_string())], schema=_SCHEMA)
            )
        self._texts, self._characters = [], 0


@dataclass(frozen=True)
class StagedUnit:
    """A staged unit on disk.

    Attributes:
        texts: its Arrow file.
        hashes: ``[documents]`` uint64.
        characters: ``[documents]`` int64.
        counts: what reading gave.
    """

    texts: Path
    hashes: np.ndarray
    characters: np.ndarray
    counts: UnitCounts

    @classmethod
    def open(cls, folder: Path) -> StagedUnit:
        """Open what :func:`stage_unit` wrote."""
        with np.load(folder / "documents.npz") as arrays:
            hashes, characters = arrays["hashes"], arrays["characters"]
        counts = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
        counts["dropped"] = Counter(counts["dropped"])
        return cls(folder / "texts.arrow", hashes, characters, UnitCounts(**counts))

    def batch_sizes(self) -> list[int]:
        """Documents of each Arrow batch."""
        with pa.memory_map(str(self.texts)) as file:
            reader = pa.ipc.open_file(file)
            return [reader.get_batch(index).num_rows for index in range(reader.num_record_batches)]


def read_batch(texts: Path, index: int, wanted: np.ndarray) -> list[str]:
    """The texts of an Arrow batch where ``wanted`` ``[documents]`` is True."""
    with pa.memory_map(str(texts)) as file:
        column = pa.ipc.open_file(file).get_batch(index).column(0)
        chosen: list[str] = column.filter(pa.array(wanted)).to_pylist()
        return chosen


@dataclass(frozen=True)
class Batch:
    """An Arrow batch of a staged unit.

    Attributes:
        texts: the Arrow file.
        index: which of its batches.
        wanted: which of its documents are used, boolean ``[documents]``.
        first: number, over the corpus, of the first document that is used.
    """

    texts: Path
    index: int
    wanted: np.ndarray
    first: int

    def read(self) -> list[str]:
        """The texts that are used."""
        return read_batch(self.texts, self.index, self.wanted)


class StagedCorpus:
    """The distinct documents of staged units, in reading order.

    Attributes:
        units: as they were staged.
        wanted: which documents of each unit are used, boolean ``[documents of the unit]``.
        characters: length of each document used, ``[documents]``.
        near_duplicates: how many of each unit were left out as such.
    """

    def __init__(self, units: Sequence[StagedUnit], *, keep_duplicates: bool = False) -> None:
        self.units = tuple(units)
        ends = np.cumsum([0, *(len(unit.hashes) for unit in units)])
        first = np.ones(int(ends[-1]), bool)
        if not keep_duplicates:
            first[:] = False
            hashes = np.concatenate([np.zeros(0, np.uint64), *(unit.hashes for unit in units)])
            first[np.unique(hashes, return_index=True)[1]] = True
        self.wanted = [first[start:end] for start, end in pairwise(ends.tolist())]
        self.near_duplicates = [0] * len(self.units)
        self._count()

    def _count(self) -> None:
        used = (unit.characters[kept] for unit, kept in zip(self.units, self.wanted, strict=True))
        self.characters = np.concatenate([np.zeros(0, np.int64), *used])

    def leave_out(self, near_duplicates: np.ndarray) -> None:
        """Use no longer the documents where ``near_duplicates`` ``[documents]`` is True."""
        ends = np.cumsum([0, *self.documents_of_units()]).tolist()
        for number, (start, end) in enumerate(pairwise(ends)):
            places = np.flatnonzero(self.wanted[number])
            self.wanted[number] = self.wanted[number].copy()
            self.wanted[number][places[near_duplicates[start:end]]] = False
            self.near_duplicates[number] = int(near_duplicates[start:end].sum())
        self._count()

    def __len__(self) -> int:
        return len(self.characters)

    def documents_of_units(self) -> list[int]:
        """How many documents of each unit are used."""
        return [int(wanted.sum()) for wanted in self.wanted]

    def batches(self) -> Iterator[Batch]:
        """All Arrow batches, in order."""
        number = 0
        for unit in range(len(self.units)):
            for batch in self._batches_of(unit, number):
                yield batch
                number = batch.first + int(batch.wanted.sum())

    def _batches_of(self, unit: int, number: int) -> Iterator[Batch]:
        start = 0
        for index, size in enumerate(self.units[unit].batch_sizes()):
            chosen = self.wanted[unit][start : start + size]
            yield Batch(self.units[unit].texts, index, chosen, number)
            start += size
            number += int(chosen.sum())

    def texts_of(self, unit: int) -> Iterator[str]:
        """The documents of one unit that are used."""
        for batch in self._batches_of(unit, 0):
            yield from batch.read()

    def __iter__(self) -> Iterator[str]:
        for batch in self.batches():
            yield from batch.read()


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
