"""What a build has to do: which rows of a task go where, in which units, and the name that finished units keep.

    plan = plan_task(0, 0, task, {"train": source_facts(task.source("train"))}, settings)
    for unit in plan.units(unit_examples=32_768): ...     # in the order of the files
    fingerprint(plan, settings, vocabulary, 32_768)        # changes with whatever the units are made from

A unit is some rows of one task, all for training or all held out. Where units end is a function of the rows alone.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

import numpy as np

from metro_t0.data.compressed import file_errors
from metro_t0.prompts.prompted_data import window_size
from metro_t0.prompts.sources import LocalFile, Row, Source
from metro_t0.prompts.tasks import Part, Task

MAX_VALIDATION_ROWS = 1000

# Some seconds of work: what an interruption loses, for each process.
UNIT_EXAMPLES = 32_768
# Rows wait in memory, a few units a process.
_UNIT_CHARACTERS = 4_000_000

_LAYOUT = 1
_PROBE = [
    "Don't normalise THIS: it's 3.14, Ünïcödé – “quoted”… and (12,345) e-mails!",
    "Текст. 日本語の文。 نص عربي। हिन्दी",
]


class Tokenizer(Protocol):
    """What building needs of a tokenizer (``MetroT0Tokenizer`` has it); it must pickle."""

    bos_token_id: int
    eos_token_id: int

    def __len__(self) -> int: ...

    def encode_texts(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        ...

    def convert_ids_to_tokens(self, ids: list[int]) -> Any:
        """The pieces of ids."""
        ...


@dataclass(frozen=True)
class BuildSettings:
    """How a mixture is built; the first attributes are those of ``Mixture`` and of ``Mixture.build``.

    Attributes:
        drop_long: whether an example longer than a maximum is dropped, as METRO-T0 does, instead of cut.
        epochs: of a template with more rows than the windows of so many epochs take, only as many rows are
            rendered, drawn by the seed; None = all rows.
        missing: tasks of the mixture that are left out since their rows are not there.
        cap_rule: ``cap`` as it was asked for, see ``mixture.py``.
    """

    name: str
    cap: int | None
    check_choices: bool
    validation_fraction: float
    max_input_length: int
    max_target_length: int
    seed: int
    drop_long: bool = False
    epochs: int | None = None
    missing: tuple[str, ...] = ()
    cap_rule: str = ""

    def check(self) -> None:
        """Raises ValueError for lengths or a number of epochs that no build can have."""
        if self.max_input_length < 3 or self.max_target_length < 2:
            raise ValueError("max_input_length must be at least 3 and max_target_length at least 2")
        if self.epochs is not None and self.epochs < 1:
            raise ValueError(f"the number of epochs must be at least 1, not {self.epochs}")

    def template_cap(self, task: Task) -> int | None:
        """Rows that an epoch takes of each template of a task; None = all."""
        return task.template_cap(self.cap)


def vocabulary_checksum(tokenizer: Tokenizer) -> str:
    """SHA-256 over the pieces and over what the tokenizer makes of a probe, in which its normaliser shows."""
    pieces = tokenizer.convert_ids_to_tokens(list(range(len(tokenizer))))
    told = [pieces, tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.encode_texts(_PROBE)]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def templates_checksum(task: Task) -> str:
    """SHA-256 of the texts of the templates that a task uses."""
    texts = [[t.id, t.name, t.jinja, t.answer_choices] for t in task.templates]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


@dataclass(frozen=True)
class SourceFacts:
    """What a source is, to tell whether it changed.

    Attributes:
        source: its name.
        rows: how many.
        bytes: size of the file; None for a Hub dataset.
        sha256: of the file; of the rows for a Hub dataset.
    """

    source: str
    rows: int
    bytes: int | None
    sha256: str


def source_facts(source: Source) -> SourceFacts:
    """Reads a source through; raises ValueError when it cannot be read."""
    if isinstance(source, LocalFile):
        with file_errors(source.path), source.path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            size = stream.tell()
        return SourceFacts(str(source), source.count(), size, digest)
    content, rows = hashlib.sha256(), 0
    for row in source.rows():
        content.update(json.dumps(row, default=str, sort_keys=True).encode())
        rows += 1
    return SourceFacts(str(source), rows, None, content.hexdigest())


@dataclass(frozen=True)
class Unit:
    """Rows of one task for one process to render.

    Attributes:
        task: position of the task in the mixture.
        first_template: position of the task's first template in the mixture.
        held_out: whether its examples are for validation.
        number: position among the units of the task, from 0.
        part: where the rows are from.
        indices: position of each row in its source, ``[rows]``.
        rows: what they hold.
        chosen: which templates render which row, ``[rows, templates]`` bool; None = all.
    """

    task: int
    first_template: int
    held_out: bool
    number: int
    part: Part
    indices: list[int]
    rows: list[Row]
    chosen: np.ndarray | None

    @property
    def split(self) -> Literal["train", "validation"]:
        """Where its examples go."""
        return "validation" if self.held_out else "train"

    @property
    def name(self) -> str:
        """Its folder's name."""
        return f"{self.number:05d}-{self.split}"

    def renderings(self, templates: int) -> int:
        """How many times a template is applied."""
        return len(self.rows) * templates if self.chosen is None else int(self.chosen.sum())


@dataclass
class _Gathering:
    """Rows that will be the next unit."""

    indices: list[int] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    chosen: list[np.ndarray] = field(default_factory=list)
    examples: int = 0
    characters: int = 0


@dataclass(frozen=True)
class TaskPlan:
    """Which rows of a task are trained on, which are held out, and which are left alone.

    Attributes:
        number: position of the task in its mixture.
        first_template: position of its first template.
        facts: of each source, by part.
        train_rows, validation_rows: rows for training and held out.
        rendered_rows: rows for training that each template renders: all of them, or as many as its windows take.
        from_train: rows of the train source that are held out.
        from_validation: rows of the validation source that are taken; None = all.
        seed: of the draws.
    """

    number: int
    first_template: int
    task: Task
    facts: dict[Part, SourceFacts]
    train_rows: int
    validation_rows: int
    rendered_rows: int
    from_train: frozenset[int]
    from_validation: frozenset[int] | None
    seed: tuple[int, int]

    @property
    def renderings(self) -> int:
        """How many times a template is applied."""
        return (self.rendered_rows + self.validation_rows) * len(self.task.templates)

    def units(self, unit_examples: int) -> Iterator[Unit]:
        """Reads the rows; raises ValueError when a source cannot be read or has changed since it was counted."""
        number = 0
        for part in self.facts:
            place = self._places(part)
            gathered = {False: _Gathering(), True: _Gathering()}
            read = 0
            for index, row in enumerate(self.task.rows(part)):
                read += 1
                where = place(index) if read <= self.facts[part].rows else None
                if where is None:
                    continue
                held_out, chosen = where
                waiting = gathered[held_out]
                self._gather(waiting, index, row, chosen)
                if waiting.examples >= unit_examples or waiting.characters >= _UNIT_CHARACTERS:
                    yield self._unit(held_out, number, part, waiting)
                    gathered[held_out] = _Gathering()
                    number += 1
            if read != self.facts[part].rows:
                raise ValueError(
                    f"{self.facts[part].source} changed while it was read: run the command again"
                )
            for held_out, waiting in gathered.items():
                if waiting.rows:
                    yield self._unit(held_out, number, part, waiting)
                    number += 1

    def _gather(self, waiting: _Gathering, index: int, row: Row, chosen: np.ndarray | None) -> None:
        waiting.indices.append(index)
        waiting.rows.append(row)
        waiting.characters += _characters(row)
        if chosen is None:
            waiting.examples += len(self.task.templates)
        else:
            waiting.chosen.append(chosen)
            waiting.examples += int(chosen.sum())

    def _unit(self, held_out: bool, number: int, part: Part, waiting: _Gathering) -> Unit:
        chosen = np.stack(waiting.chosen) if waiting.chosen else None
        where = (self.number, self.first_template, held_out, number, part)
        return Unit(*where, waiting.indices, waiting.rows, chosen)

    def _places(self, part: Part) -> Callable[[int], tuple[bool, np.ndarray | None] | None]:
        """For a row: whether it is held out, and the templates that render it (None: all); None: left alone."""
        if part == "validation":
            taken = self.from_validation
            return lambda index: (True, None) if taken is None or index in taken else None
        chosen = self._chosen()

        def place(index: int) -> tuple[bool, np.ndarray | None] | None:
            if index in self.from_train:
                return True, None
            if chosen is None:
                return False, None
            return (False, chosen[index]) if chosen[index].any() else None

        return place

    def _chosen(self) -> np.ndarray | None:
        """The rows that each template renders, drawn for each by itself: ``[rows, templates]``; None = all."""
        if self.rendered_rows == self.train_rows:
            return None
        free = np.ones(self.facts["train"].rows, bool)
        free[list(self.from_train)] = False
        candidates = np.flatnonzero(free)
        chosen = np.zeros((len(free), len(self.task.templates)), bool)
        for template in range(len(self.task.templates)):
            generator = np.random.default_rng([*self.seed, 1, template])
            chosen[generator.choice(candidates, self.rendered_rows, replace=False), template] = True
        return chosen


def task_parts(task: Task) -> tuple[Part, ...]:
    """The parts of a task that are built."""
    return ("train",) if task.validation is None else ("train", "validation")


def plan_task(
    number: int, first_template: int, task: Task, facts: dict[Part, SourceFacts], settings: BuildSettings
) -> TaskPlan:
    """Draws by the seed which rows of a task are held out; ``facts`` are those of its parts."""
    train, held_out = facts["train"].rows, 0
    seed = (settings.seed, zlib.crc32(task.name.encode()))
    generator = np.random.default_rng(seed)
    from_train: frozenset[int] = frozenset()
    from_validation = None
    if task.validation is not None:
        held_out = facts["validation"].rows
        if held_out > MAX_VALIDATION_ROWS:
            from_validation = _draw(generator, held_out, MAX_VALIDATION_ROWS)
            held_out = MAX_VALIDATION_ROWS
    elif settings.validation_fraction and train > 1:
        held_out = min(max(1, round(train * settings.validation_fraction)), MAX_VALIDATION_ROWS)
        from_train = _draw(generator, train, held_out)
    trained = train - len(from_train)
    rendered = trained
    if settings.epochs is not None:
        window = window_size(trained, settings.template_cap(task), task.weight)
        rendered = min(trained, settings.epochs * window)
    rows = (trained, held_out, rendered)
    return TaskPlan(number, first_template, task, facts, *rows, from_train, from_validation, seed)


def fingerprint(plan: TaskPlan, settings: BuildSettings, vocabulary: str, unit_examples: int) -> str:
    """Of everything that the units of a task are made from: as long as it stays, finished ones can be kept."""
    task = plan.task
    kept = (
        "check_choices",
        "validation_fraction",
        "max_input_length",
        "max_target_length",
        "seed",
        "drop_long",
    )
    made_from = [
        _LAYOUT,
        [unit_examples, _UNIT_CHARACTERS, plan.number, plan.first_template, plan.rendered_rows],
        [task.name, sorted(task.rename.items()), sorted(task.relabel.items())],
        [templates_checksum(task), vocabulary],
        {part: asdict(of_part) for part, of_part in plan.facts.items()},
        {name: value for name, value in asdict(settings).items() if name in kept},
    ]
    return hashlib.sha256(json.dumps(made_from).encode()).hexdigest()[:20]


def _draw(generator: np.random.Generator, rows: int, number: int) -> frozenset[int]:
    return frozenset(generator.choice(rows, number, replace=False).tolist())


def _characters(row: Row) -> int:
    """About how much text a row holds."""
    return sum(len(value) if isinstance(value, str) else 8 + _nested(value) for value in row.values())


def _nested(value: Any) -> int:
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(_nested, value.values()))
    return sum(map(_nested, value)) if isinstance(value, list) else 8
