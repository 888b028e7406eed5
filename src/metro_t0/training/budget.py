"""Budgets as people think of them, read from one line of text.

    parse_budget("20m")            # Budget(seconds=1200.0)
    parse_budget("500M-tokens")    # Budget(tokens=500_000_000)
    parse_budget("2000")           # Budget(steps=2000); "2000-steps" too
    budget_overrides("20m")        # ["training.budget_seconds=1200.0"]

What a time budget does to a run is in schedule.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

_NUMBER = r"(\d+(?:\.\d+)?)\s*"
_TIME = re.compile(_NUMBER + r"(s|m|min|h|d)")
_TOKENS = re.compile(_NUMBER + r"([kmb]?)[-\s]?tokens?", re.IGNORECASE)
_STEPS = re.compile(r"(\d+)(?:[-\s]?steps?)?")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}
_THOUSANDS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9}
_SETTINGS = ("training.steps", "training.budget_seconds", "training.budget_tokens")


@dataclass(frozen=True)
class Budget:
    """How long to train; one of the three is given."""

    seconds: float | None = None
    tokens: int | None = None
    steps: int | None = None


def parse_budget(text: str) -> Budget:
    """Time (``90s``, ``20m``, ``8h``, ``2d``), tokens (``500M-tokens``; K, M, B) or steps (``2000``, ``2000-steps``).

    Raises:
        ValueError: the text is none of these, or nothing remains of it.
    """
    text = text.strip()
    if time := _TIME.fullmatch(text):
        budget = Budget(seconds=float(time[1]) * _SECONDS[time[2]])
    elif tokens := _TOKENS.fullmatch(text):
        budget = Budget(tokens=round(float(tokens[1]) * _THOUSANDS[tokens[2].lower()]))
    elif steps := _STEPS.fullmatch(text):
        budget = Budget(steps=int(steps[1]))
    else:
        raise ValueError(
            f"{text!r} is no budget: write a time (90s, 20m, 8h, 2d), tokens (500M-tokens) or steps (2000-steps)"
        )
    if not (budget.seconds or budget.tokens or budget.steps):
        raise ValueError(f"a budget of {text} holds nothing: give more")
    return budget


def parse_seconds(text: str) -> float:
    """Seconds of a budget that can only be a time; a bare number is seconds.

    Raises:
        ValueError: it is something else.
    """
    try:
        budget = parse_budget(text)
    except ValueError:
        budget = Budget()
    if text.strip().isdigit() and budget.steps is not None:
        return float(budget.steps)
    if budget.seconds is None:
        raise ValueError(f"{text!r} is no length of time: write 90, 60s, 5m or 2h")
    return budget.seconds


def budget_overrides(text: str | None, overrides: Iterable[str] = ()) -> list[str]:
    """The overrides of a run's settings that a budget stands for, ahead of those given beside it.

    Args:
        text: as ``parse_budget`` reads it; None adds nothing.
        overrides: ``section.key=value``.

    Raises:
        ValueError: the text is no budget, or another override says how long to train too.
    """
    overrides = list(overrides)
    if text is None:
        return overrides
    for override in overrides:
        name = override.partition("=")[0].strip()
        if name in _SETTINGS:
            raise ValueError(f"--budget and {name} both say how long to train: give one of the two")
    budget = parse_budget(text)
    kinds: tuple[Literal["seconds", "tokens", "steps"], ...] = ("steps", "seconds", "tokens")
    values = [(name, getattr(budget, kind)) for name, kind in zip(_SETTINGS, kinds, strict=True)]
    return [f"{name}={value}" for name, value in values if value is not None] + overrides
