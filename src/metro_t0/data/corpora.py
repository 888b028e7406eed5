"""Readers of raw text: files, folders, patterns, Hub datasets, the Python installation's documentation.

Used by ``metro_t0.data.prepare``; alone it is one call::

    for document in read_documents(["books/", "news-*.jsonl.zst", "hf:owner/name:subset@train", "pydocs"]):
        document.text, document.source

A source is

- a text file (``.txt``, ``.text``, ``.md``, ``.rst``): the whole file is one document, or with
  ``split_documents="blank-line"`` each run of lines between blank lines is;
- a file of JSON lines (``.jsonl``, ``.ndjson``, ``.json``) or a Parquet file (``.parquet``): a record is
  a document;
- a file of WikiExtractor's output (``wiki_00``), in either of its forms: an article is a document;
- a folder, read recursively in the order of the names, or a pattern such as ``data/**/*.txt``;
- ``hf:NAME[:SUBSET][@SPLIT]``, a dataset of the Hugging Face Hub, streamed (``train`` unless given);
- ``pydocs``: the docstrings and language reference of this Python installation (``./pydocs`` is a folder).

Files may be compressed (``.gz``, ``.xz``, ``.zst``, ``.bz2``). Everything is streamed: at most one document (8 MB of
one that is larger), one batch of Parquet rows or one line of JSON is held at a time.
"""

from __future__ import annotations

import glob
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.parquet

from metro_t0.data import wikiextractor
from metro_t0.data.compressed import COMPRESSION_SUFFIXES, compression_of, file_errors, open_bytes

SplitDocuments = Literal["file", "blank-line"]

TEXT_SUFFIXES = (".txt", ".text", ".md", ".rst")
JSON_LINES_SUFFIXES = (".jsonl", ".ndjson", ".json")
PARQUET_SUFFIXES = (".parquet",)

_READ_BUFFER_BYTES = 1 << 20
# Larger text files are read in parts, so that no file has to fit into memory.
_LARGEST_DOCUMENT_BYTES = 8 << 20
_PARQUET_BATCH_ROWS = 256
_HUB_SOURCE = re.compile(r"hf:(?P<name>[^:@]+)(:(?P<subset>[^@]+))?(@(?P<split>.+))?")
_WIKIEXTRACTOR_NAME = re.compile(r"wiki_\d+")
_LONE_SURROGATES = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Document:
    """One document, or a further part of one too large to hold.

    Attributes:
        text: its text.
        source: where it comes from, a file's path, ``hf:...`` or ``pydocs:LIBRARY``.
        continued: the document before went on here.
    """

    text: str
    source: str
    continued: bool = False


@dataclass(frozen=True, slots=True)
class Piece:
    """A file, or the bytes from ``start`` up to ``end`` of one that is not compressed."""

    path: Path
    start: int = 0
    end: int | None = None

    def __str__(self) -> str:
        return str(self.path) if self.end is None else f"{self.path} (bytes {self.start} to {self.end})"


@dataclass(frozen=True, slots=True)
class Source:
    """One source as the user named it, looked up but not yet read.

    ``files`` are the files it stands for, in reading order, and ``skipped`` those of a folder or pattern
    whose suffix no reader knows; both are empty for Hub datasets and ``pydocs``.
    """

    name: str
    kind: Literal["files", "hub", "pydocs"]
    files: tuple[Path, ...] = ()
    skipped: tuple[Path, ...] = ()

    def documents(
        self, *, split_documents: SplitDocuments = "file", text_column: str = "text"
    ) -> Iterator[Document]:
        """Stream the documents, blank ones left out; may be called again to read the source again.

        Raises:
            ValueError: a file cannot be read, is broken or not UTF-8, or has no such text column.
        """
        if self.kind == "pydocs":
            documents = _read_pydocs()
        elif self.kind == "hub":
            documents = _read_hub(self.name, text_column)
        else:
            documents = (
                document
                for path in self.files
                for document in read_piece(
                    Piece(path), split_documents=split_documents, text_column=text_column
                )
            )
        yield from _not_blank(documents)


def read_documents(
    sources: Sequence[str | os.PathLike[str]],
    *,
    split_documents: SplitDocuments = "file",
    text_column: str = "text",
) -> Iterator[Document]:
    """Stream the documents of several sources, one after the other.

    Args:
        sources: what to read; the module's first lines list the kinds.
        split_documents: what ends a document of a text file, the file or a blank line.
        text_column: the column of JSON lines, Parquet and Hub datasets that holds the text.

    Raises:
        ValueError: at once, if a source does not exist, matches nothing or has an unknown suffix; while
            reading, if a file is broken, not UTF-8 or lacks the text column; at the end, if there was none.
    """
    resolved = resolve_sources(sources)
    if split_documents not in ("file", "blank-line"):
        raise ValueError(f"split_documents must be 'file' or 'blank-line', not {split_documents!r}")
    return _read_all(resolved, split_documents, text_column)


def read_piece(
    piece: Piece, *, split_documents: SplitDocuments = "file", text_column: str = "text"
) -> Iterator[Document]:
    """Stream the documents of a file or of a part of it, blank ones left out; see :func:`read_documents`."""
    return _not_blank(_read_file(piece, split_documents, text_column))


def _not_blank(documents: Iterator[Document]) -> Iterator[Document]:
    return (document for document in documents if document.text and not document.text.isspace())


def _read_all(
    sources: Sequence[Source], split_documents: SplitDocuments, text_column: str
) -> Iterator[Document]:
    found = False
    for source in sources:
        for document in source.documents(split_documents=split_documents, text_column=text_column):
            found = True
            yield document
    if not found:
        raise empty_corpus([source.name for source in sources])


def empty_corpus(names: Sequence[str]) -> ValueError:
    """The error for sources without a single word; ``names`` as the user gave them."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return ValueError(f"the corpus is empty: there is no text in {shown}")


# ---------------------------------------------------------------- looking sources up


def resolve_sources(sources: Sequence[str | os.PathLike[str]]) -> list[Source]:
    """Look sources up without reading them; a file that several of them name is read once, for the first.

    Raises:
        ValueError: a source does not exist, matches nothing, or no reader knows its suffix.
    """
    if isinstance(sources, str | os.PathLike):
        sources = [sources]
    if not sources:
        raise ValueError("no source of text: name a file, a folder, a pattern, hf:owner/name or pydocs")
    taken: set[Path] = set()
    resolved = []
    for given in sources:
        source = _resolve(os.fspath(given))
        if source.kind == "files":
            fresh = []
            for path in source.files:
                if (real := path.resolve()) not in taken:
                    taken.add(real)
                    fresh.append(path)
            source = Source(source.name, "files", tuple(fresh), source.skipped)
        resolved.append(source)
    return resolved


def _resolve(name: str) -> Source:
    if name == "pydocs":
        return Source(name, "pydocs")
    if name.startswith("hf:"):
        if not _HUB_SOURCE.fullmatch(name):
            raise ValueError(f"{name}: a Hub dataset is written hf:owner/name[:subset][@split]")
        return Source(name, "hub")
    path = Path(name).expanduser()
    if path.is_dir():
        return _known_files(name, _walk(path), f"{name}: the folder holds")
    if path.exists():
        if not format_of(path):
            raise ValueError(f"{name}: unknown suffix {path.suffix!r}; {_readable_suffixes()}")
        return Source(name, "files", (path,))
    if glob.has_magic(name):
        # Path.glob takes no absolute pattern.
        matches = sorted(map(Path, glob.glob(str(path), recursive=True)))  # noqa: PTH207
        if not matches:
            raise ValueError(f"{name}: the pattern matches nothing")
        files = [file for match in matches for file in (_walk(match) if match.is_dir() else [match])]
        return _known_files(name, files, f"{name}: the pattern matches")
    raise ValueError(
        f"{name} does not exist; a source is a file, a folder, a pattern, hf:owner/name or pydocs"
    )


def _known_files(name: str, files: Sequence[Path], subject: str) -> Source:
    known = [path for path in files if format_of(path)]
    skipped = [path for path in files if not format_of(path)]
    if not known:
        raise ValueError(f"{subject} no file that can be read; {_readable_suffixes()}")
    return Source(name, "files", tuple(known), tuple(skipped))


def _walk(folder: Path) -> list[Path]:
    found = []
    for directory, subdirectories, names in os.walk(folder):
        subdirectories[:] = sorted(entry for entry in subdirectories if not entry.startswith("."))
        found += [Path(directory, entry) for entry in sorted(names) if not entry.startswith(".")]
    return found


def format_of(path: Path) -> Literal["text", "json lines", "parquet", "wikiextractor", ""]:
    """What kind of file its name says it is; empty when no reader knows it."""
    name = path.name.lower().removesuffix(compression_of(path))
    if _WIKIEXTRACTOR_NAME.fullmatch(name):
        return "wikiextractor"
    if name.endswith(TEXT_SUFFIXES):
        return "text"
    if name.endswith(JSON_LINES_SUFFIXES):
        return "json lines"
    if name.endswith(PARQUET_SUFFIXES):
        return "parquet"
    return ""


def _readable_suffixes() -> str:
    suffixes = ", ".join(TEXT_SUFFIXES + JSON_LINES_SUFFIXES + PARQUET_SUFFIXES)
    compressed = ", ".join(COMPRESSION_SUFFIXES)
    return f"readable are {suffixes} and WikiExtractor's wiki_00, each plain or with {compressed} after it"


# ---------------------------------------------------------------- files


def _read_file(piece: Piece, split_documents: SplitDocuments, text_column: str) -> Iterator[Document]:
    kind = format_of(piece.path)
    with file_errors(piece.path):
        if kind == "parquet":
            yield from _read_parquet(piece.path, text_column)
        elif kind == "json lines":
            yield from _read_json_lines(piece, text_column)
        elif kind == "wikiextractor":
            for text in wikiextractor.documents(piece.path):
                yield Document(text, str(piece.path))
        elif split_documents == "blank-line":
            yield from _read_text_by_blank_line(piece)
        else:
            yield from _read_text(piece.path)


def _decode(raw: bytes, path: Path, offset: int) -> str:
    """Decode UTF-8; ``offset`` is where ``raw`` begins in the (decompressed) file."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path} is not UTF-8: byte 0x{raw[error.start]:02x} at offset {offset + error.start}; "
            "convert it first (iconv -t UTF-8)"
        ) from error
    return text.removeprefix("\ufeff") if offset == 0 else text


def _read_text(path: Path) -> Iterator[Document]:
    """A file as one document; what is too large to hold is cut, where it can be at the end of a line."""
    offset, waiting = 0, b""
    with closing(open_bytes(path)) as stream:
        while block := stream.read(_READ_BUFFER_BYTES):
            waiting += block
            if len(waiting) >= _LARGEST_DOCUMENT_BYTES:
                cut = _last_break(waiting)
                yield Document(_decode(waiting[:cut], path, offset), str(path), offset > 0)
                offset, waiting = offset + cut, waiting[cut:]
    if waiting:
        yield Document(_decode(waiting, path, offset), str(path), offset > 0)


def _last_break(raw: bytes) -> int:
    """Behind the last line's end, else the last space, else before the last character."""
    for separator in (b"\n", b" "):
        if place := raw.rfind(separator) + 1:
            return place
    end = len(raw) - 1
    while end > len(raw) - 4 and raw[end] & 0xC0 == 0x80:
        end -= 1
    return end


def _decoded_lines(piece: Piece) -> Iterator[str]:
    offset = piece.start
    with closing(open_bytes(piece.path)) as stream:
        if offset:
            stream.seek(offset)
        for raw in stream:
            yield _decode(raw, piece.path, offset).rstrip("\r\n")
            offset += len(raw)
            if piece.end is not None and offset >= piece.end:
                return


def _read_text_by_blank_line(piece: Piece) -> Iterator[Document]:
    lines: list[str] = []
    for line in _decoded_lines(piece):
        if line and not line.isspace():
            lines.append(line)
        elif lines:
            yield Document("\n".join(lines), str(piece.path))
            lines = []
    if lines:
        yield Document("\n".join(lines), str(piece.path))


def _read_json_lines(piece: Piece, text_column: str) -> Iterator[Document]:
    for number, line in enumerate(_decoded_lines(piece), start=1):
        if not line or line.isspace():
            continue
        try:
            text = _text_of_record(line, text_column)
        except ValueError as error:
            raise ValueError(f"{piece.path}:{number + _lines_before(piece)}: {error}") from error
        yield Document(text, str(piece.path))


def _lines_before(piece: Piece) -> int:
    """Counted only for a message."""
    lines, left = 0, piece.start
    with piece.path.open("rb") as stream:
        while left and (block := stream.read(min(left, _READ_BUFFER_BYTES))):
            lines, left = lines + block.count(b"\n"), left - len(block)
    return lines


def _text_of_record(line: str, text_column: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"broken JSON ({error}); mend or remove the line") from error
    if not isinstance(record, dict):
        raise ValueError(f"expected one JSON object a line, found {type(record).__name__}")
    if text_column not in record:
        raise ValueError(_no_such_column(text_column, list(record)))
    return _text_value(record[text_column], text_column)


def _read_parquet(path: Path, text_column: str) -> Iterator[Document]:
    with tempfile.TemporaryFile() as copy:
        if compression_of(path):
            # Parquet is read from its end, so a compressed file has to be unpacked first.
            with closing(open_bytes(path)) as stream:
                shutil.copyfileobj(stream, copy, _READ_BUFFER_BYTES)
            copy.seek(0)
        try:
            table = pa.parquet.ParquetFile(copy if compression_of(path) else path)
            if text_column not in table.schema_arrow.names:
                raise ValueError(f"{path}: {_no_such_column(text_column, table.schema_arrow.names)}")
            with closing(table):
                for batch in table.iter_batches(_PARQUET_BATCH_ROWS, columns=[text_column]):
                    for value in batch.column(0).to_pylist():
                        yield Document(_text_of_column(value, text_column, str(path)), str(path))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ValueError(f"{path}: broken Parquet file ({error})") from error


def _text_value(value: Any, text_column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        kind = type(value).__name__
        raise ValueError(f"column {text_column!r} holds {kind}, not text; choose another text column")
    # JSON can spell half a surrogate pair, which no UTF-8 writer accepts.
    return _LONE_SURROGATES.sub("\ufffd", value)


def _text_of_column(value: Any, text_column: str, where: str) -> str:
    try:
        return _text_value(value, text_column)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _no_such_column(text_column: str, columns: Sequence[str]) -> str:
    shown = ", ".join(columns[:20]) + (", ..." if len(columns) > 20 else "")
    return f"no column {text_column!r}; the columns are: {shown or '(none)'}"


# ---------------------------------------------------------------- Hub datasets and the Python installation


def _read_hub(name: str, text_column: str) -> Iterator[Document]:
    match = _HUB_SOURCE.fullmatch(name)
    assert match is not None
    for row in _stream_hub(name, match["name"], match["subset"], match["split"] or "train"):
        if text_column not in row:
            raise ValueError(f"{name}: {_no_such_column(text_column, list(row))}")
        yield Document(_text_of_column(row[text_column], text_column, name), name)


def _stream_hub(source: str, name: str, subset: str | None, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    # `datasets` and its file systems raise dozens of kinds of errors for a wrong name or a lost connection.
    try:
        yield from datasets.load_dataset(name, subset, split=split, streaming=True)
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"cannot read the Hub dataset {source}: {reason[:300]}") from error


def _read_pydocs() -> Iterator[Document]:
    from metro_t0.data.pydocs import iterate_pydocs

    for entry in iterate_pydocs():
        yield Document(entry.text, f"pydocs:{entry.library}")
