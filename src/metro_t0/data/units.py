"""Sources cut into units of reading: what one process reads at a time, and what is kept when work is interrupted.

    for unit in reading_units(resolve_sources(["books/", "big.jsonl"]), split_documents="file"):
        for document in unit.documents(): ...

A unit is some consecutive files of a source, a part of a large one that is not compressed (JSON lines, and text whose
documents end at blank lines), or a whole Hub dataset. How sources are cut depends on nothing but the files.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from metro_t0.data.compressed import compression_of, file_errors
from metro_t0.data.corpora import Document, Piece, Source, SplitDocuments, format_of, read_piece

UNIT_BYTES = 64_000_000
# What compression makes of text, about; only how even units are depends on it.
_COMPRESSION = 3


@dataclass(frozen=True)
class Unit:
    """What one process reads at a time.

    Attributes:
        source: number of its source.
        origin: the source itself, where it is no list of files; else None.
        pieces: files and parts of files, in reading order.
        split_documents, text_column: as :func:`metro_t0.data.corpora.read_documents` takes them.
    """

    source: int
    origin: Source | None
    pieces: tuple[Piece, ...]
    split_documents: SplitDocuments
    text_column: str

    def __str__(self) -> str:
        if self.origin is not None:
            return self.origin.name
        more = f" and {len(self.pieces) - 1} more files" if len(self.pieces) > 1 else ""
        return f"{self.pieces[0]}{more}"

    def documents(self) -> Iterator[Document]:
        """Stream the unit's documents; raises ValueError as :func:`metro_t0.data.corpora.read_documents` does."""
        settings = {"split_documents": self.split_documents, "text_column": self.text_column}
        if self.origin is not None:
            yield from self.origin.documents(**settings)  # type: ignore[arg-type]
        for piece in self.pieces:
            yield from read_piece(piece, **settings)  # type: ignore[arg-type]

    def fingerprint(self) -> str:
        """Changes with the files' names, sizes and times, with the cut and the settings."""
        parts = [self.split_documents, self.text_column, self.origin.name if self.origin else ""]
        for piece in self.pieces:
            facts = piece.path.stat()
            parts.append(
                f"{piece.path.resolve()}|{facts.st_size}|{facts.st_mtime_ns}|{piece.start}|{piece.end}"
            )
        return hashlib.sha256("\n".join(parts).encode("utf-8", "surrogateescape")).hexdigest()[:20]


def reading_units(
    sources: Sequence[Source],
    *,
    split_documents: SplitDocuments,
    text_column: str,
    unit_bytes: int = UNIT_BYTES,
) -> list[Unit]:
    """Cut sources into units of about ``unit_bytes`` of text, in reading order.

    Raises:
        ValueError: a file cannot be read.
    """
    units: list[Unit] = []
    for number, source in enumerate(sources):
        if source.kind != "files":
            units.append(Unit(number, source, (), split_documents, text_column))
            continue
        waiting: list[Piece] = []
        size = 0
        for path in source.files:
            for piece, piece_size in _pieces(path, split_documents, unit_bytes):
                if waiting and size + piece_size > unit_bytes:
                    units.append(Unit(number, None, tuple(waiting), split_documents, text_column))
                    waiting, size = [], 0
                waiting.append(piece)
                size += piece_size
        if waiting:
            units.append(Unit(number, None, tuple(waiting), split_documents, text_column))
    return units


def _pieces(path: Path, split_documents: SplitDocuments, unit_bytes: int) -> Iterator[tuple[Piece, int]]:
    """A file, or its parts, each with about how many bytes of text it holds."""
    with file_errors(path):
        size = path.stat().st_size
        kind = format_of(path)
        splittable = kind == "json lines" or (kind == "text" and split_documents == "blank-line")
        if compression_of(path) or not splittable or size <= unit_bytes or not path.is_file():
            yield Piece(path), size * (_COMPRESSION if compression_of(path) else 1)
            return
        start = 0
        while start < size:
            end = _document_end(path, start + unit_bytes, size, blank=kind == "text")
            yield Piece(path, start, end), end - start
            start = end


def _document_end(path: Path, place: int, size: int, *, blank: bool) -> int:
    """The first end of a document at or after ``place``: of a line, or of a line that is blank."""
    if place >= size:
        return size
    with path.open("rb") as stream:
        stream.seek(place)
        stream.readline()  # the rest of a line that began before
        while blank and (line := stream.readline()) and line.strip():
            pass
        return stream.tell()
