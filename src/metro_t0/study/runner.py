"""Makes a study's runs: pretrain, finetune, rank, look inside, record; one after the other, by any number of processes.

    outcome = run_study(load_study("paper-axes"), Path("prepared"), Path("study"), settings)
    outcome.done, outcome.failed

What is done is on the disk, stage by stage: a study that was killed goes on with the same call. A run whose losses are
no longer numbers, or that fails otherwise, is recorded as such, and the others go on.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from metro_t0.analysis.analyze import AnalysisSettings, analyze
from metro_t0.config import FinetuneConfig, PretrainConfig, read_config
from metro_t0.data.preparation import vocabulary_checksum
from metro_t0.data.prepare import PreparedCorpus
from metro_t0.data.rows import TokenRows
from metro_t0.evaluation.course import Course
from metro_t0.evaluation.records import is_evaluation, read_evaluation, read_run
from metro_t0.evaluation.suite_file import load_suite
from metro_t0.evaluation.suites import EvaluationSettings, evaluate
from metro_t0.prompts.mixture import load_mixture
from metro_t0.study.costs import Costs, measured_costs
from metro_t0.study.plan import FREE_SETTINGS, Plan, PlannedRun, fingerprint, plan_runs
from metro_t0.study.record import (
    Record,
    evaluation_summary,
    read_record,
    training_summary,
    write_record,
)
from metro_t0.study.study_file import Finetuning, Study
from metro_t0.study.study_folder import StudyFolder
from metro_t0.tokenization.inspection import open_tokenizer
from metro_t0.training.interruption import stopped_at_once
from metro_t0.training.metrics import NonFiniteError
from metro_t0.training.run import finetune, pretrain
from metro_t0.training.run_directory import environment

if TYPE_CHECKING:
    from rich.console import Console

Kept = Literal["models", "nothing"]
ConfigType = TypeVar("ConfigType", PretrainConfig, FinetuneConfig)


@dataclass(frozen=True)
class StudySettings:
    """Where a study's tasks are, and how it is run.

    Attributes:
        data_root: rows of tasks, as ``metro-t0 evaluate`` reads them.
        templates: promptsource's templates.
        budget_seconds: about how long the whole study may take on this machine with one process; everything is made
            shorter to fit. None = as the study says.
        keep: of a recorded run's folder: its models and metrics, or nothing.
    """

    data_root: Path | None = None
    templates: Path | None = None
    budget_seconds: float | None = None
    keep: Kept = "models"


@dataclass
class StudyOutcome:
    """Names of runs.

    Attributes:
        done: with results.
        failed: recorded without: (name, reason).
        elsewhere: being made by other processes.
    """

    done: list[str] = field(default_factory=list)
    failed: list[tuple[str, str]] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class PreparedStudy:
    """A study with everything that its runs share.

    Attributes:
        study: what is compared, shortened where a budget asks for it.
        plan: its runs.
        fingerprints: run name -> checksum of what decides its outcome.
    """

    study: Study
    plan: Plan
    fingerprints: Mapping[str, str]


def prepare_study(
    study: Study, data: Path, out: Path, settings: StudySettings, console: Console | None = None
) -> PreparedStudy:
    """Measure what has to be measured, once for all processes and calls, and plan the runs.

    Raises:
        ValueError: the corpus, the study, its tasks or a setting do not fit, the budget is too short, or ``out`` was
            begun with something else.
    """
    asked = _Asked.check(study, data, out, settings)
    folder = StudyFolder(out)
    folder.stored()
    with folder.only("study"):
        stored = folder.stored()
        if stored is None:
            prepared, stored = asked.measured(console)
            folder.begin(stored)
            return prepared
        return asked.going_on(stored, out)


def preview_study(
    study: Study, data: Path, out: Path, settings: StudySettings, console: Console | None = None
) -> PreparedStudy:
    """What ``prepare_study`` would give, without a trace on the disk.

    Of a study that is not begun, what has to be measured is measured for this preview, and again when it begins.

    Raises:
        ValueError: as ``prepare_study``.
        RunStoppedError: SIGTERM or SIGINT came.
    """
    asked = _Asked.check(study, data, out, settings)
    stored = StudyFolder(out).stored()
    if stored is not None:
        return asked.going_on(stored, out)
    with stopped_at_once():
        return asked.measured(console)[0]


@dataclass(frozen=True)
class _Asked:
    """A study on a corpus, all of it seen to fit together.

    Attributes:
        facts: what must be the same when the study goes on.
        shape: what operations are counted by.
    """

    study: Study
    data: Path
    settings: StudySettings
    facts: Mapping[str, Any]
    shape: Mapping[str, Any]

    @classmethod
    def check(cls, study: Study, data: Path, out: Path, settings: StudySettings) -> _Asked:
        """A mistake is told here, before anything is measured or written."""
        corpus = PreparedCorpus.load(data)
        shape = _corpus_shape(corpus)
        plan_runs(study, **shape)
        for name, finetuning in study.finetunings.items():
            _check_tasks(finetuning, settings, is_built=StudyFolder(out).mixture(name).is_dir())
        facts = {
            "study": described(study),
            "corpus": _corpus_facts(corpus),
            "budget_seconds": settings.budget_seconds,
        }
        return cls(study, data, settings, facts, shape)

    def measured(self, console: Console | None) -> tuple[PreparedStudy, dict[str, Any]]:
        """The study as it begins, and what its folder then says of it."""
        costs = measured_costs(
            self.study, self.data, budget_seconds=self.settings.budget_seconds, **self.shape, console=console
        )
        prepared = self._planned(costs)
        return prepared, {
            **self.facts,
            "costs": costs.model_dump(mode="json"),
            "runs": [
                {
                    "name": run.name,
                    "size": run.arm.size,
                    "axis": run.arm.axis,
                    "value": run.arm.value,
                    "equality": run.equality,
                    "seed": run.seed,
                    "tokens": run.tokens,
                    "flops": run.flops,
                    "fingerprint": prepared.fingerprints[run.name],
                }
                for run in prepared.plan.runs
            ],
            "same_as_base": prepared.plan.same_as_base,
            "environment": environment(),
        }

    def going_on(self, stored: Mapping[str, Any], out: Path) -> PreparedStudy:
        """The study as it was begun."""
        for what, value in self.facts.items():
            if stored[what] != value:
                raise ValueError(
                    f"{out} was begun with another {what.replace('_', ' ')}: give the same again to go on with it, "
                    "or another folder"
                )
        return self._planned(Costs(**stored["costs"]))

    def _planned(self, costs: Costs) -> PreparedStudy:
        shortened = costs.shortened(self.study)
        plan = plan_runs(shortened, **self.shape, speeds=costs.speeds)
        facts = {"corpus": self.facts["corpus"], "finetunings": described(shortened)["finetunings"]}
        return PreparedStudy(shortened, plan, {run.name: fingerprint(run, facts) for run in plan.runs})


def _check_tasks(finetuning: Finetuning, settings: StudySettings, *, is_built: bool) -> None:
    """See that a row of each task can be trained on and asked, before the hours that come before that."""
    finetuning.config(0)
    templates, data_root = settings.templates, settings.data_root
    if not is_built:
        load_mixture(finetuning.mixture, templates=templates, data_root=data_root, allow_missing=True).check()
    suite = load_suite(finetuning.suite, templates=templates, data_root=data_root)
    Course.begin(suite, limit=1, seed=0, say=lambda line: None)


def described(study: Study) -> dict[str, Any]:
    """A study as plain values that name no place on this machine: of each file its name and a checksum."""
    values = study.model_dump(mode="json")
    for part in (values, *values["finetunings"].values()):
        for name in FREE_SETTINGS:
            part["settings"].pop(f"training.{name}", None)
    for finetuning in values["finetunings"].values():
        for kind in ("mixture", "suite"):
            file = Path(finetuning[kind])
            if file.is_file():
                digest = hashlib.sha256(file.read_bytes()).hexdigest()[:16]
                finetuning[kind] = f"{file.name} ({digest})"
    return values


def run_study(
    study: Study, data: Path, out: Path, settings: StudySettings, console: Console | None = None
) -> StudyOutcome:
    """Make every run that has no record yet and that no other process is making.

    Args:
        study: what is compared.
        data: prepared corpus.
        out: the study's folder, to make or to go on with.
        settings: see there.
        console: for progress bars and a line a run; None = silent.

    Raises:
        ValueError: as ``prepare_study``; a record is of something else; a mixture cannot be built.
        RunStoppedError: SIGTERM or SIGINT came; the same call goes on.
    """
    with stopped_at_once():
        return _run_study(prepare_study(study, data, out, settings, console), data, out, settings, console)


def _run_study(
    prepared: PreparedStudy, data: Path, out: Path, settings: StudySettings, console: Console | None
) -> StudyOutcome:
    worker = _Worker(prepared, data, StudyFolder(out), settings, console)
    for name in prepared.study.finetunings:
        worker.mixture(name)
    outcome = StudyOutcome()
    for number, run in enumerate(prepared.plan.runs, start=1):
        record = worker.record(run)
        if record is None:
            with worker.folder.claimed(run.name) as mine:
                if not mine:
                    outcome.elsewhere.append(run.name)
                    continue
                record = worker.record(run)  # another process may have ended it just now
                if record is None:
                    worker.say(f"\\[{number}/{len(prepared.plan.runs)}] {run.name}: {run.tokens:,} tokens")
                    worker.make(run)
                    record = worker.record(run)
        assert record is not None
        if record.status == "done":
            outcome.done.append(run.name)
        else:
            outcome.failed.append((run.name, f"{record.status}: {record.values['reason']}"))
    return outcome


@dataclass(frozen=True)
class _Worker:
    prepared: PreparedStudy
    data: Path
    folder: StudyFolder
    settings: StudySettings
    console: Console | None

    def say(self, line: str) -> None:
        if self.console is not None:
            self.console.print(line, highlight=False)

    def record(self, run: PlannedRun) -> Record | None:
        record = read_record(self.folder.path, run.name)
        expected = self.prepared.fingerprints[run.name]
        if record is not None and record.values["fingerprint"] != expected:
            raise ValueError(
                f"the record of {run.name} in {self.folder.path} is of other settings, text or tasks than are asked "
                "for now: give another folder, or remove the record, and the run is made again"
            )
        return record

    def make(self, run: PlannedRun) -> None:
        """All stages of one run, and its record."""
        begun = time.monotonic()
        place = self.folder.run(run.name)
        values: dict[str, Any] = {
            "name": run.name,
            "size": run.arm.size,
            "axis": run.arm.axis,
            "value": run.arm.value,
            "equality": run.equality,
            "seed": run.seed,
            "fingerprint": self.prepared.fingerprints[run.name],
            "planned_tokens": run.tokens,
            "flops": run.flops,
        }
        try:
            values |= self._stages(run, place)
            values |= {"status": "done", "reason": None}
        except NonFiniteError as error:
            values |= {"status": "diverged", "reason": " ".join(str(error).split())}
        except ValueError as error:
            if isinstance(error.__cause__, OSError):
                raise  # a full disk is no one run's failure
            values |= {"status": "failed", "reason": " ".join(str(error).split())}
        if "pretraining" not in values and (place / "pretrain" / "metrics.jsonl").is_file():
            values["pretraining"] = training_summary(read_run(place / "pretrain"))
        values |= {"environment": environment(), "seconds_here": round(time.monotonic() - begun, 1)}
        write_record(self.folder.path, values)
        self._clear(place)
        if values["status"] != "done":
            self.say(f"{run.name} {values['status']}: {values['reason']}")

    def _stages(self, run: PlannedRun, place: Path) -> dict[str, Any]:
        mixtures = {name: self.folder.mixture(name) for name in self.prepared.study.finetunings}
        pretrained = pretrain(
            _as_begun(run.config, place / "pretrain"),
            self.data,
            place / "pretrain",
            resume=_is_begun(place / "pretrain"),
            console=self.console,
        )
        record = read_run(pretrained)
        finetunings = {}
        for name, finetuning in self.prepared.study.finetunings.items():
            config = finetuning.config(run.seed)
            tuned = finetune(
                _as_begun(config, place / name),
                pretrained,
                mixtures[name],
                place / name,
                resume=_is_begun(place / name),
                console=self.console,
            )
            ranked = place / f"{name}-ranked"
            if not is_evaluation(ranked):
                evaluate(
                    tuned,
                    finetuning.suite,
                    ranked,
                    EvaluationSettings(limit=finetuning.limit, max_input_length=config.max_input_length),
                    data_root=self.settings.data_root,
                    templates=self.settings.templates,
                    console=self.console,
                )
            found = read_evaluation(ranked)
            finetunings[name] = {
                "training": training_summary(read_run(tuned)),
                **evaluation_summary(found),
                "seconds": found.results.get("seconds"),
            }
        return {
            "config": record.config,
            "pretraining": training_summary(record),
            "finetunings": finetunings,
            "analysis": self._inside(pretrained, place),
        }

    def _inside(self, pretrained: Path, place: Path) -> dict[str, Any]:
        """The analyses: of the pretrained model on text, and of the first finetuned one on what it is ranked on."""
        settings = AnalysisSettings(zeroed_layers=0)
        found = {
            "pretrained": analyze(
                pretrained, corpus=self.data, settings=replace(settings, loss="own"), console=self.console
            )
        }
        for name, finetuning in list(self.prepared.study.finetunings.items())[:1]:
            found[name] = analyze(
                place / name,
                corpus=self.data,
                prompts=finetuning.suite,
                templates=self.settings.templates,
                data_root=self.settings.data_root,
                settings=settings,
                console=self.console,
            )
        return found

    def mixture(self, name: str) -> None:
        """See that a finetuning's mixture is built; the first process that comes here builds it."""
        finetuning = self.prepared.study.finetunings[name]
        built = self.folder.mixture(name)
        with self.folder.only("mixtures"):
            if not built.is_dir():
                config = finetuning.config(0)
                mixture = load_mixture(
                    finetuning.mixture,
                    templates=self.settings.templates,
                    data_root=self.settings.data_root,
                    allow_missing=True,
                )
                corpus = PreparedCorpus.load(self.data)
                mixture.build(
                    open_tokenizer(corpus.tokenizer),
                    built,
                    max_input_length=config.max_input_length,
                    max_target_length=config.max_target_length,
                    console=self.console,
                )

    def _clear(self, place: Path) -> None:
        """What is no longer needed of a recorded run: checkpoints in any case."""
        if self.settings.keep == "nothing":
            shutil.rmtree(place, ignore_errors=True)
            return
        for run in place.iterdir() if place.is_dir() else ():
            shutil.rmtree(run / "checkpoints", ignore_errors=True)


def _is_begun(run: Path) -> bool:
    return (run / "config.yaml").is_file()


def _as_begun(config: ConfigType, run: Path) -> ConfigType:
    """The configuration with what says how a machine computes as in the run to go on with, which keeps it."""
    if not _is_begun(run):
        return config
    stored = read_config(run / "config.yaml").training
    kept = {name: getattr(stored, name) for name in FREE_SETTINGS}
    return config.model_copy(update={"training": config.training.model_copy(update=kept)})


def _corpus_shape(corpus: PreparedCorpus) -> dict[str, Any]:
    """What the count of operations goes by: ids, sentinels, and the length by which attention costs what it costs."""
    tokenizer = open_tokenizer(corpus.tokenizer)
    lengths = TokenRows(corpus.train, ("input_ids",)).lengths.astype("float64")
    return {
        "vocabulary": len(tokenizer),
        "sentinels": tokenizer.num_sentinel_tokens,
        "length": float((lengths**2).sum() / lengths.sum()),
    }


def _corpus_facts(corpus: PreparedCorpus) -> dict[str, Any]:
    """What tells one corpus from another, wherever it lies."""
    return {
        "blocks": len(corpus.train),
        "tokens": corpus.card["tokens"],
        "characters": corpus.card["characters"],
        "sources": [Path(str(one["source"])).name for one in corpus.card["sources"]],
        "vocabulary": vocabulary_checksum(open_tokenizer(corpus.tokenizer)),
    }
