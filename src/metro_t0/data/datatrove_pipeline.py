"""The same preparation on many machines, as four datatrove pipelines, one after the other.

    stages = cluster_stages(["books/", "web.jsonl"], Path("prepared"), tokenizer=Path("tokenizer"))
    run_in_turn(stages, lambda stage: LocalPipelineExecutor(**stage.arguments(), workers=8))
    corpus = PreparedCorpus.load(Path("prepared"))      # with the checksums that ``prepare`` would give

Any executor of datatrove will do; ``examples/`` has local, Slurm and Ray, ``docs/clusters.md`` says more. Machines
meet in the work folder beside the output (``.prepared.work``), which they must all see under the same path. Tasks read
units, then one task decides what becomes of each document, tasks write shards, and one task puts the output together.
A task that is run again does only what is missing.
"""

from __future__ import annotations

import os
import pickle
import shutil
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

try:
    from datatrove.executor.base import PipelineExecutor
    from datatrove.pipeline.base import PipelineStep
except ImportError as error:
    raise ImportError(
        "preparing on many machines needs datatrove: pip install 'metro-t0[corpora]'"
    ) from error

from metro_t0.data.preparation import Job, Settings, keep_tokenizer, key_of, read_unit
from metro_t0.data.shards import BatchOfParts, Encoding, shard_name, write_shards
from metro_t0.data.staging import StagedCorpus
from metro_t0.data.work import WorkFolder


@dataclass(frozen=True)
class Stage:
    """A pipeline, to be given to an executor of datatrove's.

    Attributes:
        name: read, choose, encode or finish.
        pipeline: its steps.
        tasks: into how many its work is cut.
        logs: folder for datatrove's logs and its list of finished tasks.
    """

    name: str
    pipeline: list[PipelineStep]
    tasks: int
    logs: Path

    def arguments(self) -> dict[str, Any]:
        """What every executor wants to know: ``pipeline``, ``tasks``, ``logging_dir``."""
        return {"pipeline": self.pipeline, "tasks": self.tasks, "logging_dir": str(self.logs)}


def cluster_stages(
    sources: Sequence[str | os.PathLike[str]],
    out: Path,
    *,
    tokenizer: Path,
    settings: Settings | None = None,
    tasks: int | None = None,
) -> list[Stage]:
    """The stages of a preparation, in order; each needs all tasks of the one before to be done.

    What they need is looked up now and kept in the work folder: sources, units, tokenizer, evaluation suite. Called
    again with the same arguments, it gives stages that go on where the last ones were.

    Args:
        sources: what to read; see ``metro_t0.data.corpora``.
        out: folder to make, seen by all machines; must not hold anything yet.
        tokenizer: folder of the tokenizer; ``metro-t0 tokenizer train`` makes one.
        settings: as :func:`metro_t0.data.prepare.prepare` takes them.
        tasks: into how many the stages that work in parallel are cut; a task a unit of reading unless given.

    Raises:
        ValueError: a setting is impossible, a source or the tokenizer cannot be read, or ``out`` holds something.
    """
    from metro_t0.tokenization.inspection import open_tokenizer

    if tasks is not None and tasks < 1:
        raise ValueError(f"the number of tasks must be at least 1, not {tasks}")
    job = _with_absolute_paths(Job.of(sources, settings or Settings()))
    given = open_tokenizer(Path(tokenizer))
    work = WorkFolder(Path(out))
    try:
        work.path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"cannot write to {work.out.parent}: {error.strerror}") from error
    encoding = job.encoding(keep_tokenizer(work, given))
    group = job.blocks_group(encoding)
    # The card says what sources were called, which nothing else depends on.
    named = f"job-{key_of(group, [source.name for source in job.sources])}"
    shared = _Shared(work.out, named, f"plan-{job.state}", group, encoding)
    if not work.has(shared.job):
        with work.piece(shared.job) as folder:
            (folder / "job.pickle").write_bytes(pickle.dumps(job))
    parallel = tasks or len(job.units)
    # Which ranks are done says nothing about other settings or another number of tasks.
    logs = work / f"logs/{group}-{parallel}"
    if any((logs / "finish" / "completions").glob("*")):
        shutil.rmtree(logs)  # of a run whose output is there no longer
    steps = [ReadUnits(shared), ChooseDocuments(shared), EncodeShards(shared), FinishCorpus(shared)]
    names = ("read", "choose", "encode", "finish")
    counts = (parallel, 1, parallel, 1)
    return [
        Stage(name, [step], count, logs / name)
        for name, step, count in zip(names, steps, counts, strict=True)
    ]


def run_in_turn(stages: Sequence[Stage], executor: Callable[[Stage], PipelineExecutor]) -> None:
    """Run the stages here and now; ``executor`` makes one that waits for its tasks (not Slurm's, which queues them).

    Raises:
        ValueError: a task failed, in this process or another.
    """
    for stage in stages:
        running = executor(stage)
        running.run()
        # Ray's logs that a task failed and goes on.
        if left := running.get_incomplete_ranks(skip_completed=True):
            raise ValueError(
                f"{len(left)} of {stage.tasks} tasks of the stage {stage.name} did not finish: see "
                f"{stage.logs}/logs/task_{left[0]:05}.log; run it again to do what is missing"
            )


@dataclass(frozen=True)
class _Shared:
    """Where the tasks of a preparation find what they share: the output, pieces of its work folder by name."""

    out: Path
    job: str
    plan: str
    blocks: str
    encoding: Encoding

    def open(self) -> tuple[WorkFolder, Job]:
        work = WorkFolder(self.out)
        if not work.has(self.job):
            raise ValueError(
                f"{work / self.job} is not there: do all machines see the same {self.out.parent}?"
            )
        job: Job = pickle.loads((work / self.job / "job.pickle").read_bytes())
        return work, job


class _Step(PipelineStep):
    """Does its work where others pass documents on; there is nothing before or behind it in its pipeline."""

    type = "metro-t0"

    def __init__(self, shared: _Shared) -> None:
        super().__init__()
        self.shared = shared

    def run(self, data: object = None, rank: int = 0, world_size: int = 1) -> Iterator[Any]:
        """Do this rank's share."""
        self.work(rank, world_size)
        yield from ()

    @abstractmethod
    def work(self, rank: int, world_size: int) -> None:
        """Do what falls to ``rank`` and is not there yet."""


class ReadUnits(_Step):
    """Reads, cleans and stages units; each rank every ``world_size``-th."""

    name = "read"

    def work(self, rank: int, world_size: int) -> None:
        """See the class."""
        work, job = self.shared.open()
        for unit, name in list(zip(job.units, job.read_names, strict=True))[rank::world_size]:
            if not work.has(f"read/{name}"):
                characters = read_unit((unit, work / f"read/{name}"), job.selection)
                self.stat_update("characters", value=characters, unit="unit")


class ChooseDocuments(_Step):
    """Decides what becomes of each document and writes the plan of each shard; one rank does it all."""

    name = "choose"

    def work(self, rank: int, world_size: int) -> None:
        """See the class."""
        work, job = self.shared.open()
        if rank or work.has(self.shared.plan):
            return
        corpus = _chosen(work, job)
        with work.piece(self.shared.plan) as folder:
            for number, shard in enumerate(job.shards(corpus, job.parts(corpus))):
                (folder / f"{number:06}.pickle").write_bytes(pickle.dumps(shard))
                self.stat_update("shards")
        self.stat_update("documents", value=len(corpus))


class EncodeShards(_Step):
    """Tokenises and packs shards; each rank every ``world_size``-th."""

    name = "encode"

    def work(self, rank: int, world_size: int) -> None:
        """See the class."""
        work = WorkFolder(self.shared.out)
        for plan in _plans(work, self.shared)[rank::world_size]:
            number = int(plan.stem)
            if not work.has(shard_name(self.shared.blocks, number)):
                shard: list[BatchOfParts] = pickle.loads(plan.read_bytes())
                write_shards(work, self.shared.blocks, {number: shard}, self.shared.encoding, processes=1)
                self.stat_update("shards")


class FinishCorpus(_Step):
    """Puts shards, tokenizer and card together; one rank does it all, and the work folder but for the logs goes."""

    name = "finish"

    def work(self, rank: int, world_size: int) -> None:
        """See the class."""
        if rank:
            return
        work, job = self.shared.open()
        names = [shard_name(self.shared.blocks, int(plan.stem)) for plan in _plans(work, self.shared)]
        if missing := [name for name in names if not work.has(name)]:
            raise ValueError(
                f"{len(missing)} of {len(names)} shards are not written; run the stage encode first"
            )
        folders = [work / name for name in names]
        job.finish(work, _chosen(work, job), folders, self.shared.encoding, trained_here=False)
        for entry in work.path.iterdir():
            if entry.name != "logs":
                shutil.rmtree(entry)


def _chosen(work: WorkFolder, job: Job) -> StagedCorpus:
    """The documents used; near-duplicates are looked for once."""
    missing = sum(not work.has(f"read/{name}") for name in job.read_names)
    if missing:
        raise ValueError(f"{missing} of {len(job.units)} units are not read; run the stage read first")
    corpus = job.staged(work)
    if job.settings.near_duplicates:
        job.leave_near_duplicates_out(work, corpus, processes=1)
    return corpus


def _plans(work: WorkFolder, shared: _Shared) -> list[Path]:
    if not work.has(shared.plan):
        raise ValueError("the documents are not chosen yet; run the stage choose first")
    return sorted((work / shared.plan).iterdir())


def _with_absolute_paths(job: Job) -> Job:
    """For tasks that start in another folder than this process."""
    sources = tuple(
        replace(source, files=tuple(path.absolute() for path in source.files)) for source in job.sources
    )
    units = tuple(
        replace(unit, pieces=tuple(replace(piece, path=piece.path.absolute()) for piece in unit.pieces))
        for unit in job.units
    )
    cleaning, model = job.selection.cleaning, job.selection.cleaning.language_model
    selection = replace(job.selection, cleaning=replace(cleaning, language_model=model and model.absolute()))
    return replace(job, sources=sources, units=units, selection=selection)
