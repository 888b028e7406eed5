"""Which documents share a run of 13 words with an evaluation suite.

suite = EvaluationNgrams.from_files([Path("tasks/"), Path("own.jsonl")])
task = suite.overlap(document)     # "anli/default", or None where the document is clean

Words are compared as appendix C of the GPT-3 paper (arXiv 2005.14165) does: lower-cased, cut at white space, without
punctuation, so that ``Don't!`` is ``dont``; "punctuation" is all that is neither letter, digit nor white space. Unlike
there, a text of fewer words than a run is not looked for (it is counted), and no run is spared for being common.
Runs are kept as 64-bit hashes: two different runs of a suite and a corpus that hold 10^7 and 10^9 collide with
probability 0.0005.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from metro_t0.data.compressed import compression_of, file_errors, open_bytes

_SUFFIXES = (".jsonl", ".ndjson", ".csv")
_WIDE_SPACE = re.compile(r"[^\S\x00-\x7f]")
_WIDE_PUNCTUATION = re.compile(r"[^\w\x00-\x7f]")
_BITS_A_RUN = 16
_MOST_FILTER_BITS = 28

_DROPPED, _SPACE, _WORD = 0, 1, 2


def _byte_kinds() -> np.ndarray:
    kinds = np.full(256, _DROPPED, np.uint8)
    kinds[[byte for byte in range(256) if byte >= 128 or chr(byte).isalnum()]] = _WORD
    kinds[[byte for byte in range(128) if chr(byte).isspace()]] = _SPACE
    return kinds


_KINDS = _byte_kinds()
# A random value a byte: a polynomial over the bytes themselves would collide for short words that resemble each other.
_BYTE_VALUES = np.random.default_rng(13).integers(1, 2**63, 256, dtype=np.uint64)
_BASE = 0x9E3779B97F4A7C15
_BASE_INVERSE = pow(_BASE, -1, 2**64)
_STEP = 0xD1342543DE82EF95


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)


def _run_hashes(text: str, n: int) -> np.ndarray:
    """Hash of each run of ``n`` words, ``[max(0, words - n + 1)]`` uint64."""
    text = text.lower()
    if not text.isascii():
        text = _WIDE_PUNCTUATION.sub("", _WIDE_SPACE.sub(" ", text))
    raw = np.frombuffer(text.encode("utf-8", "replace"), np.uint8)
    kinds = _KINDS[raw]
    kept = kinds != _DROPPED
    raw, in_word = raw[kept], kinds[kept] == _WORD
    edges = np.diff(in_word.astype(np.int8), prepend=np.int8(0), append=np.int8(0))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if len(starts) < n:
        return np.zeros(0, np.uint64)
    # A word's hash is a difference of prefix sums, moved to the text's beginning; all modulo 2^64.
    sums = np.zeros(len(raw) + 1, np.uint64)
    np.cumsum(_BYTE_VALUES[raw] * _powers(_BASE, len(raw)), out=sums[1:])
    words = _mixed((sums[ends] - sums[starts]) * _powers(_BASE_INVERSE, len(raw))[starts])
    runs = np.zeros(len(words) - n + 1, np.uint64)
    for place, factor in enumerate(_powers(_STEP, n)):
        runs += words[place : place + len(runs)] * factor
    return _mixed(runs)


def _mixed(values: np.ndarray) -> np.ndarray:
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class EvaluationNgrams:
    """The runs of ``n`` words of an evaluation suite; may be pickled.

    Attributes:
        n: words of a run.
        tasks: names of the tasks, in the order read.
        runs: the sorted hashes of all runs, ``[runs]`` uint64, each once.
        owners: index of the first task that has the run, ``[runs]``.
        texts, short_texts: for each task, the texts read and those of them with fewer than ``n`` words.
    """

    n: int
    tasks: tuple[str, ...]
    runs: np.ndarray
    owners: np.ndarray
    texts: tuple[int, ...]
    short_texts: tuple[int, ...]
    _filter: np.ndarray

    @classmethod
    def from_texts(cls, texts: Iterable[tuple[str, str]], n: int = 13) -> EvaluationNgrams:
        """Collect runs from pairs of task and text.

        Raises:
            ValueError: ``n`` is not positive, or no text has a run.
        """
        if n < 1:
            raise ValueError(f"a run of words to look for needs at least one word, not {n}")
        counts: dict[str, list[int]] = {}
        hashes, owners = [np.zeros(0, np.uint64)], [np.zeros(0, np.int32)]
        for task, text in texts:
            count = counts.setdefault(task, [len(counts), 0, 0])
            found = np.unique(_run_hashes(text, n))
            count[1] += 1
            count[2] += not len(found)
            hashes.append(found)
            owners.append(np.full(len(found), count[0], np.int32))
        # np.unique keeps the first place of each value only if owners are in order of their task.
        order = np.argsort(np.concatenate(owners), kind="stable")
        runs, first = np.unique(np.concatenate(hashes)[order], return_index=True)
        if not len(runs):
            raise ValueError(
                f"the evaluation suite has no text of {n} words or more; there is nothing to look for"
            )
        bits = min(_MOST_FILTER_BITS, (len(runs) * _BITS_A_RUN).bit_length())
        present = np.zeros(1 << bits, bool)
        present[runs >> np.uint64(64 - bits)] = True
        return cls(
            n,
            tuple(counts),
            runs,
            np.concatenate(owners)[order][first],
            tuple(count[1] for count in counts.values()),
            tuple(count[2] for count in counts.values()),
            present,
        )

    @classmethod
    def from_files(cls, paths: Iterable[Path], n: int = 13) -> EvaluationNgrams:
        """Collect the runs of all text fields in files of rows: ``.jsonl``, ``.ndjson``, ``.csv``, or these compressed.

        A file is a task named by its name. A folder is read whole, ``ROOT/dataset/subset/split.jsonl.gz``: its task
        is ``dataset/subset``, and splits with ``train`` in their name are left out.

        Raises:
            ValueError: a path does not exist, holds no such file, is of another kind, or is broken (names the line).
        """
        return cls.from_texts(
            ((task, text) for path in paths for task, file in _task_files(path) for text in _texts(file)), n
        )

    def fingerprint(self) -> str:
        """Another one for other runs or other names of tasks."""
        named = "\n".join([str(self.n), *self.tasks]).encode()
        return hashlib.sha256(named + self.runs.tobytes() + self.owners.tobytes()).hexdigest()

    def overlap(self, text: str) -> str | None:
        """The task that shares the document's first shared run; None where none does."""
        found = _run_hashes(text, self.n)
        shift = np.uint64(64 - (len(self._filter).bit_length() - 1))
        found = found[self._filter[found >> shift]]
        places = np.minimum(np.searchsorted(self.runs, found), len(self.runs) - 1)
        met = np.flatnonzero(self.runs[places] == found)
        return self.tasks[self.owners[places[met[0]]]] if len(met) else None


def _suffix(path: Path) -> str:
    name = path.name.lower().removesuffix(compression_of(path))
    return next((suffix for suffix in _SUFFIXES if name.endswith(suffix)), "")


def _task_files(path: Path) -> list[tuple[str, Path]]:
    if path.is_file():
        if not _suffix(path):
            raise ValueError(
                f"{path}: rows to decontaminate against are read from {', '.join(_SUFFIXES)} files"
            )
        return [(path.name.split(".")[0], path)]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist; name a file of evaluation rows or a folder of them")
    files = [file for file in sorted(path.rglob("*")) if file.is_file() and _suffix(file)]
    files = [file for file in files if "train" not in file.name]
    if not files:
        raise ValueError(f"{path} holds no evaluation rows ({', '.join(_SUFFIXES)}, not named train)")
    return [(file.parent.relative_to(path).as_posix(), file) for file in files]


def _texts(path: Path) -> Iterator[str]:
    with file_errors(path), closing(open_bytes(path)) as stream:
        lines = io.TextIOWrapper(stream, encoding="utf-8-sig", newline="")
        number = 0
        try:
            if _suffix(path) == ".csv":
                for number, row in enumerate(csv.reader(lines, strict=True), start=1):
                    if number > 1:
                        yield from row
                return
            for number, line in enumerate(lines, start=1):
                if not line.isspace():
                    yield from _strings(_parsed(line, f"{path}:{number}"))
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: broken after row {number} ({error}); mend or remove it") from error


def _parsed(line: str, where: str) -> Any:
    try:
        return json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{where}: broken row ({error}); mend or remove it") from error


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for entry in value:
            yield from _strings(entry)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
