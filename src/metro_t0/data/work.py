"""The hidden folder beside an output in which long work is done piece by piece, so that it can be gone on with.

    with WorkFolder(Path("prepared")) as work:            # .prepared.work
        if not work.has("read/3f2a"):
            with work.piece("read/3f2a") as folder:       # written aside, renamed when whole
                (folder / "texts.arrow").write_bytes(...)
        with work.whole() as folder: ...                  # becomes prepared; the work folder goes

A piece that is there is whole. What a piece depends on belongs into its name: work under another name is done anew,
and ``forget`` removes what no longer has one. Work that took seconds is not kept after an error (``keep``).
"""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TextIO

from metro_t0.data.output import check_vacant

_ASIDE = ".part"
_PATIENCE = 3.0


class WorkFolder:
    """See this module's first lines.

    An error of the system on the way (a disk that fills) becomes a ValueError that names the folder.

    Attributes:
        keep: whether finished pieces outlive an error; set it once there is enough of them.

    Args:
        out: the output folder; must not hold anything.

    Raises:
        ValueError: ``out`` holds something, its parent cannot be written to, or another process is at work on it.
    """

    def __init__(self, out: Path) -> None:
        self.out = out.expanduser().absolute()
        check_vacant(self.out)
        self.path = self.out.with_name(f".{self.out.name}.work")
        self.keep = False
        self._made = [parent for parent in self.out.parents if not parent.exists()]

    def __enter__(self) -> WorkFolder:
        self.continued = self.path.is_dir()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "lock").open("w")
        except OSError as error:
            raise ValueError(f"cannot write to {self.out.parent}: {error.strerror}") from error
        # Workers of a process that was killed hold the lock until they notice, within a second or two.
        patience = time.monotonic() + _PATIENCE
        while not _locked(self._lock):
            if time.monotonic() > patience:
                self._lock.close()
                raise ValueError(
                    f"another process is writing {self.out}: wait for it, or choose another folder"
                )
            time.sleep(0.1)
        for aside in self.path.rglob(f"*{_ASIDE}"):
            shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(self.path / "whole", ignore_errors=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or not self.keep:
            shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()
        if error is not None:
            for parent in self._made:
                # Not there, or not empty: either way not ours to remove.
                with suppress(OSError):
                    parent.rmdir()
            if isinstance(error, OSError):
                # Arrow says more than what it was.
                reason = os.strerror(error.errno) if error.errno else str(error)
                self._fail(f"cannot write {self.path}: {reason}", error)
            if self.keep and isinstance(error, ValueError):
                self._fail(str(error), error)

    def _fail(self, message: str, cause: BaseException) -> None:
        kept = f" (what is done is kept in {self.path}; the same command goes on from there)"
        raise ValueError(message + kept * self.keep) from cause

    def has(self, name: str) -> bool:
        """Whether a piece is there, and so whole."""
        return (self.path / name).is_dir()

    def __truediv__(self, name: str) -> Path:
        return self.path / name

    def piece(self, name: str) -> AbstractContextManager[Path]:
        """A folder to write a piece into; it gets its name when the block ends."""
        return whole_piece(self.path / name)

    def forget(self, group: str, names: Collection[str]) -> None:
        """Remove the pieces of a group (a folder of pieces) that are not among ``names``."""
        folder = self.path / group
        for entry in folder.iterdir() if folder.is_dir() else ():
            if entry.name not in names:
                shutil.rmtree(entry, ignore_errors=True)

    @contextmanager
    def whole(self) -> Iterator[Path]:
        """A folder to put the output together in; it becomes ``out`` when the block ends."""
        with self.piece("whole") as folder:
            yield folder
        check_vacant(self.out)
        if self.out.exists():
            self.out.rmdir()
        (self.path / "whole").replace(self.out)


def _locked(file: TextIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def whole_piece(path: Path) -> Iterator[Path]:
    """A folder to write into, which becomes ``path`` when the block ends and goes on an error.

    For a worker process; whoever has the work folder asks it.
    """
    aside = path.with_name(path.name + _ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir(parents=True)
    try:
        yield aside
        aside.replace(path)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def link_or_copy(source: Path, target: Path) -> None:
    """The same content under a second name, without a copy where the file system can."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
