"""A task: the rows of one dataset and the templates that turn them into prompts.

Mixtures train on tasks and evaluation suites score them; both come from the file that ``mixture.py``
describes::

    for task in load_mixture("suite.yaml").tasks:
        for index, row in enumerate(task.evaluation_rows(limit=100)):
            for template in task.templates:
                rendered = task.render(template, row, index, "evaluation")

or a task is made by hand::

    Task("super_glue/rte", "super_glue", "rte", templates, validation=LocalFile(Path("rte.jsonl")))
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from metro_t0.prompts.sandbox import compiled_expression
from metro_t0.prompts.sources import HubDataset, Row, Source
from metro_t0.prompts.template import (
    DatasetTemplates,
    Rendered,
    Template,
    TemplateFolder,
    load_template_file,
    load_templates,
)

Part = Literal["train", "validation", "evaluation", "shots"]

_LABEL_OF_CHOICES = re.compile(r"answer_choices\s*\[\s*(\w+)\s*\]")


@dataclass(frozen=True)
class TaskFacts:
    """What a mixture file says about a dataset beside its rows; all of it may be unknown.

    Attributes:
        kind: family of the task, e.g. ``paraphrase``; empty when not said.
        train_size: rows of the whole train split.
        labels: column -> names of its classes in their order, as the source states them.
        hub: id on the Hub; None when none is known that loads without a script.
        hub_source: who says so, or why there is none.
        verified: whether it was loaded and looked at.
        licence: as its source states it; empty when not known.
        licence_source: who states it.
        group: what results of several datasets are also summed up by, e.g. ``STEM``; empty when not said.
        evaluation_size: rows of the whole split that is evaluated.
    """

    kind: str = ""
    train_size: int | None = None
    labels: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    hub: str | None = None
    hub_source: str = ""
    verified: bool = False
    licence: str = ""
    licence_source: str = ""
    group: str = ""
    evaluation_size: int | None = None


@dataclass(frozen=True)
class Task:
    """Rows and templates of one dataset.

    Attributes:
        name: unique in its mixture, ``dataset`` or ``dataset/subset`` unless the user names it otherwise.
        dataset: e.g. ``super_glue``.
        subset: e.g. ``rte``, or None.
        templates: at least one.
        train: rows to finetune on.
        validation: rows whose loss is watched while finetuning.
        evaluation: rows to score answers on.
        shots: rows that solved examples before a question are taken from.
        rename: column of the data -> the name that the templates use for it. Rows that have it under that name already
            stay as they are.
        relabel: column of the data -> for each of its classes, from 0, the class that the templates mean.
        columns: further column -> the Jinja expression that makes it of the others, e.g. ``"'ABCD'[answer]"``.
        weight: how often an epoch goes over the task's windows: it takes ``weight`` times as many examples of each
            template, rounded. With 2 an uncapped template gives each example twice an epoch, a capped one two
            windows; with 0.5 half a window, and the next epoch the next half.
        cap: examples of this dataset in an epoch, shared by its templates; None = what the mixture says.
        facts: what the mixture file says about the dataset.
    """

    name: str
    dataset: str
    subset: str | None
    templates: tuple[Template, ...]
    train: Source | None = None
    validation: Source | None = None
    evaluation: Source | None = None
    shots: Source | None = None
    rename: Mapping[str, str] = field(default_factory=dict)
    relabel: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    weight: float = 1.0
    cap: int | None = None
    facts: TaskFacts = field(default_factory=TaskFacts)

    def template_cap(self, mixture_cap: int | None) -> int | None:
        """Examples of one template in an epoch, before the weight, under a mixture's cap; None = all."""
        cap = mixture_cap if self.cap is None else self.cap
        return None if cap is None else cap // len(self.templates)

    def source(self, part: Part) -> Source:
        """The source of a part; evaluation falls back on validation. Raises ValueError when there is none."""
        source: Source | None = getattr(self, part)
        if source is None and part == "evaluation":
            source = self.validation
        if source is None:
            raise ValueError(f"task {self.name!r} has no '{part}:' rows")
        return source

    def rows(self, part: Part = "train", limit: int | None = None) -> Iterator[Row]:
        """Reads the rows of a part (the first ``limit``), columns renamed.

        Raises:
            ValueError: the task has no such part, a row is broken, a column to rename is not there, or what
            :meth:`check_class_names` raises.
        """
        source = self.source(part)
        if isinstance(source, HubDataset):
            self.check_class_names(source, source.class_names())
        for number, row in enumerate(source.rows(limit), start=1):
            if self.rename or self.relabel:
                row = self.renamed(row, number, part)
            yield self._with_columns(row, number, part) if self.columns else row

    def evaluation_rows(self, limit: int | None = None) -> Iterator[Row]:
        """The rows to score answers on: ``evaluation:``, else ``validation:``."""
        return self.rows("evaluation", limit)

    def render(self, template: Template, row: Row, index: int, part: Part, seed: int = 0) -> Rendered:
        """Renders one row strictly (a column that is used and is not there is an error).

        Args:
            template: one of the task's.
            row: as :meth:`rows` gives it.
            index: its position, from 0; the template's random draws are a function of seed, template and
            index. part: where the row is from.
            seed: of the draws.

        Raises:
            ValueError: names source, row, template with its file and line, and what went wrong.
        """
        try:
            return template.apply(row, seed=f"{seed}/{template.id}/{index}", strict=True)
        except ValueError as error:
            where = f" (the template is at {template.origin})" if template.origin else ""
            raise ValueError(f"{self.source(part)}, row {index + 1}: {error}{where}") from error.__cause__

    def check_class_names(self, source: Source, classes: Mapping[str, Sequence[str]]) -> None:
        """Compares the class names that a dataset carries with the facts and with the templates' choices.

        Args:
            source: for messages.
            classes: column of the data -> names of its classes, in their order.

        Raises:
            ValueError: names of classes are other ones or in another order than stated, or a template that picks its
            answer by the label has fewer choices than there are classes; names both.
        """
        for column, names in classes.items():
            column = self.rename.get(column, column)
            stated = self.facts.labels.get(column)
            if stated is not None and list(stated) != list(names):
                raise ValueError(
                    f"{source}: the classes of column {column!r} are {', '.join(names)}, and the mixture's file says "
                    f"{', '.join(stated)} for task {self.name!r}: its answers would be those of other classes"
                )
            for template in self.templates:
                choices = template.fixed_answer_choices
                picks = column in _LABEL_OF_CHOICES.findall(template.jinja)
                if picks and choices is not None and len(choices) < len(names):
                    raise ValueError(
                        f"{source}: column {column!r} has {len(names)} classes ({', '.join(names)}), and "
                        f"{template.place}{template} has {len(choices)} answer choices ({', '.join(choices)})"
                    )

    def renamed(self, row: Row, number: int, part: Part) -> Row:
        """Row ``number`` (from 1) as the templates know it.

        Raises:
            ValueError: a column to rename is not there, or a class to relabel is none of those that are known.
        """
        there = {name.replace("-", "_") for name in row}
        missing = [name for name, wanted in self.rename.items() if name not in row and wanted not in there]
        if missing:
            raise ValueError(
                f"{self.source(part)}, row {number}: has no column {missing[0]!r} to rename; "
                f"its columns: {', '.join(sorted(row))}"
            )
        known = {name: self._relabelled(name, value, number, part) for name, value in row.items()}
        return {self.rename.get(name, name): value for name, value in known.items()}

    def _with_columns(self, row: Row, number: int, part: Part) -> Row:
        variables = {name.replace("-", "_"): value for name, value in row.items()}
        made = {}
        for name, expression in self.columns.items():
            try:
                made[name] = compiled_expression(expression)(**variables)
            except Exception as error:  # whatever an expression can raise
                raise ValueError(
                    f"{self.source(part)}, row {number}: column {name!r} cannot be made by {expression!r}: {error}"
                ) from error
        return {**row, **made}

    def _relabelled(self, column: str, value: Any, number: int, part: Part) -> Any:
        classes = self.relabel.get(column)
        if classes is None:
            return value
        if type(value) is not int or not 0 <= value < len(classes):
            raise ValueError(
                f"{self.source(part)}, row {number}: {value!r} in column {column!r} is none of its "
                f"{len(classes)} classes, from 0"
            )
        return classes[value]


def open_templates(path: Path) -> TemplateFolder | DatasetTemplates:
    """Opens a promptsource templates folder or one file of templates; raises ValueError when it is
    neither."""
    return load_templates(path) if path.is_dir() else load_template_file(path)


def choose_templates(
    available: TemplateFolder | DatasetTemplates, key: str, use: str | Sequence[str] = "all"
) -> tuple[Template, ...]:
    """The templates of a dataset that a task uses.

    Args:
        available: a folder, or the templates of one file (which then all belong to the dataset).
        key: ``dataset`` or ``dataset/subset``, looked up in a folder.
        use: ``all``, ``original-task`` (those that ask for what the dataset was made for), or names.

    Raises:
        ValueError: no templates for the dataset, or none of that name (names the nearest).
    """
    if isinstance(available, TemplateFolder):
        if key not in available:
            hint = _nearest(key, list(available))
            raise ValueError(f"{available.directory} holds no templates for dataset {key!r}{hint}")
        available = available[key]
    if use == "all":
        return tuple(available.values())
    if use == "original-task":
        if not available.original_task:
            raise ValueError(f"{available.path} marks no template of {key!r} as original_task")
        return tuple(available.original_task)
    names = [use] if isinstance(use, str) else list(use)
    for name in names:
        if name not in available:
            raise ValueError(f"{available.path} holds no template {name!r}{_nearest(name, list(available))}")
    return tuple(available[name] for name in dict.fromkeys(names))


def _nearest(name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
