"""Where a task's rows come from: a file on this machine or a dataset of the Hugging Face Hub.

    source = LocalFile(Path("rte.jsonl.gz"))          # or HubDataset("aps/super_glue", "rte", "validation")
    source.count()                                    # number of rows
    for row in source.rows(limit=100): ...            # dictionaries, column -> value

    data_root_file(root, "super_glue", "rte", "validation")   # root/super_glue/rte/validation.jsonl.gz

Files are JSON lines (``.jsonl``, ``.json``, ``.ndjson``), CSV (``.csv``, ``.tsv``, first line = names of the
columns) or Parquet (``.parquet``); all but Parquet may be compressed (``.gz``, ``.xz``, ``.zst``). A column
of a CSV whose values are all whole numbers, or all decimal ones, holds numbers (an empty field in it is
None); all others hold text. Everything is read as a stream.
"""

from __future__ import annotations

import csv
import functools
import itertools
import json
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from metro_t0.data.compressed import compression_of, file_errors, open_bytes

Row = dict[str, Any]

FORMATS = {
    ".jsonl": "jsonl",
    ".json": "jsonl",
    ".ndjson": "jsonl",
    ".csv": "csv",
    ".tsv": "csv",
    ".parquet": "parquet",
}

_WHOLE_NUMBER = re.compile(r"-?(0|[1-9]\d{0,17})")
_DECIMAL_NUMBER = re.compile(r"-?\d+\.\d+")


class Source(Protocol):
    """Rows that can be read again and again, in the same order."""

    @property
    def split(self) -> str:
        """Name of the split, for reports."""
        ...

    def rows(self, limit: int | None = None) -> Iterator[Row]:
        """Reads the rows (the first ``limit``); raises ValueError naming file and line of what is broken."""
        ...

    def count(self) -> int:
        """Number of rows; raises ValueError as :meth:`rows` does."""
        ...


@dataclass(frozen=True)
class LocalFile:
    """A file of rows.

    Attributes:
        path: its suffixes say format and compression.
        split: name of the split; by default the file's name without suffixes.
    """

    path: Path
    split: str = ""

    def __post_init__(self) -> None:
        if not self.split:
            object.__setattr__(self, "split", self.path.name.split(".")[0])
        if not self.path.is_file():
            raise ValueError(f"{self.path}: no such file")
        _format_of(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def rows(self, limit: int | None = None) -> Iterator[Row]:
        """Reads the rows, see :class:`Source`."""
        readers = {"jsonl": _read_json_lines, "csv": _read_csv, "parquet": _read_parquet}
        with file_errors(self.path):
            yield from itertools.islice(readers[_format_of(self.path)](self.path), limit)

    def count(self) -> int:
        """Number of rows, see :class:`Source`; all but Parquet are read through for it."""
        if _format_of(self.path) == "parquet":
            from pyarrow import parquet

            with file_errors(self.path):
                return int(parquet.read_metadata(self.path).num_rows)
        return sum(1 for _ in self.rows())


@dataclass(frozen=True)
class HubDataset:
    """A dataset of the Hugging Face Hub, through ``datasets``.

    Attributes:
        id: e.g. ``aps/super_glue``; a folder of data files on this machine serves as well.
        subset: configuration name, e.g. ``rte``.
        split: e.g. ``train``.
    """

    id: str
    subset: str | None = None
    split: str = "train"

    def __str__(self) -> str:
        return f"{self.id}" + (f"/{self.subset}" if self.subset else "") + f" ({self.split})"

    @functools.cached_property
    def _dataset(self) -> Any:
        import datasets

        try:
            return datasets.load_dataset(self.id, self.subset, split=self.split)
        except Exception as error:  # the Hub's client, the builders and the network each raise their own
            raise ValueError(f"Hub dataset {self}: {_reason(error)}") from error

    def class_names(self) -> dict[str, list[str]]:
        """Names of the classes of the columns that have them, in their order; downloads the dataset at first."""
        return _class_names(self._dataset.features)

    def peek(self) -> tuple[Row, dict[str, list[str]]]:
        """The first row, and the class names; streamed, so that the dataset is not downloaded.

        Raises:
            ValueError: says why there is none.
        """
        import datasets

        try:
            rows = datasets.load_dataset(self.id, self.subset, split=self.split, streaming=True)
            return dict(next(iter(rows))), _class_names(rows.features)
        except StopIteration:
            raise ValueError(f"Hub dataset {self}: holds no rows") from None
        except Exception as error:  # as in _dataset
            raise ValueError(f"Hub dataset {self}: {_reason(error)}") from error

    def rows(self, limit: int | None = None) -> Iterator[Row]:
        """Reads the rows, see :class:`Source`; the first call downloads the dataset."""
        yield from itertools.islice(self._dataset, limit)

    def count(self) -> int:
        """Number of rows, see :class:`Source`."""
        return len(self._dataset)


@dataclass(frozen=True)
class SplitsTogether:
    """Several splits of one dataset as one source, one after the other.

    Attributes:
        parts: at least one.
    """

    parts: tuple[Source, ...]

    def __str__(self) -> str:
        return " and ".join(str(part) for part in self.parts)

    @property
    def split(self) -> str:
        """Names of the splits."""
        return "+".join(part.split for part in self.parts)

    def rows(self, limit: int | None = None) -> Iterator[Row]:
        """Reads the rows, see :class:`Source`."""
        yield from itertools.islice(
            itertools.chain.from_iterable(part.rows(limit) for part in self.parts), limit
        )

    def count(self) -> int:
        """Number of rows, see :class:`Source`."""
        return sum(part.count() for part in self.parts)


def data_root_splits(root: Path, dataset: str, subset: str | None) -> dict[str, LocalFile]:
    """All splits of a dataset under a data root (see :func:`data_root_file`), by name; empty when it is not there."""
    found: dict[str, LocalFile] = {}
    for path in sorted(_data_root_folder(root, dataset, subset).glob("*")):
        if path.is_file() and _is_readable(path):
            name = path.name.split(".")[0]
            if name not in found or path.name == f"{name}.jsonl.gz":
                found[name] = LocalFile(path, name)
    return found


def data_root_file(root: Path, dataset: str, subset: str | None, split: str) -> LocalFile:
    """The file of a split under a data root, ``ROOT/<dataset>/<subset or default>/<split>.jsonl.gz``.

    Other formats and compressions are found too; the first in the order of their names is taken.

    Raises:
        ValueError: there is none; names the splits there are.
    """
    found = data_root_splits(root, dataset, subset)
    if split in found:
        return found[split]
    there = f" (splits: {', '.join(found)})" if found else ""
    raise ValueError(f"{_data_root_folder(root, dataset, subset)}: no split {split!r} there{there}")


def _data_root_folder(root: Path, dataset: str, subset: str | None) -> Path:
    return root / dataset / (subset or "default")


def hub_fault() -> str:
    """Why the Hub cannot be reached; empty when it can. One try, where loading a dataset makes dozens, with pauses."""
    from huggingface_hub import constants, get_session

    try:
        get_session().head(constants.ENDPOINT, timeout=10)
    except Exception as error:  # the client's, the proxy's and the network's own
        return f"the Hub ({constants.ENDPOINT}) cannot be reached: {_reason(error)}"
    return ""


def _class_names(features: Any) -> dict[str, list[str]]:
    import datasets

    return {
        name: list(of.names) for name, of in (features or {}).items() if isinstance(of, datasets.ClassLabel)
    }


def _reason(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _stem(path: Path) -> Path:
    return path.with_suffix("") if compression_of(path) else path


def _is_readable(path: Path) -> bool:
    return _stem(path).suffix in FORMATS


def _format_of(path: Path) -> str:
    if not _is_readable(path):
        known = ", ".join(FORMATS)
        raise ValueError(f"{path}: unknown kind of file (known: {known}, also with .gz, .xz or .zst)")
    if compression_of(path) and _stem(path).suffix == ".parquet":
        raise ValueError(f"{path}: Parquet compresses by itself: unpack the file")
    return FORMATS[_stem(path).suffix]


def _lines(path: Path) -> Iterator[str]:
    """The lines of a text file, with their ends."""
    with open_bytes(path) as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = raw[error.start]
                raise ValueError(
                    f"{path}, line {number}: not UTF-8 (byte 0x{byte:02x} at its position {error.start + 1})"
                ) from None
            yield line.removeprefix("\ufeff") if number == 1 else line


def _read_json_lines(path: Path) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), start=1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{path}, line {number}: not valid JSON ({error})") from None
        if not isinstance(row, dict):
            raise ValueError(f"{path}, line {number}: not a JSON object but {type(row).__name__}")
        yield row


def _read_fields(path: Path) -> Iterator[list[str]]:
    # The default bound of 128 KiB a field is less than some documents; the setting is the process's own.
    csv.field_size_limit(min(sys.maxsize, 2**31 - 1))
    reader = csv.reader(_lines(path), delimiter="\t" if _stem(path).suffix == ".tsv" else ",", strict=True)
    width = 0
    try:
        for fields in reader:
            if not fields:
                continue
            width = width or len(fields)
            if len(fields) != width:
                raise ValueError(
                    f"{path}, line {reader.line_num}: {len(fields)} fields where the first line names {width}"
                )
            yield fields
    except csv.Error as error:
        raise ValueError(f"{path}, line {reader.line_num}: not valid CSV ({error})") from None


def _read_csv(path: Path) -> Iterator[Row]:
    convert = _column_types(path)
    rows = _read_fields(path)
    names = next(rows, [])
    if len(set(names)) < len(names):
        raise ValueError(f"{path}: two columns of the same name in its first line")
    for fields in rows:
        yield {name: of(value) for name, of, value in zip(names, convert, fields, strict=True)}


def _column_types(path: Path) -> list[Callable[[str], Any]]:
    rows = _read_fields(path)
    whole = [True] * len(next(rows, []))
    decimal, filled = list(whole), [False] * len(whole)
    for fields in rows:
        for column, value in enumerate(fields):
            if not value or not (whole[column] or decimal[column]):
                continue
            filled[column] = True
            is_whole = _WHOLE_NUMBER.fullmatch(value) is not None
            whole[column] = whole[column] and is_whole
            decimal[column] = decimal[column] and (is_whole or _DECIMAL_NUMBER.fullmatch(value) is not None)
    return [
        str if not has or not (w or d) else functools.partial(_number, int if w else float)
        for w, d, has in zip(whole, decimal, filled, strict=True)
    ]


def _number(kind: Callable[[str], Any], value: str) -> Any:
    return kind(value) if value else None


def _read_parquet(path: Path) -> Iterator[Row]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except pa.ArrowException as error:
        raise ValueError(f"{path}: not valid Parquet ({error})") from error
