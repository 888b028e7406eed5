"""What a person sees of a run: a bar on a terminal; where there is none (a file, a pipe) a plain line now and then.

with TrainingProgress(console, "Pretraining", steps, done, parts, time_left=lambda: 90.0) as progress:
    progress.advance()
    progress.show(values, steps)                 # at a log step
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import timedelta
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

# A line, where there is no terminal, when both have passed since the one before.
_LINE_SECONDS = 30.0
_LINE_SHARE = 0.05


class TrainingProgress:
    """A bar, lines, or nothing at all.

    Args:
        console: where to draw; None is silent.
        title: what is being done.
        steps: of the whole run.
        done: of them already done.
        parts: metrics to show.
        time_left: seconds until the run ends; None while that is not known.
        clock: of the plain lines, in seconds.
    """

    def __init__(
        self,
        console: Console | None,
        title: str,
        steps: int,
        done: int,
        parts: tuple[str, ...],
        time_left: Callable[[], float | None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._console, self._title, self._steps, self._done = console, title, steps, done
        self._parts, self._time_left, self._clock = parts, time_left, clock
        self._line_time, self._line_step = float("-inf"), done - steps
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TextColumn("{task.fields[values]}"),
            TimeElapsedColumn(),
            _TimeLeft(time_left),
            console=console or Console(quiet=True),
            refresh_per_second=2,
            disable=console is None or not console.is_terminal,
        )
        self._task = self._progress.add_task(title, total=steps, completed=done, speed="", values="")

    def advance(self) -> None:
        """One step more."""
        self._done += 1
        self._progress.advance(self._task)

    def show(self, values: Mapping[str, float | None], steps: int) -> None:
        """Values of a log step, and the steps of the whole run as they are expected now."""
        self._steps = steps
        shown = [("loss", values.get("loss"))] + [(name, values.get(name)) for name in self._parts]
        text = " ".join(
            f"{name.removesuffix('_loss')} {value:.3f}" for name, value in shown if value is not None
        )
        speed = f"{values.get('tokens_per_second') or 0.0:,.0f} tokens/s"
        self._progress.update(self._task, values=text, speed=speed, total=steps)
        if self._console is not None and not self._console.is_terminal and self._is_line_due():
            self._line_time, self._line_step = self._clock(), self._done
            line = f"{self._title} {self._done}/{steps} {text} {speed} {_left(self._time_left())}".rstrip()
            self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def _is_line_due(self) -> bool:
        if self._done >= self._steps:
            return True
        waited = self._clock() - self._line_time >= _LINE_SECONDS
        return waited and self._done - self._line_step >= _LINE_SHARE * self._steps

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()


class _TimeLeft(ProgressColumn):
    def __init__(self, time_left: Callable[[], float | None]) -> None:
        super().__init__()
        self._time_left = time_left

    def render(self, task: Task) -> Text:
        return Text(_left(self._time_left()))


def _left(seconds: float | None) -> str:
    return "" if seconds is None else f"{timedelta(seconds=max(0, round(seconds)))} left"
