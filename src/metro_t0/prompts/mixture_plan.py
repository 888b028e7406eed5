"""What an epoch of a mixture holds, before anything is rendered: rows, caps, and the share of each kind of task.

    plan = plan_mixture(load_mixture("t0", allow_missing=True), count=False)
    plan.rows_per_epoch, plan.shares()["sentiment"], plan.as_json()

Rows are those that the mixture's file states, or are counted in files on this machine. They are an upper bound of an
epoch's examples: a template that leaves rows out gives fewer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from metro_t0.prompts.mixture import Mixture
from metro_t0.prompts.sources import HubDataset
from metro_t0.prompts.tasks import Task


@dataclass(frozen=True)
class PlannedTask:
    """One task of a plan.

    Attributes:
        task: the task.
        rows: to train on; None when it is not known.
        counted: whether the rows were counted; otherwise they are what the mixture's file states.
        template_cap: examples of one template in an epoch, before the weight; None = all.
        missing: whether its rows are not to be had, so that it is left out.
    """

    task: Task
    rows: int | None
    counted: bool
    template_cap: int | None
    missing: bool

    @property
    def kind(self) -> str:
        """Family of the task; ``other`` when the mixture's file does not say."""
        return self.task.facts.kind or "other"

    @property
    def rows_per_epoch(self) -> int | None:
        """Examples of all its templates in an epoch; None when the rows are not known."""
        if self.rows is None:
            return None
        window = self.rows if self.template_cap is None else min(self.template_cap, self.rows)
        return len(self.task.templates) * round(self.task.weight * window)


@dataclass(frozen=True)
class MixturePlan:
    """What an epoch holds.

    Attributes:
        mixture: the mixture.
        tasks: all of its tasks, in its order, those that are missing last.
    """

    mixture: Mixture
    tasks: tuple[PlannedTask, ...]

    @property
    def present(self) -> tuple[PlannedTask, ...]:
        """Tasks that are not missing."""
        return tuple(planned for planned in self.tasks if not planned.missing)

    @property
    def templates(self) -> int:
        """Templates of the tasks that are not missing."""
        return sum(len(planned.task.templates) for planned in self.present)

    @property
    def datasets(self) -> int:
        """Pairs of dataset and subset of the tasks that are not missing."""
        return len({(planned.task.dataset, planned.task.subset) for planned in self.present})

    @property
    def rows_per_epoch(self) -> int:
        """Examples of an epoch, of the tasks whose rows are known."""
        return sum(planned.rows_per_epoch or 0 for planned in self.present)

    def shares(self) -> dict[str, float]:
        """Kind of task -> its share (0-1) of an epoch's examples, the largest first."""
        rows: Counter[str] = Counter()
        for planned in self.present:
            rows[planned.kind] += planned.rows_per_epoch or 0
        return {kind: number / max(1, rows.total()) for kind, number in rows.most_common()}

    def as_json(self) -> dict[str, Any]:
        """The plan as plain dictionaries; ``templates`` and ``datasets`` are totals."""
        return {
            "name": self.mixture.name,
            "cap": self.mixture.cap_rule,
            "check_choices": self.mixture.check_choices,
            "datasets": self.datasets,
            "templates": self.templates,
            "rows_per_epoch": self.rows_per_epoch,
            "kinds": self.shares(),
            "missing": [planned.task.name for planned in self.tasks if planned.missing],
            "tasks": [_task_json(planned) for planned in self.tasks],
        }


def _task_json(planned: PlannedTask) -> dict[str, Any]:
    task, facts = planned.task, planned.task.facts
    return {
        "name": task.name,
        "dataset": task.dataset,
        "subset": task.subset,
        "kind": planned.kind,
        "missing": planned.missing,
        "source": None if task.train is None else str(task.train),
        "rows": planned.rows,
        "rows_counted": planned.counted,
        "templates": len(task.templates),
        "template_cap": planned.template_cap,
        "weight": task.weight,
        "rows_per_epoch": planned.rows_per_epoch,
        "hub": facts.hub,
        "hub_source": facts.hub_source or None,
        "verified": facts.verified,
        "licence": facts.licence or None,
        "licence_source": facts.licence_source or None,
    }


def plan_mixture(
    mixture: Mixture, *, looked: bool, advance: Callable[[str], None] | None = None
) -> MixturePlan:
    """Plans an epoch; downloads nothing.

    Args:
        mixture: loaded with ``allow_missing``.
        looked: whether rows were looked for on this machine, so that those which are not there are left out; otherwise
            tasks without a known place count as well, with the rows that the file states.
        advance: called with each task's name once it is planned (counting a large file takes a while).

    Raises:
        ValueError: a file cannot be read.
    """
    planned = []
    for task in (*mixture.tasks, *mixture.absent):
        rows, counted = task.facts.train_size, False
        if task.train is not None and not isinstance(task.train, HubDataset):
            rows, counted = task.train.count(), True
        missing = looked and task.train is None
        planned.append(PlannedTask(task, rows, counted, task.template_cap(mixture.cap), missing))
        if advance is not None:
            advance(task.name)
    return MixturePlan(mixture, tuple(planned))
