"""From sources of text to a prepared corpus: a tokenizer, token blocks for training and a held-out part.

::

    corpus = prepare(["books/", "pydocs"], Path("prepared"), vocab_size=8192)
    corpus = PreparedCorpus.load(Path("prepared"))
    corpus.train[0]["input_ids"]        # <s> ... </s>, at most 512 tokens of one document

The folder holds ``train/`` and ``validation/`` (Arrow, as `datasets.load_from_disk` reads them), ``tokenizer/``
and ``card.json``, which says what went in and what came out. It appears whole at the end or not at all.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from metro_t0.data.corpora import SplitDocuments, resolve_sources
from metro_t0.data.encoding import (
    BlockBatch,
    TextBatch,
    available_processes,
    batch_texts,
    encode_documents,
    token_dtype,
)
from metro_t0.data.output import check_vacant, new_directory
from metro_t0.data.staging import StagedDocuments, choose_held_out, sample_lines, stage_documents

if TYPE_CHECKING:
    from datasets import Dataset

    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

FORMAT_VERSION = 1
DEFAULT_VOCAB_SIZE = 8192
# Below this, starting processes takes longer than they save.
_CHARACTERS_WORTH_PROCESSES = 1_000_000
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
        card: what went in and what came out: sources, counts, settings, the vocabulary's checksum.
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
        train, validation = (load_from_disk(str(path / split)) for split in ("train", "validation"))
        return cls(path, train, validation, path / "tokenizer", card)


def prepare(
    sources: Sequence[str | os.PathLike[str]],
    out: Path,
    *,
    tokenizer: Path | None = None,
    vocab_size: int | None = None,
    lower: bool = True,
    split_documents: SplitDocuments = "file",
    text_column: str = "text",
    validation_fraction: float = 0.01,
    max_length: int = 512,
    seed: int = 0,
    processes: int | None = None,
    console: Console | None = None,
) -> PreparedCorpus:
    """Read the sources, train or take a tokenizer, and write token blocks and a held-out part to ``out``.

    Repeated documents are kept once. The same sources, settings and seed give the same blocks.

    Args:
        sources: what to read; see ``metro_t0.data.corpora``.
        out: folder to make; must not hold anything yet.
        tokenizer: folder of a tokenizer to take; without it one is trained on the training part.
        vocab_size: pieces of the tokenizer to train (8192 unless given); the embedding has 512 rows more.
        lower: train an uncased tokenizer.
        split_documents: what ends a document of a text file, the file or a blank line.
        text_column: the column of JSON lines, Parquet and Hub datasets that holds the text.
        validation_fraction: share of the characters to hold out, in whole documents: at least one, at most about
            1000 blocks.
        max_length: the most tokens of a block, ``<s>`` included.
        seed: of the held-out part and of the tokenizer's training.
        processes: how many tokenise (all cores unless given); the result does not depend on it.
        console: where to show progress; None shows nothing.

    Raises:
        ValueError: a setting is impossible, a source cannot be read, there is no text or only one document, the
            tokenizer cannot be read or trained, or ``out`` already holds something.
    """
    out = Path(out)
    _check_settings(tokenizer, vocab_size, validation_fraction, max_length, processes)
    check_vacant(out)
    resolved = resolve_sources(sources)
    given = _load_tokenizer(tokenizer) if tokenizer else None
    with new_directory(out) as folder, _progress(console) as progress:
        reading = progress.add_task("Reading documents", total=None)
        staged = stage_documents(
            resolved,
            folder / "documents.arrow",
            split_documents=split_documents,
            text_column=text_column,
            on_document=lambda _: progress.advance(reading),
        )
        progress.update(reading, total=len(staged), completed=len(staged))
        held_out = choose_held_out(staged.characters, validation_fraction, seed)
        if given is None:
            given = _train_tokenizer(
                staged, held_out, folder, vocab_size or DEFAULT_VOCAB_SIZE, lower, seed, progress
            )
        else:
            given.save_pretrained(str(folder / "tokenizer"))
        parts = _write_blocks(staged, held_out, folder, given, max_length, processes, progress)
        staged.path.unlink()
        settings = {
            "seed": seed,
            "max_length": max_length,
            "validation_fraction": validation_fraction,
            "split_documents": split_documents,
            "text_column": text_column,
        }
        card = _card(staged, given, parts, settings, trained=tokenizer is None)
        (folder / "card.json").write_text(
            json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
        )
    return PreparedCorpus.load(out)


def _check_settings(
    tokenizer: Path | None,
    vocab_size: int | None,
    validation_fraction: float,
    max_length: int,
    processes: int | None,
) -> None:
    if tokenizer is not None and vocab_size is not None:
        raise ValueError("give either a tokenizer to take or a vocabulary size to train one, not both")
    if not 0 < validation_fraction < 1:
        raise ValueError(f"the validation fraction must lie between 0 and 1, not {validation_fraction}")
    if max_length < 3:
        raise ValueError(f"the maximum length must be at least 3 (<s>, a token, </s>), not {max_length}")
    if processes is not None and processes < 1:
        raise ValueError(f"the number of processes must be at least 1, not {processes}")


# ---------------------------------------------------------------- tokenizer


def _load_tokenizer(path: Path) -> MetroT0Tokenizer:
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

    if not Path(path).is_dir():
        raise ValueError(f"the tokenizer folder {path} does not exist")
    try:
        return MetroT0Tokenizer.from_pretrained(str(path))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} holds no tokenizer that can be read: {reason}") from error


def _train_tokenizer(
    staged: StagedDocuments,
    held_out: np.ndarray,
    folder: Path,
    vocab_size: int,
    lower: bool,
    seed: int,
    progress: Progress,
) -> MetroT0Tokenizer:
    from metro_t0.tokenization.training import train_tokenizer

    task = progress.add_task(f"Training a tokenizer of {vocab_size} pieces", total=None)
    lines = sample_lines(staged, held_out, max_characters=_TOKENIZER_CHARACTERS, seed=seed)
    tokenizer = train_tokenizer(lines, vocab_size, folder / "tokenizer", lower=lower)
    progress.update(task, total=1, completed=1)
    return tokenizer


def vocabulary_checksum(tokenizer: MetroT0Tokenizer) -> str:
    """SHA-256 over the pieces in the order of their ids: equal if and only if ids mean the same pieces."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    return hashlib.sha256("\n".join(pieces).encode()).hexdigest()


# ---------------------------------------------------------------- blocks


class _Part:
    """One part, training or validation: its blocks go to an Arrow file, its counts are summed."""

    def __init__(self, scratch: Path, dtype: type[np.uint16] | type[np.int32], max_length: int) -> None:
        self._scratch = scratch
        self._schema = pa.schema(
            [("input_ids", pa.list_(pa.from_numpy_dtype(dtype))), ("document", pa.int32())]
        )
        self._writer = pa.ipc.new_stream(str(scratch), self._schema)
        self._lengths = np.zeros(max_length + 1, np.int64)
        self.counts = dict.fromkeys(
            ("documents", "characters", "lines", "tokens", "blocks", "unknown_tokens"), 0
        )
        self.dropped = dict.fromkeys(("cut_lines", "blank_lines", "dropped_blocks"), 0)

    def write(self, texts: TextBatch, blocks: BlockBatch) -> None:
        offsets = np.concatenate([[0], np.cumsum(blocks.lengths)]).astype(np.int32)
        ids = pa.ListArray.from_arrays(pa.array(offsets), pa.array(blocks.tokens))
        self._writer.write_batch(pa.record_batch([ids, pa.array(blocks.documents)], schema=self._schema))
        self._lengths += np.bincount(blocks.lengths, minlength=len(self._lengths))
        self.counts["documents"] += len(texts.texts)
        self.counts["characters"] += texts.characters
        self.counts["lines"] += blocks.lines
        self.counts["tokens"] += len(blocks.tokens)
        self.counts["blocks"] += len(blocks.lengths)
        self.counts["unknown_tokens"] += blocks.unknown_tokens
        self.dropped["cut_lines"] += blocks.cut_lines
        self.dropped["blank_lines"] += blocks.blank_lines
        self.dropped["dropped_blocks"] += blocks.dropped_blocks

    def save(self, folder: Path) -> None:
        """Write the blocks as a dataset folder and remove the scratch file."""
        from datasets import Dataset

        self._writer.close()
        with _silent_datasets():
            Dataset.from_file(str(self._scratch)).save_to_disk(str(folder))
        self._scratch.unlink()

    def histogram(self, bins: int = 16) -> dict[str, int]:
        """Blocks by length, as ``{"2-32": 17, ...}``."""
        edges = np.linspace(0, len(self._lengths) - 1, bins + 1).round().astype(int)
        return {
            f"{low + 1}-{high}": int(self._lengths[low + 1 : high + 1].sum())
            for low, high in pairwise(edges.tolist())
            if high > low
        }


def _write_blocks(
    staged: StagedDocuments,
    held_out: np.ndarray,
    folder: Path,
    tokenizer: MetroT0Tokenizer,
    max_length: int,
    processes: int | None,
    progress: Progress,
) -> dict[str, _Part]:
    total = int(staged.characters.sum())
    if processes is None:
        processes = available_processes() if total >= _CHARACTERS_WORTH_PROCESSES else 1
    dtype = token_dtype(len(tokenizer))
    parts = {name: _Part(folder / f"{name}.arrow", dtype, max_length) for name in ("train", "validation")}
    task = progress.add_task("Tokenising", total=total)
    batches = batch_texts(staged, held_out)
    for texts, blocks in encode_documents(
        batches, folder / "tokenizer", max_length=max_length, processes=processes
    ):
        parts["validation" if texts.held_out else "train"].write(texts, blocks)
        progress.advance(task, texts.characters)
    for name, part in parts.items():
        if not part.counts["blocks"]:
            raise ValueError(
                f"no block of tokens came out of the {name} documents; add text or change the seed"
            )
        part.save(folder / name)
    return parts


# ---------------------------------------------------------------- card and progress


def _card(
    staged: StagedDocuments,
    tokenizer: MetroT0Tokenizer,
    parts: dict[str, _Part],
    settings: dict[str, Any],
    *,
    trained: bool,
) -> dict[str, Any]:
    summed = {key: sum(part.counts[key] for part in parts.values()) for key in parts["train"].counts}
    dropped = {key: sum(part.dropped[key] for part in parts.values()) for key in parts["train"].dropped}
    cut_lines = dropped.pop("cut_lines")
    duplicates = sum(count.duplicates for count in staged.sources)
    return {
        "format_version": FORMAT_VERSION,
        **summed,
        "cut_lines": cut_lines,
        "dropped": {"duplicate_documents": duplicates, **dropped},
        "train": {**parts["train"].counts, "block_lengths": parts["train"].histogram()},
        "validation": {**parts["validation"].counts, "block_lengths": parts["validation"].histogram()},
        "sources": [
            {
                "source": count.source.name,
                "documents": count.documents,
                "characters": count.characters,
                "duplicate_documents": count.duplicates,
                "files": len(count.source.files),
                "skipped_files": len(count.source.skipped),
            }
            for count in staged.sources
        ],
        "tokenizer": {
            "trained_here": trained,
            "lower": tokenizer.lower,
            "vocabulary_size": len(tokenizer),
            "vocabulary_checksum": vocabulary_checksum(tokenizer),
        },
        "settings": settings,
        "made_with": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("metro-t0", "sentencepiece", "datasets")},
        },
    }


@contextmanager
def _silent_datasets() -> Iterator[None]:
    """Keep the progress bars of `datasets` out of ours."""
    from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    silent_already = are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if not silent_already:
            enable_progress_bars()


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
