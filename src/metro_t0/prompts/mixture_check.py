"""Looks at a mixture before it is built: one rendered example of each template, and everything that is wrong.

    samples, problems = check_mixture(load_mixture("mine.yaml"))
    for row in check_online(load_mixture("t0", allow_missing=True)): ...      # a row of each dataset, from the Hub

``Mixture.check`` stops at the first problem; here all of them are found, each with its template's file and line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from metro_t0.prompts.mixture import Mixture
from metro_t0.prompts.rendering import drop_reason
from metro_t0.prompts.sources import HubDataset, Row, hub_fault
from metro_t0.prompts.tasks import Task
from metro_t0.prompts.template import Rendered, Template


@dataclass(frozen=True)
class Sample:
    """The first example that a template gives.

    Attributes:
        row: position of its row in the source, from 0.
    """

    task: Task
    template: Template
    row: int
    rendered: Rendered


@dataclass(frozen=True)
class Problem:
    """What is wrong with a template, or with the rows of a task (then there is no template)."""

    task: Task
    template: Template | None
    message: str

    def __str__(self) -> str:
        place = self.template.place if self.template else ""
        return f"{place}{self.task.name}: {self.message}"


def check_mixture(
    mixture: Mixture, *, advance: Callable[[str], None] | None = None
) -> tuple[list[Sample], list[Problem]]:
    """Renders train rows of every task until each template has given an example or failed.

    Args:
        mixture: to look at.
        advance: called with each task's name once it is looked through.

    Returns:
        One sample of each template that gives examples, and all problems found on the way. Rows after a template's
        first example are not rendered: building finds what is wrong with those.
    """
    samples: list[Sample] = []
    problems: list[Problem] = []
    for task in mixture.tasks:
        try:
            for found in _check_task(task, mixture.check_choices):
                if isinstance(found, Sample):
                    samples.append(found)
                else:
                    problems.append(found)
        except ValueError as error:
            problems.append(Problem(task, None, str(error)))
        if advance is not None:
            advance(task.name)
    return samples, problems


def _check_task(task: Task, check_choices: bool) -> Iterator[Sample | Problem]:
    """Samples and problems of a task; raises ValueError when its rows cannot be read."""
    waiting: list[Template] = []
    for template in task.templates:
        try:
            template.check()
            waiting.append(template)
        except ValueError as error:
            yield Problem(task, template, str(error).removeprefix(template.place))
    reasons: dict[str, tuple[str, Rendered]] = {}
    rows = 0
    for index, row in enumerate(task.rows("train") if waiting else ()):
        rows = index + 1
        for template in list(waiting):
            try:
                rendered = task.render(template, row, index, "train")
            except ValueError as error:
                waiting.remove(template)
                yield Problem(task, template, str(error))
                continue
            reason = drop_reason(rendered, check_choices)
            if reason is None:
                waiting.remove(template)
                yield Sample(task, template, index, rendered)
            else:
                reasons.setdefault(template.id, (reason, rendered))
        if not waiting:
            return
    if not rows and waiting:
        raise ValueError(f"{task.source('train')} holds no rows")
    for template in waiting:
        yield Problem(task, template, _fruitless(task, template, *reasons[template.id], rows))


def _fruitless(task: Task, template: Template, reason: str, rendered: Rendered, rows: int) -> str:
    choices = ", ".join(rendered.answer_choices or [])
    made = f"; its first target is {rendered.target[:60]!r}, its choices {choices[:120]}" if choices else ""
    return f"{template} gives no example of any of the {rows} rows of {task.source('train')}: {reason}{made}"


@dataclass(frozen=True)
class OnlineRow:
    """What the Hub has for a task.

    Attributes:
        hub: the dataset, or None when no place is known.
        there: columns of its first row, after renaming; empty when it could not be had.
        needed: columns that the templates use.
        problem: what is wrong; empty when nothing is.
    """

    task: Task
    hub: str | None
    there: tuple[str, ...]
    needed: tuple[str, ...]
    problem: str


def check_online(mixture: Mixture) -> Iterator[OnlineRow]:
    """Loads one row of each dataset from the Hub and renders it with every template.

    Args:
        mixture: loaded without a data root, missing tasks allowed.
    """
    fault: str | None = None
    for task in (*mixture.tasks, *mixture.absent):
        needed = tuple(sorted(frozenset[str]().union(*(template.columns for template in task.templates))))
        source = task.train
        if not isinstance(source, HubDataset):
            problem = (
                f"no place on the Hub: {task.facts.hub_source}" if source is None else "not from the Hub"
            )
            yield OnlineRow(task, None, (), needed, problem)
            continue
        if fault is None and not Path(source.id).exists():
            fault = hub_fault()
        if fault and not Path(source.id).exists():
            yield OnlineRow(task, str(source), (), needed, fault)
            continue
        try:
            row, classes = source.peek()
            row = task.renamed(row, 1, "train")
        except ValueError as error:
            yield OnlineRow(task, str(source), (), needed, str(error))
            continue
        there = tuple(sorted(name.replace("-", "_") for name in row))
        yield OnlineRow(task, str(source), there, needed, _first_fault(task, source, row, classes))


def _first_fault(task: Task, source: HubDataset, row: Row, classes: Mapping[str, Sequence[str]]) -> str:
    try:
        for template in task.templates:
            task.render(template, row, 0, "train")
        task.check_class_names(source, classes)
    except ValueError as error:
        return str(error)
    return ""
