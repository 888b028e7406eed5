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
import hashlib
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
from metro_t0.data.corpora import Source as CorpusSource
from metro_t0.data.corpora import SplitDocuments, empty_corpus, resolve_sources
from metro_t0.data.corpus_card import FORMAT_VERSION, corpus_card, write_card
from metro_t0.data.decontamination import EvaluationNgrams
from metro_t0.data.encoding import loaded_tokenizer, token_dtype
from metro_t0.data.near_duplicates import NearDuplicates, Similarity
from metro_t0.data.parallel import available_processes, map_in_order
from metro_t0.data.shards import (
    PARTS,
    BatchOfParts,
    Encoding,
    content_checksum,
    cut_into_shards,
    link_dataset,
    summed_counts,
    write_shards,
)
from metro_t0.data.staging import Selection, StagedCorpus, StagedUnit, choose_held_out, stage_unit
from metro_t0.data.units import UNIT_BYTES, Unit, reading_units
from metro_t0.data.work import WorkFolder, whole_piece

if TYPE_CHECKING:
    from datasets import Dataset

    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

DEFAULT_VOCAB_SIZE = 8192
SHARD_CHARACTERS = 100_000_000
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


@dataclass(frozen=True)
class _Settings:
    """Everything but sources and output; the card says it all."""

    split_documents: SplitDocuments
    text_column: str
    keep_duplicates: bool
    near_duplicates: bool
    cleaning: Cleaning
    decontaminate: tuple[str, ...]
    weights: dict[str, float]
    validation_fraction: float
    max_length: int
    seed: int
    shard_characters: int

    def as_card(self) -> dict[str, Any]:
        """Plain values; of the cleaning only what is on."""
        cleaning = {name: value for name, value in vars(self.cleaning).items() if value}
        if not self.cleaning.languages:
            cleaning.pop("language_threshold")
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in cleaning.items()}
        return {**vars(self), "decontaminate": list(self.decontaminate), "cleaning": plain}

    def check(self) -> None:
        self.cleaning.check()
        if self.near_duplicates:
            Similarity().check()
        if not 0 < self.validation_fraction < 1:
            raise ValueError(
                f"the validation fraction must lie between 0 and 1, not {self.validation_fraction}"
            )
        if self.max_length < 3:
            raise ValueError(
                f"the maximum length must be at least 3 (<s>, a token, </s>), not {self.max_length}"
            )
        for source, weight in self.weights.items():
            if not 0 < weight <= 1000:
                raise ValueError(f"the weight of {source} must lie above 0 and be at most 1000, not {weight}")


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
    settings = _Settings(
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
    settings.check()
    resolved = resolve_sources(sources)
    evaluation = EvaluationNgrams.from_files(map(Path, decontaminate)) if decontaminate else None
    for name in settings.weights:
        if name not in {source.name for source in resolved}:
            known = ", ".join(source.name for source in resolved)
            raise ValueError(f"a weight is given for {name}, which is no source; the sources are: {known}")
    given = None
    if tokenizer is not None:
        from metro_t0.tokenization.inspection import open_tokenizer

        given = open_tokenizer(Path(tokenizer))
    with WorkFolder(Path(out)) as work, _progress(console) as progress:
        if work.continued and console is not None:
            console.print(f"going on with the work in {work.path}", markup=False, highlight=False)
        preparation = _Preparation(
            work,
            resolved,
            settings,
            Selection(settings.cleaning, evaluation),
            processes or available_processes(),
            progress,
        )
        training = {"vocab_size": vocab_size or DEFAULT_VOCAB_SIZE, "lower": lower, "normalizer": normalizer}
        preparation.run(given, training)
    return PreparedCorpus.load(out)


def vocabulary_checksum(tokenizer: MetroT0Tokenizer) -> str:
    """SHA-256 over the pieces in the order of their ids: equal if and only if ids mean the same pieces."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()


def _key(*parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


@dataclass
class _Preparation:
    """One run of :func:`prepare`, stage by stage."""

    work: WorkFolder
    sources: list[CorpusSource]
    settings: _Settings
    selection: Selection
    processes: int
    progress: Progress

    def run(self, given: MetroT0Tokenizer | None, training: dict[str, Any]) -> None:
        """All stages; ``training`` is how to train a tokenizer where none is given."""
        units = reading_units(
            self.sources,
            split_documents=self.settings.split_documents,
            text_column=self.settings.text_column,
            unit_bytes=min(UNIT_BYTES, self.settings.shard_characters),
        )
        corpus, read = self._read(units)
        if self.settings.near_duplicates:
            corpus.leave_out(self._near_duplicates(corpus, read))
        held_out = choose_held_out(corpus.characters, self.settings.validation_fraction, self.settings.seed)
        copies = self._copies(units, corpus, held_out)
        state = _key(read, self.settings)
        if given is None:
            folder = self._train_tokenizer(corpus, held_out, training, state)
        else:
            made = sorted(map(str, given.init_kwargs.items()))
            folder = self.work / f"tokenizer-{_key(vocabulary_checksum(given), made)}"
            if not folder.is_dir():
                with self.work.piece(folder.name) as aside:
                    given.save_pretrained(str(aside))
        # Loaded before the workers are forked from this process, so that they all share it.
        tokenizer = loaded_tokenizer(folder)
        encoding = Encoding(folder, self.settings.max_length, token_dtype(len(tokenizer)))
        group = f"blocks-{_key(state, folder.name)}"
        shards = self._encode(corpus, held_out, copies, encoding, group)
        counts = summed_counts(shards)
        for part in PARTS:
            if not counts[part].blocks:
                raise ValueError(
                    f"no block of tokens came out of the {part} documents; add text or change the seed"
                )
        checksums = {part: content_checksum(shards, part) for part in PARTS}
        card = corpus_card(
            self.sources,
            [unit.source for unit in units],
            corpus,
            counts,
            checksums=checksums,
            tokenizer={
                "trained_here": given is None,
                "lower": tokenizer.lower,
                "normalizer": tokenizer.text_normalizer,
                "vocabulary_size": len(tokenizer),
                "vocabulary_checksum": vocabulary_checksum(tokenizer),
            },
            settings=self.settings.as_card(),
        )
        with self.work.whole() as whole:
            for part in PARTS:
                link_dataset(shards, part, whole / part, encoding.schema, checksums[part])
            tokenizer.save_pretrained(str(whole / "tokenizer"))
            write_card(card, whole)

    def _read(self, units: Sequence[Unit]) -> tuple[StagedCorpus, list[str]]:
        """The staged documents, and what they are a function of."""
        evaluation = self.selection.evaluation
        selected = _key(self.selection.cleaning, evaluation and evaluation.fingerprint())
        names = [f"{unit.fingerprint()}-{selected}" for unit in units]
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
        stage = functools.partial(_stage, selection=self.selection)
        for _, characters in map_in_order(stage, missing, processes, named=lambda work: str(work[0])):
            staged += characters
            self.work.keep |= staged >= _CHARACTERS_WORTH_KEEPING
            self.progress.advance(task)
        corpus = StagedCorpus(
            [StagedUnit.open(self.work / f"read/{name}") for name in names],
            keep_duplicates=self.settings.keep_duplicates,
        )
        if not len(corpus):
            raise empty_corpus([source.name for source in self.sources])
        return corpus, names

    def _near_duplicates(self, corpus: StagedCorpus, read: list[str]) -> np.ndarray:
        task = self.progress.add_task("Looking for near-duplicates", total=None)
        name = f"near-duplicates-{_key(read, self.settings.keep_duplicates)}"
        if not self.work.has(name):
            with self.work.piece(name) as folder:
                search = NearDuplicates(folder / "scratch")
                sign = functools.partial(_sign, search=search, corpus=corpus)
                units = range(len(corpus.units))
                counts = [count for _, count in map_in_order(sign, units, min(self.processes, len(units)))]
                np.save(folder / "drop.npy", np.concatenate(search.find(counts, workers=self.processes)))
        self.progress.update(task, total=1, completed=1)
        return np.load(self.work / name / "drop.npy")

    def _copies(self, units: Sequence[Unit], corpus: StagedCorpus, held_out: np.ndarray) -> np.ndarray:
        """How often each document appears, ``[documents]``."""
        by_unit = [self.settings.weights.get(self.sources[unit.source].name, 1.0) for unit in units]
        weights = np.repeat(by_unit, corpus.documents_of_units())
        draws = np.random.default_rng([self.settings.seed, 1]).random(len(weights))
        copies = np.floor(weights).astype(np.int64) + (draws < weights % 1)
        copies[held_out] = 1
        return copies

    def _train_tokenizer(
        self, corpus: StagedCorpus, held_out: np.ndarray, training: dict[str, Any], state: str
    ) -> Path:
        from metro_t0.tokenization.training import train_tokenizer

        task = self.progress.add_task(f"Training a tokenizer of {training['vocab_size']} pieces", total=None)
        name = f"tokenizer-{_key(state, training)}"
        if not self.work.has(name):
            texts = (text for text, hidden in zip(corpus, held_out, strict=True) if not hidden)
            large = int(corpus.characters[~held_out].sum()) > _TOKENIZER_CHARACTERS
            train_tokenizer(
                texts,
                out=self.work / name,
                sample_characters=_TOKENIZER_CHARACTERS if large else None,
                seed=self.settings.seed,
                **training,
            )
        self.progress.update(task, total=1, completed=1)
        return self.work / name

    def _encode(
        self,
        corpus: StagedCorpus,
        held_out: np.ndarray,
        copies: np.ndarray,
        encoding: Encoding,
        group: str,
    ) -> list[Path]:
        def batches() -> Iterator[BatchOfParts]:
            for batch in corpus.batches():
                documents = slice(batch.first, batch.first + int(batch.wanted.sum()))
                yield BatchOfParts(batch, held_out[documents], copies[documents])

        total = int(corpus.characters.sum())
        shards = cut_into_shards(batches(), corpus.characters, self.settings.shard_characters)
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


def _stage(work: tuple[Unit, Path], selection: Selection) -> int:
    """Read a unit into its folder, whole or not at all; gives its characters."""
    unit, folder = work
    with whole_piece(folder) as aside:
        stage_unit(unit, aside, selection)
    return int(StagedUnit.open(folder).characters.sum())


def _sign(unit: int, search: NearDuplicates, corpus: StagedCorpus) -> int:
    """Sign the documents of a unit that are used; gives how many they are."""
    return search.sign(unit, corpus.texts_of(unit))


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
