"""Builds a mixture: renders and tokenizes its tasks in several processes, and can be gone on with; for ``Mixture``.

    build(tasks, tokenizer, Path("prompted"), settings, processes=4)

The output holds ``train/`` and ``validation/`` (Arrow, as `datasets.load_from_disk` reads them), a card
(``build_card.py``) and ``examples.jsonl``. Until it is whole, finished units of rows lie in a hidden folder beside
it, under a fingerprint of what they were made from; the same command takes them up again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import pickle
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro_t0.data.parallel import available_processes, map_in_order
from metro_t0.data.shards import link_dataset
from metro_t0.data.work import WorkFolder
from metro_t0.prompts.build_card import SPLITS, mixture_card, write_card
from metro_t0.prompts.build_plan import (
    UNIT_EXAMPLES,
    BuildSettings,
    SourceFacts,
    TaskPlan,
    Tokenizer,
    fingerprint,
    plan_task,
    source_facts,
    task_parts,
    vocabulary_checksum,
)
from metro_t0.prompts.rendering import Counts, check
from metro_t0.prompts.tasks import Part, Task
from metro_t0.prompts.unit_work import (
    EXAMPLES_A_TASK,
    UnitWork,
    Workshop,
    arrow_schema,
    build_unit,
    open_workshop,
)

if TYPE_CHECKING:
    from rich.console import Console

# Below this, starting processes takes longer than they save.
_RENDERINGS_WORTH_PROCESSES = 5_000
# Below this, doing it all again takes seconds.
_RENDERINGS_WORTH_KEEPING = 20_000


def build(
    tasks: Sequence[Task],
    tokenizer: Tokenizer,
    out: Path,
    settings: BuildSettings,
    *,
    processes: int | None = None,
    resumable: bool = True,
    unit_examples: int = UNIT_EXAMPLES,
    console: Console | None = None,
) -> None:
    """Writes a built mixture to ``out``, whole or not at all; see ``Mixture.build``."""
    settings.check()
    if processes is not None and processes < 1:
        raise ValueError(f"the number of processes must be at least 1, not {processes}")
    with WorkFolder(out) as work:
        if work.continued and console is not None:
            console.print(f"going on with the work in {work.path}", markup=False, highlight=False)
        work.keep = resumable and (work / "units").is_dir()
        check(tasks, check_choices=settings.check_choices)
        many = processes or available_processes()
        _Build(work, tasks, tokenizer, settings, unit_examples, many).run(resumable, console)
    if console is not None:
        _say(console, json.loads((out / "card.json").read_text(encoding="utf-8")))


class _Build:
    """One run of :func:`build`."""

    def __init__(
        self,
        work: WorkFolder,
        tasks: Sequence[Task],
        tokenizer: Tokenizer,
        settings: BuildSettings,
        unit_examples: int,
        processes: int,
    ) -> None:
        self._work, self._settings, self._unit_examples = work, settings, unit_examples
        self._tasks, self._tokenizer, self._processes = tuple(tasks), tokenizer, processes
        self._vocabulary = vocabulary_checksum(tokenizer)
        self._plans: list[TaskPlan] = []
        templates = 0
        for number, (task, facts) in enumerate(zip(tasks, self._facts(), strict=True)):
            self._plans.append(plan_task(number, templates, task, facts, settings))
            templates += len(task.templates)
        names = [fingerprint(plan, settings, self._vocabulary, unit_examples) for plan in self._plans]
        self._groups = [f"units/{name}" for name in names]
        work.forget("units", names)

    def _facts(self) -> list[dict[Part, SourceFacts]]:
        """What the sources of each task are; each is read through for it."""
        facts: list[dict[Part, SourceFacts]] = [{} for _ in self._tasks]
        parts = [(number, part) for number, task in enumerate(self._tasks) for part in task_parts(task)]
        sources = [self._tasks[number].source(part) for number, part in parts]
        found = map_in_order(source_facts, sources, min(self._processes, len(sources)))
        for (number, part), (_, of_source) in zip(parts, found, strict=True):
            facts[number][part] = of_source
        return facts

    def run(self, resumable: bool, console: Console | None) -> None:
        """Makes what is not there yet and puts the output together."""
        total = sum(plan.renderings for plan in self._plans)
        done = 0
        with _progress(console, total) as advance:
            pieces = self._pieces(self._prepare_workers(), advance)
            shared = self._processes if total >= _RENDERINGS_WORTH_PROCESSES else 1
            for piece, renderings in map_in_order(build_unit, pieces, shared):
                done += renderings
                self._work.keep |= resumable and done >= _RENDERINGS_WORTH_KEEPING
                advance(self._tasks[piece.unit.task].name, renderings)
        self._put_together()

    def _prepare_workers(self) -> Path:
        path = self._work / "worker.pickle"
        workshop = Workshop(self._tasks, self._tokenizer, self._settings)
        content = pickle.dumps(workshop, pickle.HIGHEST_PROTOCOL)
        # Its name tells its content, for open_workshop remembers what it read under a name.
        path = path.with_stem(f"worker-{hashlib.sha256(content).hexdigest()[:16]}")
        path.write_bytes(content)
        # Read before the workers are forked from this process, so that they all share it.
        open_workshop(path)
        return path

    def _pieces(self, workshop: Path, advance: Callable[[str, int], None]) -> Iterator[UnitWork]:
        """The units that are to be made; the rows of finished tasks are not even read."""
        for plan, group in zip(self._plans, self._groups, strict=True):
            if self._is_finished(group):
                advance(plan.task.name, plan.renderings)
                continue
            names: list[str] = []
            for unit in plan.units(self._unit_examples):
                names.append(unit.name)
                if self._work.has(f"{group}/{unit.name}"):
                    advance(plan.task.name, unit.renderings(len(plan.task.templates)))
                else:
                    yield UnitWork(unit, self._work / f"{group}/{unit.name}", workshop)
            _write_aside(self._work / f"{group}/names.json", json.dumps(names))

    def _is_finished(self, group: str) -> bool:
        return (self._work / f"{group}/names.json").is_file() and all(
            folder.is_dir() for folder in self._folders(group)
        )

    def _folders(self, group: str) -> list[Path]:
        """The units of a task in their order; they are known once all of its rows were read."""
        names = json.loads((self._work / f"{group}/names.json").read_text(encoding="utf-8"))
        return [self._work / f"{group}/{name}" for name in names]

    def _put_together(self) -> None:
        counts = [{split: Counts() for split in SPLITS} for plan in self._plans for _ in plan.task.templates]
        folders: dict[str, list[Path]] = {split: [] for split in SPLITS}
        examples: list[str] = []
        for plan, group in zip(self._plans, self._groups, strict=True):
            of_task: list[str] = []
            for folder in self._folders(group):
                split = folder.name.partition("-")[2]
                folders[split].append(folder)
                content = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
                for number, of_template in enumerate(content, start=plan.first_template):
                    counts[number][split].add(Counts.of_json(of_template))
                if split == "train" and len(of_task) < EXAMPLES_A_TASK:
                    with (folder / "examples.jsonl").open(encoding="utf-8", errors="surrogatepass") as lines:
                        of_task += lines
            examples += of_task[:EXAMPLES_A_TASK]
        if not any(of_template["train"].examples for of_template in counts):
            raise ValueError(f"mixture {self._settings.name!r} leaves no example to train on")
        checksums = {split: content_checksum(folders[split], split) for split in SPLITS}
        card = mixture_card(
            self._plans,
            counts,
            self._settings,
            vocabulary_size=len(self._tokenizer),
            vocabulary=self._vocabulary,
            checksums=checksums,
        )
        with self._work.whole() as whole:
            schema = arrow_schema(len(self._tokenizer))
            for split in SPLITS:
                link_dataset(folders[split], split, whole / split, schema, checksums[split])
            (whole / "examples.jsonl").write_text("".join(examples), encoding="utf-8", errors="surrogatepass")
            write_card(card, whole)


def content_checksum(folders: Sequence[Path], split: str) -> str:
    """SHA-256 over all columns of a split, however it is cut into files."""
    import pyarrow as pa

    hashes = [hashlib.sha256() for _ in range(6)]
    for folder in folders:
        with pa.memory_map(str(folder / f"{split}.arrow")) as file:
            for batch in pa.ipc.open_stream(file):
                inputs, labels, tasks, templates = batch.columns
                lengths = (inputs.value_lengths(), labels.value_lengths())
                values = (inputs.flatten(), labels.flatten(), *lengths, tasks, templates)
                for content, column in zip(hashes, values, strict=True):
                    content.update(column.to_numpy(zero_copy_only=False).astype("<i4", copy=False).tobytes())
    return hashlib.sha256("".join(content.hexdigest() for content in hashes).encode()).hexdigest()


def _write_aside(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.new")
    aside.write_text(content, encoding="utf-8")
    aside.replace(path)


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


def _say(console: Console, card: dict[str, Any]) -> None:
    counts = card["totals"]["train"]
    line = f"{counts['examples']:,} examples to train on"
    for what in ("input", "target"):
        if counts[f"truncated_{what}s"]:
            line += f"; {counts[f'truncated_{what}s']:,} {what}s cut to {card[f'max_{what}_length']} tokens"
    for reason, number in counts["dropped"].items():
        line += f"; {number:,} dropped ({reason})"
    console.print(line, highlight=False)
