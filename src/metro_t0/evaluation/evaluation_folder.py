"""The folder that an evaluation fills, template by template, so that a killed one goes on where it stood.

    with EvaluationFolder(Path("results"), asked_for) as folder:
        if (done := folder.predictions("RTE", "can we infer")) is None:
            folder.add(TemplatePredictions(...))
        folder.finish(results)

``evaluation.json`` says what was asked for (model, data and templates by their checksums, settings): predictions of
something else are never taken for its own. ``results.json`` is there when everything was predicted.
"""

from __future__ import annotations

import fcntl
import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from metro_t0.evaluation.predictions import (
    TemplatePredictions,
    predictions_file,
    read_template_predictions,
    write_predictions,
)
from metro_t0.evaluation.records import read_json, write_text


def check_unfinished(out: Path) -> None:
    """Refuses a folder that holds the results of an evaluation in which nothing failed.

    Raises:
        ValueError: it does, or it is a file, or holds what no evaluation wrote.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a directory for the results")
    if (out / "results.json").exists() and not read_json(out / "results.json").get("failures"):
        raise ValueError(f"{out} already holds results.json; give another directory, or remove it first")


class EvaluationFolder:
    """See this module's first lines.

    Args:
        out: made if need be.
        asked_for: what decides all predictions; JSON values.
        tasks: name of each task -> checksum of what it asks. Further tasks may come in a later call.

    Raises:
        ValueError: ``out`` holds results, or predictions of something else (names the first difference), or another
        process is writing it, or it cannot be written to.
    """

    def __init__(self, out: Path, asked_for: Mapping[str, Any], tasks: Mapping[str, str]) -> None:
        self.path = out
        # As it comes back from the file: tuples as lists.
        self._asked_for = json.loads(json.dumps({**asked_for, "tasks": tasks}))

    def __enter__(self) -> Self:
        check_unfinished(self.path)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = (self.path / "evaluation.json").open("a+", encoding="utf-8")
        except OSError as error:
            raise ValueError(f"cannot write to {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise ValueError(
                f"another process is writing {self.path}: wait for it, or give another directory"
            ) from None
        try:
            self._begin()
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.close()
        if isinstance(error, OSError):
            raise ValueError(
                f"cannot write to {self.path}: {error.strerror}; the same command goes on"
            ) from error

    def _begin(self) -> None:
        self._lock.seek(0)
        text = self._lock.read()
        try:
            before = json.loads(text) if text else {}
        except ValueError:
            before = {}  # cut while it was written: nothing was predicted yet
        for key, now in self._asked_for.items() if before else ():
            if key != "tasks" and before.get(key) != now:
                self._refuse(key, before.get(key), now)
        tasks = before.get("tasks", {})
        for name, checksum in self._asked_for["tasks"].items():
            if tasks.setdefault(name, checksum) != checksum:
                self._refuse(f"rows and templates of {name}", tasks[name], checksum)
        self._lock.truncate(0)
        self._lock.write(json.dumps({**self._asked_for, "tasks": tasks}, indent=2) + "\n")
        self._lock.flush()

    def _refuse(self, what: str, before: Any, now: Any) -> None:
        raise ValueError(
            f"{self.path} holds an evaluation that was begun with {what} {_short(before)}, and it is "
            f"{_short(now)} now: give the same again to go on with it, or another directory"
        )

    def predictions(self, task: str, template: str) -> TemplatePredictions | None:
        """What an earlier call predicted; None when there is nothing, or nothing that can be read."""
        path = predictions_file(self.path / "predictions", task, template)
        try:
            return read_template_predictions(path) if path.is_file() else None
        except ValueError:
            return None

    def add(self, predictions: TemplatePredictions) -> None:
        """Keeps the predictions of a template."""
        write_predictions(self.path / "predictions", predictions)

    def finish(self, results: Mapping[str, Any]) -> None:
        """Writes ``results.json``, whole."""
        write_text(self.path / "results.json", json.dumps(results, indent=2, ensure_ascii=False) + "\n")


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) < 60 else text[:57] + "..."
