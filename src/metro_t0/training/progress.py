"""The progress bar of a run: where it is, how fast, and how the loss parts stand at the last log step."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """A bar on the console, or nothing at all.

    Args:
        console: where to draw; None is silent.
        title: what is being done.
        steps: of the whole run.
        done: of them already done.
        parts: metrics to show.
    """

    def __init__(
        self, console: Console | None, title: str, steps: int, done: int, parts: tuple[str, ...]
    ) -> None:
        self._parts = parts
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(compact=True),
            console=console or Console(quiet=True),
            refresh_per_second=2,
            disable=console is None,
        )
        self._task = self._progress.add_task(title, total=steps, completed=done, speed="", values="")

    def advance(self) -> None:
        """One step more."""
        self._progress.advance(self._task)

    def show(self, values: Mapping[str, float | None], tokens_per_second: float) -> None:
        """Values of a log step."""
        shown = [("loss", values.get("loss"))] + [(name, values.get(name)) for name in self._parts]
        text = " ".join(
            f"{name.removesuffix('_loss')} {value:.3f}" for name, value in shown if value is not None
        )
        self._progress.update(self._task, values=text, speed=f"{tokens_per_second:,.0f} tokens/s")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()
