"""The stages of a preparation, each a function of what the one before left in the work folder.

    job = Job.of(sources, Settings(seed=1))                # sources looked up and cut into units
    read_unit((unit, work / f"read/{name}"), job.selection)     # for each of job.units and job.read_names
    corpus = job.staged(work)                              # the documents used
    shards = job.shards(corpus, job.parts(corpus))         # for write_shards
    job.finish(work, corpus, folders, encoding, trained_here=False)     # the output, whole or not at all

``prepare`` runs them on one machine, ``datatrove_pipeline`` on many; both give the same output.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metro_t0.data.cleaning import Cleaning
from metro_t0.data.corpora import Source, SplitDocuments, empty_corpus, resolve_sources
from metro_t0.data.corpus_card import corpus_card, write_card
from metro_t0.data.decontamination import EvaluationNgrams
from metro_t0.data.encoding import loaded_tokenizer, token_dtype
from metro_t0.data.near_duplicates import NearDuplicates, Similarity
from metro_t0.data.parallel import map_in_order
from metro_t0.data.shards import (
    PARTS,
    BatchOfParts,
    Encoding,
    content_checksum,
    cut_into_shards,
    link_dataset,
    summed_counts,
)
from metro_t0.data.staging import Selection, StagedCorpus, StagedUnit, choose_held_out, stage_unit
from metro_t0.data.units import UNIT_BYTES, Unit, reading_units
from metro_t0.data.work import WorkFolder, whole_piece

if TYPE_CHECKING:
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

SHARD_CHARACTERS = 100_000_000


@dataclass(frozen=True)
class Settings:
    """Everything but sources, tokenizer and output, as :func:`metro_t0.data.prepare.prepare` explains it."""

    split_documents: SplitDocuments = "file"
    text_column: str = "text"
    keep_duplicates: bool = False
    near_duplicates: bool = False
    cleaning: Cleaning = field(default_factory=Cleaning)
    decontaminate: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    validation_fraction: float = 0.01
    max_length: int = 512
    seed: int = 0
    shard_characters: int = SHARD_CHARACTERS

    def as_card(self) -> dict[str, Any]:
        """Plain values; of the cleaning only what is on."""
        cleaning = {name: value for name, value in vars(self.cleaning).items() if value}
        if not self.cleaning.languages:
            cleaning.pop("language_threshold")
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in cleaning.items()}
        return {**vars(self), "decontaminate": list(self.decontaminate), "cleaning": plain}

    def check(self) -> None:
        """Raise ValueError where a setting is impossible or what it needs is not installed."""
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


def key_of(*parts: object) -> str:
    """A short name for whatever is a function of ``parts``."""
    return hashlib.sha256(json.dumps(parts, default=str).encode()).hexdigest()[:16]


def vocabulary_checksum(tokenizer: MetroT0Tokenizer) -> str:
    """SHA-256 over the pieces in the order of their ids: equal if and only if ids mean the same pieces."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()


def read_unit(work: tuple[Unit, Path], selection: Selection) -> int:
    """Read a unit into its folder, whole or not at all; gives its characters."""
    unit, folder = work
    with whole_piece(folder) as aside:
        stage_unit(unit, aside, selection)
    return int(StagedUnit.open(folder).characters.sum())


@dataclass(frozen=True)
class Parts:
    """What becomes of each document used.

    Attributes:
        held_out: whether it is for validation, ``[documents]``.
        copies: how often it appears in its part, ``[documents]``.
    """

    held_out: np.ndarray
    copies: np.ndarray


@dataclass(frozen=True)
class Job:
    """What to prepare, and how; may be pickled.

    Attributes:
        sources: as they were looked up.
        settings: all of them.
        selection: what becomes of each document that is read.
        units: what to read, in reading order.
    """

    sources: tuple[Source, ...]
    settings: Settings
    selection: Selection
    units: tuple[Unit, ...]

    @classmethod
    def of(cls, sources: Sequence[str | os.PathLike[str]], settings: Settings) -> Job:
        """Check the settings, look the sources up, cut them into units, and read the evaluation suite.

        Raises:
            ValueError: a setting is impossible, or a source or an evaluation file cannot be read.
        """
        settings.check()
        resolved = resolve_sources(sources)
        suites = [Path(path) for path in settings.decontaminate]
        evaluation = EvaluationNgrams.from_files(suites) if suites else None
        for name in settings.weights:
            if name not in {source.name for source in resolved}:
                known = ", ".join(source.name for source in resolved)
                raise ValueError(
                    f"a weight is given for {name}, which is no source; the sources are: {known}"
                )
        units = reading_units(
            resolved,
            split_documents=settings.split_documents,
            text_column=settings.text_column,
            unit_bytes=min(UNIT_BYTES, settings.shard_characters),
        )
        return cls(tuple(resolved), settings, Selection(settings.cleaning, evaluation), tuple(units))

    @cached_property
    def read_names(self) -> list[str]:
        """What each unit's piece of work is called in the group ``read``, a function of all it depends on."""
        evaluation = self.selection.evaluation
        selected = key_of(self.settings.cleaning, evaluation and evaluation.fingerprint())
        return [f"{unit.fingerprint()}-{selected}" for unit in self.units]

    @cached_property
    def state(self) -> str:
        """Changes with the text and the settings."""
        return key_of(self.read_names, self.settings)

    def staged(self, work: WorkFolder) -> StagedCorpus:
        """The documents of all units, exact repeats left out.

        Raises:
            ValueError: there is no text.
        """
        corpus = StagedCorpus(
            [StagedUnit.open(work / f"read/{name}") for name in self.read_names],
            keep_duplicates=self.settings.keep_duplicates,
        )
        if not len(corpus):
            raise empty_corpus([source.name for source in self.sources])
        return corpus

    def leave_near_duplicates_out(self, work: WorkFolder, corpus: StagedCorpus, processes: int) -> None:
        """Have the corpus use no longer what is nearly the same as an earlier document; looked for once."""
        name = f"near-duplicates-{key_of(self.read_names, self.settings.keep_duplicates)}"
        if not work.has(name):
            with work.piece(name) as folder:
                search = NearDuplicates(folder / "scratch")
                sign = functools.partial(_sign, search=search, corpus=corpus)
                units = range(len(corpus.units))
                counts = [count for _, count in map_in_order(sign, units, min(processes, len(units)))]
                np.save(folder / "drop.npy", np.concatenate(search.find(counts, workers=processes)))
        corpus.leave_out(np.load(work / name / "drop.npy"))

    def parts(self, corpus: StagedCorpus) -> Parts:
        """Choose the documents that are held out, and how often the others are trained on.

        Raises:
            ValueError: the corpus is one document.
        """
        settings = self.settings
        held_out = choose_held_out(corpus.characters, settings.validation_fraction, settings.seed)
        by_unit = [settings.weights.get(self.sources[unit.source].name, 1.0) for unit in self.units]
        weights = np.repeat(by_unit, corpus.documents_of_units())
        draws = np.random.default_rng([settings.seed, 1]).random(len(weights))
        copies = np.floor(weights).astype(np.int64) + (draws < weights % 1)
        copies[held_out] = 1
        return Parts(held_out, copies)

    def shards(self, corpus: StagedCorpus, parts: Parts) -> list[list[BatchOfParts]]:
        """The batches of each shard."""

        def batches() -> Iterator[BatchOfParts]:
            for batch in corpus.batches():
                documents = slice(batch.first, batch.first + int(batch.wanted.sum()))
                yield BatchOfParts(batch, parts.held_out[documents], parts.copies[documents])

        return cut_into_shards(batches(), corpus.characters, self.settings.shard_characters)

    def encoding(self, tokenizer: Path) -> Encoding:
        """Blocks by the tokenizer of a folder, which is loaded now: processes forked later share it."""
        vocabulary = len(loaded_tokenizer(tokenizer))
        return Encoding(tokenizer, self.settings.max_length, token_dtype(vocabulary))

    def blocks_group(self, encoding: Encoding) -> str:
        """The group of pieces that hold the shards."""
        return f"blocks-{key_of(self.state, encoding.tokenizer.name)}"

    def finish(
        self,
        work: WorkFolder,
        corpus: StagedCorpus,
        shards: Sequence[Path],
        encoding: Encoding,
        *,
        trained_here: bool,
    ) -> None:
        """Put the output together: datasets, tokenizer, card.

        Raises:
            ValueError: a part has no blocks, or the output already holds something.
        """
        counts = summed_counts(shards)
        for part in PARTS:
            if not counts[part].blocks:
                raise ValueError(
                    f"no block of tokens came out of the {part} documents; add text or change the seed"
                )
        checksums = {part: content_checksum(shards, part) for part in PARTS}
        tokenizer = loaded_tokenizer(encoding.tokenizer)
        card = corpus_card(
            self.sources,
            [unit.source for unit in self.units],
            corpus,
            counts,
            checksums=checksums,
            tokenizer={
                "trained_here": trained_here,
                "lower": tokenizer.lower,
                "normalizer": tokenizer.text_normalizer,
                "vocabulary_size": len(tokenizer),
                "vocabulary_checksum": vocabulary_checksum(tokenizer),
            },
            settings=self.settings.as_card(),
        )
        with work.whole() as whole:
            for part in PARTS:
                link_dataset(shards, part, whole / part, encoding.schema, checksums[part])
            tokenizer.save_pretrained(str(whole / "tokenizer"))
            write_card(card, whole)


def _sign(unit: int, search: NearDuplicates, corpus: StagedCorpus) -> int:
    """Sign the documents of a unit that are used; gives how many they are."""
    return search.sign(unit, corpus.texts_of(unit))


def keep_tokenizer(work: WorkFolder, given: MetroT0Tokenizer) -> Path:
    """Keep a tokenizer in the work folder, under a name that says which it is; gives its folder."""
    made = sorted(map(str, given.init_kwargs.items()))
    folder = work / f"tokenizer-{key_of(vocabulary_checksum(given), made)}"
    if not folder.is_dir():
        with work.piece(folder.name) as aside:
            given.save_pretrained(str(aside))
    return folder
