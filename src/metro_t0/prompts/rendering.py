"""What becomes of a rendering: a training example or a counted drop; and the check that every template gives some.

reason = drop_reason(rendered, check_choices=True)      # None: an example
counts = Counts()
counts.drop(reason)
check(tasks, check_choices=True)                         # ValueError names a template that gives nothing
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from metro_t0.prompts.tasks import Task
from metro_t0.prompts.template import Rendered, Template

EMPTY = "empty"
NO_TARGET = "no target"
TOO_MANY_PARTS = "more than one |||"
NOT_A_CHOICE = "target not among the choices"
NO_TOKENS = "nothing left of the target after tokenizing"
TOO_LONG = "too long"

HISTOGRAM_EDGES = tuple(1 << power for power in range(1, 15))
"""A token histogram counts texts of up to so many tokens, and in its last place those of more."""


def histogram_labels() -> list[str]:
    """What the places of a token histogram stand for: ``1-2``, ``3-4``, ``5-8``, ..., ``16385-``."""
    starts = [1, *(edge + 1 for edge in HISTOGRAM_EDGES)]
    return [f"{start}-{end}" for start, end in zip(starts, [*HISTOGRAM_EDGES, ""], strict=True)]


def histogram(lengths: np.ndarray) -> list[int]:
    """How many of ``lengths`` (``[texts]``, tokens) fall in each place."""
    places = np.searchsorted(HISTOGRAM_EDGES, lengths, side="left")
    return np.bincount(places, minlength=len(HISTOGRAM_EDGES) + 1).tolist()


def _no_lengths() -> list[int]:
    return [0] * (len(HISTOGRAM_EDGES) + 1)


@dataclass
class Counts:
    """What became of the rows of one template.

    Attributes:
        rows: rows that were rendered: ``examples`` and the sum of ``dropped``.
        examples: what they gave.
        input_tokens, target_tokens: of the examples as they are kept, specials included.
        truncated_inputs, truncated_targets: examples that were cut.
        dropped: reason -> rows.
        input_histogram, target_histogram: of lengths before anything was cut, specials included; see
            ``HISTOGRAM_EDGES``.
    """

    rows: int = 0
    examples: int = 0
    input_tokens: int = 0
    target_tokens: int = 0
    truncated_inputs: int = 0
    truncated_targets: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    input_histogram: list[int] = field(default_factory=_no_lengths)
    target_histogram: list[int] = field(default_factory=_no_lengths)

    def add(self, other: Counts) -> None:
        """Adds the counts of another template, or of other rows."""
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, list):
                setattr(self, name, [a + b for a, b in zip(mine, value, strict=True)])
            else:
                setattr(self, name, mine + value)

    def as_json(self) -> dict[str, Any]:
        """Plain values; ``Counts.of_json`` reads them."""
        return {**vars(self), "dropped": dict(sorted(self.dropped.items()))}

    @classmethod
    def of_json(cls, content: Mapping[str, Any]) -> Counts:
        """What :meth:`as_json` gave."""
        return cls(**{**content, "dropped": Counter(content["dropped"])})

    def as_card(self) -> dict[str, Any]:
        """As the card holds them: histograms as ``{"3-4": texts}``, without empty places."""
        card = self.as_json()
        for name in ("input_histogram", "target_histogram"):
            card[name] = {
                label: number for label, number in zip(histogram_labels(), card[name], strict=True) if number
            }
        return card


def drop_reason(rendered: Rendered, check_choices: bool) -> str | None:
    """Why a rendering is no training example; None when it is one."""
    if rendered.num_parts > 2:
        return TOO_MANY_PARTS
    if not rendered.input:
        return EMPTY
    if not rendered.target:
        return NO_TARGET
    if (
        check_choices
        and rendered.answer_choices is not None
        and rendered.target not in rendered.answer_choices
    ):
        return NOT_A_CHOICE
    return None


def check(tasks: Sequence[Task], *, check_choices: bool) -> None:
    """Renders train rows of each task until every template has given an example; see ``Mixture.check``."""
    for task in tasks:
        for template in task.templates:
            template.check()
        waiting = dict(enumerate(task.templates))
        failures: dict[int, tuple[str, Rendered]] = {}
        number = 0
        for index, row in enumerate(task.rows("train")):
            number = index + 1
            for position, template in list(waiting.items()):
                rendered = task.render(template, row, index, "train")
                reason = drop_reason(rendered, check_choices)
                if reason is None:
                    del waiting[position]
                else:
                    failures.setdefault(position, (reason, rendered))
            if not waiting:
                break
        if not number:
            raise ValueError(f"task {task.name!r}: {task.source('train')} holds no rows")
        for position, template in waiting.items():
            raise ValueError(_fruitless(task, template, *failures[position], number))


def _fruitless(task: Task, template: Template, reason: str, rendered: Rendered, rows: int) -> str:
    what = {
        EMPTY: "renders no input",
        NO_TARGET: "renders no target: after the input it needs '|||' and the answer",
        TOO_MANY_PARTS: "renders more than one '|||'; only one may stand between input and target",
        NOT_A_CHOICE: f"answers {_short(rendered.target)}, which is not among its choices "
        f"{[_short(choice) for choice in rendered.answer_choices or []][:6]}; mend one of them, leave the "
        "template out under 'use:', or set 'check_choices: false'",
    }[reason]
    every = "its one row" if rows == 1 else f"all {rows} rows of {task.source('train')}"
    where = f"{template.origin}: " if template.origin else ""
    return f"{where}template {template.name!r} of task {task.name!r} {what} (so it is for {every})"


def _short(text: str) -> str:
    return repr(text if len(text) <= 60 else text[:57] + "...")
