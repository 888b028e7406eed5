"""From sources of text to a prepared corpus: a tokenizer, token blocks for training and a held-out part.

::

    corpus = prepare(["books/", "pydocs"], Path("prepared"), vocab_size=8192)
    corpus = PreparedCorpus.load(Path("prepared"))
    corpus.train[0]["input_ids"]        # <s> ... </s>, at most 512 tokens of one document

The folder holds ``train/`` and ``validation/`` (Arrow, as `datasets.load_from_disk` reads them), ``tokenizer/`` and a
card (``card.json``, ``card.md``, ``card.svg``), which says what went in and what came out. It appears whole at the end
or not at all. Until then the work lies in a hidden folder beside it: documents as they were read, by unit, then token
blocks, by shard. Any of it that is finished is not done again when the same command is run after an interruption.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from metro_t0.data.cleaning import Cleaning
from metro_t0.data.corpora import SplitDocuments
from metro_t0.data.corpus_card import FORMAT_VERSION
from metro_t0.data.parallel import available_processes, map_in_order
from metro_t0.data.preparation import (
    SHARD_CHARACTERS,
    Job,
    Parts,
    Settings,
    keep_tokenizer,
    key_of,
    read_unit,
)
from metro_t0.data.preparation import vocabulary_checksum as vocabulary_checksum
from metro_t0.data.shards import PARTS, Encoding, write_shards
from metro_t0.data.staging import StagedCorpus
from metro_t0.data.work import WorkFolder

if TYPE_CHECKING:
    from datasets import Dataset

    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

DEFAULT_VOCAB_SIZE = 8192
# Below this, starting processes takes longer than they save.
_CHARACTERS_WORTH_PROCESSES = 1_000_000
# Below this, doing it all again takes seconds.
_CHARACTERS_WORTH_KEEPING = 10_000_000
# The tokenizer is trained on the counts of words; beyond this they hardly change, and counting takes a minute.
_TOKENIZER_CHARACTERS = 500_000_000


@dataclass(frozen=True, slots=True)
class PreparedCorpus:
    """A prepared corpus on disk, memory-mapped.

    Attributes:
        path: its folder.
        train, validation: token blocks; columns ``input_ids`` (``uint16``, or ``int32`` for vocabularies above
            65536; begins with ``<s>``) and ``document`` (number of the document, counted over the corpus).
        tokenizer: folder of the tokenizer that made the blocks.
        card: what went in and what came out: sources, counts, settings, checksums.
    """

    path: Path
    train: Dataset
    validation: Dataset
    tokenizer: Path
    card: dict[str, Any]

    @classmethod
    def load(cls, path: Path) -> PreparedCorpus:
        """Open a folder that ``prepare`` wrote.

        Raises:
            ValueError: the folder is missing, is no prepared corpus, or has a format this version cannot read.
        """
        from datasets import load_from_disk

        path = Path(path)
        if not path.is_dir():
            raise ValueError(
                f"{path} is not a folder; make a prepared corpus with: metro-t0 prepare SOURCE --out {path}"
            )
        try:
            card = json.loads((path / "card.json").read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ValueError(f"{path} is not a prepared corpus: its card.json cannot be read") from error
        if card.get("format_version") != FORMAT_VERSION:
            raise ValueError(
                f"{path} has format version {card.get('format_version')}, this program reads {FORMAT_VERSION}; "
                "prepare it again"
            )
        train, validation = (load_from_disk(str(path / split)) for split in PARTS)
        return cls(path, train, validation, path / "tokenizer", card)


def prepare(
    sources: Sequence[str | os.PathLike[str]],
    out: Path,
    *,
    tokenizer: Path | None = None,
    vocab_size: int | None = None,
    lower: bool = True,
    normalizer: str = "english",
    split_documents: SplitDocuments = "file",
    text_column: str = "text",
    keep_duplicates: bool = False,
    near_duplicates: bool = False,
    cleaning: Cleaning | None = None,
    decontaminate: Sequence[str | os.PathLike[str]] = (),
    weights: Mapping[str, float] | None = None,
    validation_fraction: float = 0.01,
    max_length: int = 512,
    seed: int = 0,
    processes: int | None = None,
    shard_characters: int = SHARD_CHARACTERS,
    console: Console | None = None,
) -> PreparedCorpus:
    """Read the sources, train or take a tokenizer, and write token blocks and a held-out part to ``out``.

    The same sources, settings and seed give the same blocks, on any number of processes and after any interruption.

    Args:
        sources: what to read; see ``metro_t0.data.corpora``.
        out: folder to make; must not hold anything yet.
        tokenizer: folder of a tokenizer to take; without it one is trained on the training part.
        vocab_size: pieces of the tokenizer to train (8192 unless given); the embedding has 512 rows more.
        lower: train an uncased tokenizer.
        normalizer: what the tokenizer to train does to a text first, ``english`` (as published) or ``neutral``.
        split_documents: what ends a document of a text file, the file or a blank line.
        text_column: the column of JSON lines, Parquet and Hub datasets that holds the text.
        keep_duplicates: keep documents that came before, blanks at both ends aside (a 64-bit hash decides).
        near_duplicates: leave out documents that are nearly the same as an earlier one (MinHash); needs datatrove.
        cleaning: repair and filters, none unless given.
        decontaminate: files and folders of evaluation rows; documents that share 13 words in a row are left out.
        weights: source as given -> how often its documents are trained on; of 2.5, each document twice and a random
            half of them a third time. Held-out documents appear once.
        validation_fraction: share of the characters to hold out, in whole documents: at least one, at most about
            1000 blocks.
        max_length: the most tokens of a block, ``<s>`` included.
        seed: of the held-out part, the weights' draws and the tokenizer's training.
        processes: how many read and tokenise (all cores unless given); the result does not depend on it.
        shard_characters: about how much of the corpus a file holds, and so is lost at most when work is interrupted.
        console: where to show progress; None shows nothing.

    Raises:
        ValueError: a setting is impossible, a source cannot be read, there is no text or only one document, the
            tokenizer cannot be read or trained, a worker was killed, or ``out`` already holds something.
    """
    if tokenizer is not None and vocab_size is not None:
        raise ValueError("give either a tokenizer to take or a vocabulary size to train one, not both")
    if processes is not None and processes < 1:
        raise ValueError(f"the number of processes must be at least 1, not {processes}")
    settings = Settings(
        split_documents=split_documents,
        text_column=text_column,
        keep_duplicates=keep_duplicates,
        near_duplicates=near_duplicates,
        cleaning=cleaning or Cleaning(),
        decontaminate=tuple(os.fspath(path) for path in decontaminate),
        weights=dict(weights or {}),
        validation_fraction=validation_fraction,
        max_length=max_length,
        seed=seed,
        shard_characters=shard_characters,
    )
    job = Job.of(sources, settings)
    given = None
    if tokenizer is not None:
        from metro_t0.tokenization.inspection import open_tokenizer

        given = open_tokenizer(Path(tokenizer))
    with WorkFolder(Path(out)) as work, _progress(console) as progress:
        if work.continued and console is not None:
            console.print(f"going on with the work in {work.path}", markup=False, highlight=False)
        preparation = _Preparation(work, job, processes or available_processes(), progress)
        training = {"vocab_size": vocab_size or DEFAULT_VOCAB_SIZE, "lower": lower, "normalizer": normalizer}
        preparation.run(given, training)
    return PreparedCorpus.load(out)


@dataclass
class _Preparation:
    """One run of :func:`prepare`, stage by stage."""

    work: WorkFolder
    job: Job
    processes: int
    progress: Progress

    def run(self, given: MetroT0Tokenizer | None, training: dict[str, Any]) -> None:
        """All stages; ``training`` is how to train a tokenizer where none is given."""
        corpus = self._read()
        if self.job.settings.near_duplicates:
            task = self.progress.add_task("Looking for near-duplicates", total=None)
            self.job.leave_near_duplicates_out(self.work, corpus, self.processes)
            self.progress.update(task, total=1, completed=1)
        parts = self.job.parts(corpus)
        if given is None:
            folder = self._train_tokenizer(corpus, parts.held_out, training)
        else:
            folder = keep_tokenizer(self.work, given)
        encoding = self.job.encoding(folder)
        shards = self._encode(corpus, parts, encoding)
        self.job.finish(self.work, corpus, shards, encoding, trained_here=given is None)

    def _read(self) -> StagedCorpus:
        units, names = self.job.units, self.job.read_names
        self.work.forget("read", names)
        missing = [
            (unit, self.work / f"read/{name}")
            for unit, name in zip(units, names, strict=True)
            if not self.work.has(f"read/{name}")
        ]
        task = self.progress.add_task("Reading", total=len(units), completed=len(units) - len(missing))
        self.work.keep = bool(len(units) > len(missing))
        processes = min(self.processes, len(missing)) or 1
        staged = 0
        stage = functools.partial(read_unit, selection=self.job.selection)
        for _, characters in map_in_order(stage, missing, processes, named=lambda work: str(work[0])):
            staged += characters
            self.work.keep |= staged >= _CHARACTERS_WORTH_KEEPING
            self.progress.advance(task)
        return self.job.staged(self.work)

    def _train_tokenizer(self, corpus: StagedCorpus, held_out: np.ndarray, training: dict[str, Any]) -> Path:
        from metro_t0.tokenization.training import train_tokenizer

        task = self.progress.add_task(f"Training a tokenizer of {training['vocab_size']} pieces", total=None)
        name = f"tokenizer-{key_of(self.job.state, training)}"
        if not self.work.has(name):
            texts = (text for text, hidden in zip(corpus, held_out, strict=True) if not hidden)
            large = int(corpus.characters[~held_out].sum()) > _TOKENIZER_CHARACTERS
            train_tokenizer(
                texts,
                out=self.work / name,
                sample_characters=_TOKENIZER_CHARACTERS if large else None,
                seed=self.job.settings.seed,
                **training,
            )
        self.progress.update(task, total=1, completed=1)
        return self.work / name

    def _encode(self, corpus: StagedCorpus, parts: Parts, encoding: Encoding) -> list[Path]:
        total = int(corpus.characters.sum())
        group = self.job.blocks_group(encoding)
        shards = dict(enumerate(self.job.shards(corpus, parts)))
        task = self.progress.add_task("Tokenising", total=total)
        processes = self.processes if total >= _CHARACTERS_WORTH_PROCESSES else 1
        return write_shards(
            self.work,
            group,
            shards,
            encoding,
            processes,
            advance=lambda characters: self.progress.advance(task, characters),
        )


@contextmanager
def _progress(console: Console | None) -> Iterator[Progress]:
    """Progress bars, wiped away after an error so that its message stands alone."""
    progress = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.completed:,.0f}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console or Console(quiet=True),
        disable=console is None,
    )
    with progress:
        try:
            yield progress
        except BaseException:
            progress.live.transient = True
            raise
