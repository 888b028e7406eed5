"""Lines of standard input as they come, for a verb that stands in a pipe.

for lines in windows(sys.stdin.buffer, 64):      # of a file 64 at a time; of a pipe what has come, without waiting
    ...
"""

from __future__ import annotations

import io
import select
from collections.abc import Iterator
from typing import BinaryIO

_READ_BYTES = 1 << 16
_LOOKS_UP_SECONDS = 0.2


def windows(stream: BinaryIO, size: int) -> Iterator[list[str]]:
    """The lines that are not blank, in order, at most ``size`` at once.

    Waits only where no whole line has come. The last line needs no line feed.

    Args:
        stream: read in pieces and not beyond what is handed out, except for a started line.
        size: lines in a window.

    Raises:
        ValueError: a line is not UTF-8; those before it have been handed out.
    """
    waiting: list[str] = []
    rest = b""
    number = 0
    piece: bytes | None = None
    wrong: ValueError | None = None
    while piece != b"" and wrong is None:
        while len(waiting) >= size or (waiting and not _has_more(stream)):
            yield waiting[:size]
            del waiting[:size]
        # A Ctrl-C that comes just before a read begins would be heard when it ends, which may be never.
        while not _has_more(stream, seconds=_LOOKS_UP_SECONDS):
            pass
        # At most one read of the system: a pipe gives what it holds.
        piece = stream.read1(_READ_BYTES)  # type: ignore[attr-defined]
        *whole, rest = (rest + piece).split(b"\n")
        if not piece and rest:
            whole, rest = [rest], b""
        for line in whole:
            number += 1
            try:
                text = line.removesuffix(b"\r").decode("utf-8")
            except UnicodeDecodeError as error:
                wrong = ValueError(f"standard input is not UTF-8: line {number}: {error}")
                break
            if text.strip():
                waiting.append(text)
    while waiting:
        yield waiting[:size]
        del waiting[:size]
    if wrong is not None:
        raise wrong


def _has_more(stream: BinaryIO, seconds: float = 0) -> bool:
    """Whether a read would return at once, or will within some seconds."""
    try:
        return bool(select.select([stream], [], [], seconds)[0])
    except (io.UnsupportedOperation, OSError, ValueError):
        return True  # nothing to wait for: it is not the system's
