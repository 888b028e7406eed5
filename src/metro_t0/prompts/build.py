"""Renders and tokenizes the tasks of a mixture and writes them to disk; for ``Mixture`` in ``mixture.py``.

The card (``card.json``)::

    {"format_version": 1, "name": ..., "cap": ..., (the other settings), "vocabulary_size": ...,
     "tasks":     [{"name", "dataset", "subset", "rows": {"train", "validation"}, "sources": {...}}],
     "templates": [{"task", "name", "id", "cap", "train": COUNTS, "validation": COUNTS}],
     "totals":    {"train": COUNTS, "validation": COUNTS}}

    COUNTS = {"examples", "input_tokens", "target_tokens", "truncated_inputs", "truncated_targets",
              "dropped": {reason: n}}
"""

from __future__ import annotations

import contextlib
import itertools
import json
import shutil
import tempfile
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from metro_t0.prompts.prompted_data import FORMAT_VERSION
from metro_t0.prompts.tasks import Part, Task
from metro_t0.prompts.template import Rendered, Template

if TYPE_CHECKING:
    import pyarrow as pa
    from rich.console import Console

EMPTY = "empty"
NO_TARGET = "no target"
TOO_MANY_PARTS = "more than one |||"
NOT_A_CHOICE = "target not among the choices"
NO_TOKENS = "nothing left of the target after tokenizing"

MAX_VALIDATION_ROWS = 1000

_BATCH_EXAMPLES = 2048


class Tokenizer(Protocol):
    """What building needs of a tokenizer (``MetroT0Tokenizer`` has it)."""

    bos_token_id: int
    eos_token_id: int

    def __len__(self) -> int: ...

    def encode_texts(self, texts: list[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        ...


@dataclass
class Counts:
    """What became of the rows of one template."""

    examples: int = 0
    input_tokens: int = 0
    target_tokens: int = 0
    truncated_inputs: int = 0
    truncated_targets: int = 0
    dropped: Counter[str] = field(default_factory=Counter)

    def drop(self, reason: str) -> bool:
        """Counts a dropped example; False, for use as a condition."""
        self.dropped[reason] += 1
        return False

    def as_card(self) -> dict[str, Any]:
        """Plain dictionaries, as the card holds them."""
        return {**vars(self), "dropped": dict(self.dropped)}

    def add(self, other: Counts) -> None:
        """Adds the counts of another template."""
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


@dataclass(frozen=True)
class _Example:
    input: str
    target: str
    task: int
    template: int


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


@dataclass(frozen=True)
class BuildSettings:
    """How a mixture is built; the attributes are those of ``Mixture`` and of ``Mixture.build``."""

    name: str
    cap: int | None
    check_choices: bool
    validation_fraction: float
    max_input_length: int
    max_target_length: int
    seed: int


def build(
    tasks: Sequence[Task],
    tokenizer: Tokenizer,
    out: Path,
    settings: BuildSettings,
    console: Console | None = None,
) -> None:
    """Writes a built mixture to ``out``, whole or not at all; see ``Mixture.build``."""
    if settings.max_input_length < 3 or settings.max_target_length < 2:
        raise ValueError("max_input_length must be at least 3 and max_target_length at least 2")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already: name another folder, or remove it")
    check(tasks, check_choices=settings.check_choices)
    plans = [_plan_rows(task, settings.validation_fraction, settings.seed) for task in tasks]
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        aside.chmod(0o755)
        card = _write(tasks, plans, tokenizer, aside, settings, console)
        if not card["totals"]["train"]["examples"]:
            raise ValueError(f"mixture {settings.name!r} leaves no example to train on")
        text = json.dumps(card, indent=1, ensure_ascii=False)
        (aside / "card.json").write_text(text + "\n", encoding="utf-8")
        aside.replace(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
    if console is not None:
        _say(console, card["totals"]["train"], settings)


def _write(
    tasks: Sequence[Task],
    plans: Sequence[_RowPlan],
    tokenizer: Tokenizer,
    folder: Path,
    settings: BuildSettings,
    console: Console | None,
) -> dict[str, Any]:
    """Writes the examples of all tasks into ``folder`` and gives the card."""
    totals = {"train": Counts(), "validation": Counts()}
    task_cards: list[dict[str, Any]] = []
    template_cards: list[dict[str, Any]] = []
    with (
        _Writer(folder / "train.arrow", tokenizer, settings) as train,
        _Writer(folder / "validation.arrow", tokenizer, settings) as validation,
        _progress(console, sum(plan.examples for plan in plans)) as advance,
    ):
        for number, (task, plan) in enumerate(zip(tasks, plans, strict=True)):
            first = len(template_cards)
            for held_out, index, row, part in plan.rows(task):
                writer = validation if held_out else train
                for offset, template in enumerate(task.templates, start=first):
                    rendered = task.render(template, row, index, part, settings.seed)
                    writer.add(rendered, number, offset)
                advance(task.name, len(task.templates))
            for writer in (train, validation):
                writer.flush()
            rows = {"train": plan.train_rows, "validation": plan.validation_rows}
            names = {"name": task.name, "dataset": task.dataset, "subset": task.subset}
            task_cards.append({**names, "rows": rows, "sources": plan.sources})
            cap = task.template_cap(settings.cap)
            for offset, template in enumerate(task.templates, start=first):
                counts = {"train": train.counts[offset], "validation": validation.counts[offset]}
                for part_name, of_template in counts.items():
                    totals[part_name].add(of_template)
                template_cards.append(
                    {
                        "task": task.name,
                        "name": template.name,
                        "id": template.id,
                        "cap": cap,
                        "weight": task.weight,
                        **{part_name: of_template.as_card() for part_name, of_template in counts.items()},
                    }
                )
    return {
        "format_version": FORMAT_VERSION,
        **asdict(settings),
        "vocabulary_size": len(tokenizer),
        "tasks": task_cards,
        "templates": template_cards,
        "totals": {part_name: of_part.as_card() for part_name, of_part in totals.items()},
    }


@dataclass(frozen=True)
class _RowPlan:
    """Which rows of a task are trained on and which are held out."""

    train_rows: int
    validation_rows: int
    from_train: frozenset[int]
    from_validation: frozenset[int] | None
    examples: int
    sources: dict[str, str]

    def rows(self, task: Task) -> Iterator[tuple[bool, int, dict[str, Any], Part]]:
        """(held out, index in its source, row, part of the source)."""
        for index, row in enumerate(task.rows("train")):
            yield index in self.from_train, index, row, "train"
        if task.validation is not None:
            for index, row in enumerate(task.rows("validation")):
                if self.from_validation is None or index in self.from_validation:
                    yield True, index, row, "validation"


def _plan_rows(task: Task, fraction: float, seed: int) -> _RowPlan:
    train = task.source("train")
    rows, held_out = train.count(), 0
    generator = np.random.default_rng([seed, zlib.crc32(task.name.encode())])
    from_train: frozenset[int] = frozenset()
    from_validation = None
    sources = {"train": str(train)}
    if task.validation is not None:
        held_out = task.validation.count()
        sources["validation"] = str(task.validation)
        if held_out > MAX_VALIDATION_ROWS:
            from_validation = _draw(generator, held_out, MAX_VALIDATION_ROWS)
            held_out = MAX_VALIDATION_ROWS
    elif fraction and rows > 1:
        held_out = min(max(1, round(rows * fraction)), MAX_VALIDATION_ROWS)
        from_train = _draw(generator, rows, held_out)
    trained = rows - len(from_train)
    examples = (trained + held_out) * len(task.templates)
    return _RowPlan(trained, held_out, from_train, from_validation, examples, sources)


def _draw(generator: np.random.Generator, rows: int, number: int) -> frozenset[int]:
    return frozenset(generator.choice(rows, number, replace=False).tolist())


class _Writer:
    """Tokenizes examples in batches, writes them as an Arrow stream, and counts them by template."""

    def __init__(self, path: Path, tokenizer: Tokenizer, settings: BuildSettings) -> None:
        import pyarrow as pa

        self.counts: defaultdict[int, Counts] = defaultdict(Counts)
        self._tokenizer = tokenizer
        # A transformers tokenizer looks these two up anew each time it is asked.
        self._bos, self._eos = tokenizer.bos_token_id, tokenizer.eos_token_id
        self._settings = settings
        self._ids = pa.uint16() if len(tokenizer) <= 1 << 16 else pa.int32()
        tokens, number = pa.list_(self._ids), pa.int32()
        self._schema = pa.schema({"input_ids": tokens, "labels": tokens, "task": number, "template": number})
        self._stream = pa.ipc.new_stream(str(path), self._schema)
        self._waiting: list[_Example] = []

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.close()

    def add(self, rendered: Rendered, task: int, template: int) -> None:
        """Takes a rendering, or counts why it is no example; ``task`` and ``template`` are the card's
        numbers."""
        reason = drop_reason(rendered, self._settings.check_choices)
        if reason is not None:
            self.counts[template].dropped[reason] += 1
            return
        self._waiting.append(_Example(rendered.input, rendered.target, task, template))
        if len(self._waiting) >= _BATCH_EXAMPLES:
            self.flush()

    def flush(self) -> None:
        """Tokenizes and writes what waits."""
        import pyarrow as pa

        examples, self._waiting = self._waiting, []
        inputs = self._encode([example.input for example in examples])
        targets = self._encode([example.target for example in examples])
        rows = [
            (*self._framed(source, target, self.counts[example.template]), example.task, example.template)
            for example, source, target in zip(examples, inputs, targets, strict=True)
            if target or self.counts[example.template].drop(NO_TOKENS)
        ]
        if rows:
            sources, labels, tasks, templates = zip(*rows, strict=True)
            numbers = [pa.array(tasks, pa.int32()), pa.array(templates, pa.int32())]
            columns = [self._lists(sources), self._lists(labels), *numbers]
            self._stream.write_batch(pa.record_batch(columns, schema=self._schema))

    def _framed(self, source: list[int], target: list[int], counts: Counts) -> tuple[list[int], list[int]]:
        """``<s> source </s>`` and ``target </s>``, cut to the maximum lengths and counted."""
        keep_source, keep_target = self._settings.max_input_length - 2, self._settings.max_target_length - 1
        counts.truncated_inputs += len(source) > keep_source
        counts.truncated_targets += len(target) > keep_target
        source = [self._bos, *source[:keep_source], self._eos]
        target = [*target[:keep_target], self._eos]
        counts.examples += 1
        counts.input_tokens += len(source)
        counts.target_tokens += len(target)
        return source, target

    def _encode(self, texts: list[str]) -> list[list[int]]:
        # Classification targets and skipped-over prompts repeat, so each text is tokenized once a batch.
        collapsed = [" ".join(text.split()) for text in texts]
        distinct = list(dict.fromkeys(collapsed))
        ids = dict(zip(distinct, self._tokenizer.encode_texts(distinct), strict=True)) if distinct else {}
        return [ids[text] for text in collapsed]

    def _lists(self, rows: Sequence[Sequence[int]]) -> pa.Array:
        import pyarrow as pa

        offsets = np.cumsum([0, *map(len, rows)], dtype=np.int32)
        flat = itertools.chain.from_iterable(rows)
        values = np.fromiter(flat, self._ids.to_pandas_dtype(), offsets[-1])
        return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


@contextlib.contextmanager
def _progress(console: Console | None, total: int) -> Iterator[Callable[[str, int], None]]:
    """A progress bar over the examples: call it with the task's name and how many were done."""
    if console is None:
        yield lambda task, examples: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        bar = progress.add_task("examples", total=total)
        yield lambda task, examples: progress.update(bar, description=task, advance=examples)


def _say(console: Console, counts: dict[str, Any], settings: BuildSettings) -> None:
    line = f"{counts['examples']:,} examples to train on"
    for what, maximum in (("inputs", settings.max_input_length), ("targets", settings.max_target_length)):
        if counts[f"truncated_{what}"]:
            line += f"; {counts[f'truncated_{what}']:,} {what} cut to {maximum} tokens"
    for reason, number in counts["dropped"].items():
        line += f"; {number:,} dropped ({reason})"
    console.print(line, highlight=False)
