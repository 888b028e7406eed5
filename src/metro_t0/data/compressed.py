"""Files that may be compressed, opened as a stream of bytes; what goes wrong becomes one line that names the file.

with file_errors(path), open_bytes(path) as stream:
    for line in stream: ...
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, cast

COMPRESSION_SUFFIXES = (".gz", ".bz2", ".xz", ".zst")
_BUFFER_BYTES = 1 << 20


def compression_of(path: Path) -> str:
    """The suffix that says how a file is compressed, lower case; empty when it is not."""
    suffix = path.suffix.lower()
    return suffix if suffix in COMPRESSION_SUFFIXES else ""


def open_bytes(path: Path) -> IO[bytes]:
    """Open a plain or compressed file for reading its content."""
    compression = compression_of(path)
    if compression == ".gz":
        return cast(IO[bytes], gzip.open(path, "rb"))
    if compression == ".bz2":
        return cast(IO[bytes], bz2.open(path, "rb"))
    if compression == ".xz":
        return cast(IO[bytes], lzma.open(path, "rb"))
    if compression == ".zst":
        import pyarrow as pa

        stream = pa.CompressedInputStream(pa.OSFile(str(path)), "zstd")
        return cast(IO[bytes], io.BufferedReader(stream, _BUFFER_BYTES))
    return path.open("rb", buffering=_BUFFER_BYTES)


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Turn what the system and the decompressors raise into a ValueError that names the file."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile) as error:
        raise ValueError(f"{path}: the compressed file is damaged or ends early ({error})") from error
    except OSError as error:
        if error.errno is None:  # Arrow's decompressor raises a bare OSError
            raise ValueError(f"{path}: the compressed file is damaged or ends early ({error})") from error
        raise ValueError(f"{path}: cannot be read ({error.strerror or error})") from error
