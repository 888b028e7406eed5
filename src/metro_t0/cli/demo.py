"""``metro-t0 demo``: the whole recipe on the documentation of this Python installation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*(s|m|min)?")


def demo(
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder to make; must not hold anything yet.")
    ] = Path("metro-t0-demo"),
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="TIME",
            help="About how long it may take: 90, 60s, 5m. By default under eight minutes on two CPU cores; a "
            "shorter time makes corpus, tasks and training smaller.",
        ),
    ] = None,
) -> None:
    """Go from raw text to zero-shot answers on this Python installation's own documentation.

    Reads docstrings, trains a tokenizer, pretrains a tiny METRO model, finetunes it on prompts, ranks answers to
    kinds of questions that it never saw, and writes a page with curves, scores and examples. Nothing is downloaded.
    The page's path is the last line printed.

    \b
    Everything, in under eight minutes on two CPU cores:
      metro-t0 demo
    A quick look:
      metro-t0 demo --out quick --budget 60s
    """
    seconds = None if budget is None else parse_seconds(budget)
    from rich.console import Console

    from metro_t0.demo.pipeline import run_demo
    from metro_t0.training.interruption import RunStoppedError

    try:
        print(run_demo(out, budget_seconds=seconds, console=Console(stderr=True)))
    except RunStoppedError as stopped:
        # Its runs can go on, the demo as a whole cannot.
        raise KeyboardInterrupt from stopped


def parse_seconds(text: str) -> float:
    """Seconds of ``90``, ``60s``, ``5m`` or ``5min``; raises ValueError for anything else."""
    match = _BUDGET.fullmatch(text.strip().lower())
    if match is None:
        raise ValueError(f"{text!r} is no length of time: write 90, 60s or 5m")
    return float(match[1]) * (60 if match[2] in ("m", "min") else 1)
