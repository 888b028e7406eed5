"""A study's folder: who works on which run, what the study was begun with, and what is done.

    folder = StudyFolder(Path("study"))
    with folder.only("mixtures"):               # one process at a time; others wait
        ...
    with folder.claimed("narrow/base/seed-1") as mine:
        if mine: ...                            # no other process works on it

OUT/study.json            the study, spelled out, and facts that were measured once: speeds, scale
    mixtures/NAME/        finetuning data, built once
    runs/NAME/            pretrain/, and for each finetuning its run and its evaluation
    records/NAME.json     what remains of a run (record.py)

Locks are the operating system's own on files under ``locks/``: they end with the process that holds them, however it
ends. Any number of processes, on one machine or on several that share the folder, so work on one study.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metro_t0.evaluation.records import read_json, write_text

FORMAT_VERSION = 1


class StudyFolder:
    """See this module's first lines.

    Args:
        path: of the folder; made when something is first written.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)

    def run(self, name: str) -> Path:
        """A run's working folder."""
        return self.path / "runs" / name

    def mixture(self, finetuning: str) -> Path:
        """The built data of a finetuning."""
        return self.path / "mixtures" / finetuning

    def stored(self) -> dict[str, Any] | None:
        """What the study was begun with; None where nothing was begun.

        Raises:
            ValueError: it cannot be read, or the folder holds something else.
        """
        file = self.path / "study.json"
        if file.is_file():
            stored = read_json(file)
            if stored.get("format_version") != FORMAT_VERSION:
                raise ValueError(f"{file} has a format that this metro-t0 does not read: give another folder")
            return stored
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{self.path} is a file; give a folder for the study")
        if self.path.is_dir() and any(one.name != "locks" for one in self.path.iterdir()):
            raise ValueError(f"{self.path} already holds something else than a study; give another folder")
        return None

    def begin(self, values: Mapping[str, Any]) -> None:
        """Write ``study.json``, whole."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            text = json.dumps({"format_version": FORMAT_VERSION, **values}, indent=1, ensure_ascii=False)
            write_text(self.path / "study.json", text + "\n")
        except OSError as error:
            raise ValueError(f"cannot write to {self.path}: {error.strerror}") from error

    @contextmanager
    def only(self, what: str) -> Iterator[None]:
        """Wait until no other process is inside."""
        with self._lock_file(what) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    @contextmanager
    def claimed(self, run: str) -> Iterator[bool]:
        """Whether the run is this process's to make, for as long as it is inside."""
        with self._lock_file(run) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield False
                return
            yield True

    @contextmanager
    def _lock_file(self, name: str) -> Iterator[Any]:
        locks = self.path / "locks"
        try:
            locks.mkdir(parents=True, exist_ok=True)
            file = (locks / name.replace("/", "__")).open("a")
        except OSError as error:
            raise ValueError(f"cannot write to {self.path}: {error.strerror}") from error
        with file:
            yield file
