"""Staged documents to Arrow shards of token blocks, and shards to a folder that ``datasets`` reads.

    shards = cut_into_shards(batches, corpus.characters, 100_000_000)
    write_shards(work, "blocks-3f2a", dict(enumerate(shards)), encoding, processes=4)   # a piece of work each
    link_dataset(shard_folders, "train", Path("prepared/train"))       # as datasets.load_from_disk reads it

A shard holds ``train.arrow``, ``validation.arrow`` (streams of the columns ``input_ids`` and ``document``) and
``counts.json``. Which documents a shard holds depends on the corpus alone.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import pyarrow as pa

from metro_t0.data.encoding import BlockBatch, encode_texts
from metro_t0.data.parallel import map_in_order
from metro_t0.data.staging import Batch
from metro_t0.data.work import WorkFolder, link_or_copy

PARTS = ("train", "validation")


@dataclass(frozen=True)
class Encoding:
    """How documents become blocks.

    Attributes:
        tokenizer: its folder.
        max_length: the most tokens of a block.
        dtype: of the token ids.
    """

    tokenizer: Path
    max_length: int
    dtype: type[np.uint16] | type[np.int32]

    @property
    def schema(self) -> pa.Schema:
        """Columns of a shard."""
        ids = pa.list_(pa.from_numpy_dtype(self.dtype))
        return pa.schema([("input_ids", ids), ("document", pa.int32())])


@dataclass(frozen=True)
class BatchOfParts:
    """A staged batch with what becomes of its documents.

    Attributes:
        batch: the staged texts.
        held_out: which of the documents used are for validation, ``[documents]``.
        copies: how often each appears in its part, ``[documents]``.
    """

    batch: Batch
    held_out: np.ndarray
    copies: np.ndarray

    def __str__(self) -> str:
        return f"document {self.batch.first + 1}"


@dataclass
class PartCounts:
    """What a part of a shard holds; ``block_lengths`` counts blocks by their number of tokens."""

    documents: int = 0
    characters: int = 0
    lines: int = 0
    tokens: int = 0
    blocks: int = 0
    unknown_tokens: int = 0
    cut_lines: int = 0
    blank_lines: int = 0
    dropped_blocks: int = 0
    block_lengths: Counter[int] = field(default_factory=Counter)

    def take(self, characters: Sequence[int], blocks: BlockBatch) -> None:
        """Count some documents, given by their lengths, and their blocks."""
        self.documents += len(characters)
        self.characters += sum(characters)
        self.tokens += len(blocks.tokens)
        self.blocks += len(blocks.lengths)
        for name in ("lines", "unknown_tokens", "cut_lines", "blank_lines", "dropped_blocks"):
            setattr(self, name, getattr(self, name) + getattr(blocks, name))
        lengths, numbers = np.unique(blocks.lengths, return_counts=True)
        self.block_lengths.update(dict(zip(lengths.tolist(), numbers.tolist(), strict=True)))

    def add(self, other: PartCounts) -> None:
        """Add the counts of another shard."""
        for name, value in vars(other).items():
            if name == "block_lengths":
                self.block_lengths.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    @classmethod
    def of_json(cls, content: dict[str, object]) -> PartCounts:
        """Read back what ``counts.json`` holds."""
        lengths = content.pop("block_lengths")
        assert isinstance(lengths, dict)
        counted = Counter({int(length): number for length, number in lengths.items()})
        return cls(**content, block_lengths=counted)  # type: ignore[arg-type]


def cut_into_shards(
    batches: Iterable[BatchOfParts], characters: np.ndarray, size: int
) -> list[list[BatchOfParts]]:
    """Group batches until a shard has ``size`` characters; ``characters`` ``[documents]`` of the whole corpus."""
    ends = np.cumsum(characters)
    shards: list[list[BatchOfParts]] = []
    room = 0
    for batch in batches:
        documents = len(batch.held_out)
        if not documents:
            continue
        first, last = batch.batch.first, batch.batch.first + documents - 1
        if room <= 0:
            shards.append([])
            room = size
        shards[-1].append(batch)
        room -= int(ends[last] - ends[first] + characters[first])
    return shards


def write_shards(
    work: WorkFolder,
    group: str,
    shards: Mapping[int, Sequence[BatchOfParts]],
    encoding: Encoding,
    processes: int,
    advance: Callable[[int], None] = lambda characters: None,
) -> list[Path]:
    """Make the shards, by number, that are not there yet; ``advance`` hears of characters done.

    Gives their folders, in the order given.
    """
    named = {shard_name(group, number): shard for number, shard in shards.items()}
    missing = [(name, shard) for name, shard in named.items() if not work.has(name)]
    function = functools.partial(_encode, encoding=encoding)
    results = map_in_order(function, (batch for _, shard in missing for batch in shard), processes)
    for name, shard in missing:
        with work.piece(name) as folder:
            _write_shard(folder, islice(results, len(shard)), encoding, advance)
    return [work / name for name in named]


def shard_name(group: str, number: int) -> str:
    """What the piece of work that holds a shard is called."""
    return f"{group}/{number:06}"


_Encoded = dict[str, tuple[list[int], BlockBatch]]


def _encode(batch: BatchOfParts, encoding: Encoding) -> _Encoded:
    """For each part the lengths of its documents and their blocks."""
    texts = batch.batch.read()
    encoded: _Encoded = {}
    for part, chosen in (("train", ~batch.held_out), ("validation", batch.held_out)):
        places = np.flatnonzero(chosen & (batch.copies > 0))
        if len(places):
            documents = [texts[place] for place in places]
            copies = batch.copies[places]
            blocks = encode_texts(
                documents,
                numbers=(batch.batch.first + places).tolist(),
                tokenizer=encoding.tokenizer,
                max_length=encoding.max_length,
                copies=None if (copies == 1).all() else copies.tolist(),
            )
            encoded[part] = ([len(text) for text in documents], blocks)
    return encoded


def _write_shard(
    folder: Path,
    results: Iterator[tuple[BatchOfParts, _Encoded]],
    encoding: Encoding,
    advance: Callable[[int], None],
) -> None:
    counts = {part: PartCounts() for part in PARTS}
    writers = {part: pa.ipc.new_stream(str(folder / f"{part}.arrow"), encoding.schema) for part in PARTS}
    try:
        for _, encoded in results:
            for part, (characters, blocks) in encoded.items():
                offsets = np.concatenate([[0], np.cumsum(blocks.lengths)]).astype(np.int32)
                ids = pa.ListArray.from_arrays(
                    pa.array(offsets), pa.array(blocks.tokens, encoding.schema[0].type.value_type)
                )
                columns = [ids, pa.array(blocks.documents, pa.int32())]
                writers[part].write_batch(pa.record_batch(columns, schema=encoding.schema))
                counts[part].take(characters, blocks)
                advance(sum(characters))
    finally:
        for writer in writers.values():
            writer.close()
    content = json.dumps({part: vars(of_part) for part, of_part in counts.items()})
    (folder / "counts.json").write_text(content, encoding="utf-8")


def summed_counts(shards: Sequence[Path]) -> dict[str, PartCounts]:
    """Counts of each part over all shards."""
    total = {part: PartCounts() for part in PARTS}
    for shard in shards:
        content = json.loads((shard / "counts.json").read_text(encoding="utf-8"))
        for part in PARTS:
            total[part].add(PartCounts.of_json(content[part]))
    return total


def content_checksum(shards: Sequence[Path], part: str) -> str:
    """SHA-256 over the tokens, block lengths and document numbers of a part, however they are cut into shards."""
    hashes = [hashlib.sha256() for _ in range(3)]
    for shard in shards:
        with pa.memory_map(str(shard / f"{part}.arrow")) as file:
            for batch in pa.ipc.open_stream(file):
                ids, documents = batch.columns
                values = (ids.flatten(), ids.value_lengths(), documents)
                for content, column in zip(hashes, values, strict=True):
                    content.update(column.to_numpy(zero_copy_only=False).astype("<i4", copy=False).tobytes())
    return hashlib.sha256("".join(content.hexdigest() for content in hashes).encode()).hexdigest()


def link_dataset(shards: Sequence[Path], part: str, folder: Path, schema: pa.Schema, checksum: str) -> None:
    """Put the Arrow files of a part together as a folder that ``datasets.load_from_disk`` reads."""
    from datasets import Dataset

    filled = [shard for shard in shards if _has_rows(shard / f"{part}.arrow")]
    with _silent_datasets():
        Dataset(pa.Table.from_batches([], schema=schema)).save_to_disk(str(folder))
    for file in folder.glob("*.arrow"):
        file.unlink()
    total = max(len(filled), 1)
    names = [f"data-{number:05}-of-{total:05}.arrow" for number in range(total)]
    if not filled:
        # Without a file there would be nothing to tell the columns by.
        pa.ipc.new_stream(str(folder / names[0]), schema).close()
    for shard, name in zip(filled, names, strict=False):
        link_or_copy(shard / f"{part}.arrow", folder / name)
    state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    state["_data_files"] = [{"filename": name} for name in names]
    state["_fingerprint"] = checksum[:16]
    (folder / "state.json").write_text(json.dumps(state, indent=2, sort_keys=True), encoding="utf-8")


def _has_rows(file: Path) -> bool:
    with pa.memory_map(str(file)) as stream:
        return any(batch.num_rows for batch in pa.ipc.open_stream(stream))


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
