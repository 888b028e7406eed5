"""A bar on a terminal, plain lines in a pipe."""

from __future__ import annotations

import io
import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console
from small_runs import SMALL_RUN

from metro_t0.training.progress import TrainingProgress

RUN = [*SMALL_RUN, "training.steps=12", "training.validation_rows=0"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize(
    ("steps", "seconds", "shown"),
    [
        # A twentieth of 200 steps takes 10 s: 30 s between lines are rarer.
        (200, 1.0, [1, 31, 61, 91, 121, 151, 181, 200]),
        # A twentieth of 40 steps takes 40 s: rarer than 30 s.
        (40, 20.0, [1, *range(3, 40, 2), 40]),
        (3, 0.1, [1, 3]),
    ],
)
def test_a_line_now_and_then(steps: int, seconds: float, shown: list[int]) -> None:
    clock, file = Clock(), io.StringIO()
    progress = TrainingProgress(
        Console(file=file), "Training", steps, 0, ("lm_loss",), time_left=lambda: 3725.0, clock=clock
    )
    with progress:
        for _ in range(steps):
            progress.advance()
            progress.show({"loss": 2.5, "lm_loss": 1.25, "tokens_per_second": 1234.4}, steps)
            clock.now += seconds
    lines = file.getvalue().splitlines()
    assert lines == [
        f"Training {step}/{steps} loss 2.500 lm 1.250 1,234 tokens/s 1:02:05 left" for step in shown
    ]


def command(corpus: Path, run: Path) -> list[str]:
    words = ["pretrain", "--preset", "tiny", "--data", str(corpus), "--out", str(run), *RUN]
    return [sys.executable, "-m", "metro_t0.cli.main", *words]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "TERM": "xterm", "COLUMNS": "150"}


def test_a_pipe_gets_plain_lines(corpus: Path, tmp_path: Path) -> None:
    found = subprocess.run(
        command(corpus, tmp_path / "run"), env=environment(), capture_output=True, text=True, check=True
    )
    assert "\x1b" not in found.stderr and "\r" not in found.stderr
    lines = [line for line in found.stderr.splitlines() if line.startswith("Pretraining ")]
    assert [line.split()[1] for line in lines] == ["1/12", "12/12"]
    assert re.search(
        r"loss [\d.]+ auxiliary [\d.]+ rtd [\d.]+ lm [\d.]+ [\d,]+ tokens/s 0:00:00 left$", lines[-1]
    )
    assert found.stdout == f"{tmp_path / 'run'}\n"


def test_a_terminal_gets_a_bar(corpus: Path, tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(corpus, tmp_path / "run"), env=environment(), stdout=subprocess.DEVNULL, stderr=theirs
    )
    os.close(theirs)
    said = b""
    try:
        while more := os.read(ours, 65536):
            said += more
    except OSError:  # how a pseudo-terminal says that its other end is closed
        pass
    os.close(ours)
    assert process.wait() == 0
    text = said.decode(errors="replace")
    assert "\x1b[" in text and "12/12" in text and "tokens/s" in text and "left" in text
    assert text.count("Pretraining 1/12") == 0
