"""Makes a study's runs: pretrain, finetune, rank, look inside, record; one after the other, by any number of processes.

    outcome = run_study(load_study("paper-axes"), Path("prepared"), Path("study"), StudySettings())
    outcome.done, outcome.failed

What is done is on the disk, stage by stage: a study that was killed goes on with the same call. A run whose losses are
no longer numbers, or that fails otherwise, is recorded as such, and the others go on.
"""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from metro_t0.analysis.analyze import AnalysisSettings, analyze
from metro_t0.config import FinetuneConfig, PretrainConfig, read_config
from metro_t0.data.prepare import PreparedCorpus
from metro_t0.evaluation.records import is_evaluation, read_evaluation, read_run
from metro_t0.evaluation.suites import EvaluationSettings, evaluate
from metro_t0.prompts.mixture import load_mixture
from metro_t0.study.plan import FREE_SETTINGS, PlannedRun
from metro_t0.study.preparation import PreparedStudy, StudySettings, prepare_study
from metro_t0.study.record import (
    Record,
    evaluation_summary,
    read_record,
    training_summary,
    write_record,
)
from metro_t0.study.study_file import Study
from metro_t0.study.study_folder import StudyFolder
from metro_t0.tokenization.inspection import open_tokenizer
from metro_t0.training.interruption import stopped_at_once
from metro_t0.training.metrics import NonFiniteError
from metro_t0.training.run import finetune, pretrain
from metro_t0.training.run_directory import environment

if TYPE_CHECKING:
    from rich.console import Console

ConfigType = TypeVar("ConfigType", PretrainConfig, FinetuneConfig)


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
    numbered = list(enumerate(prepared.plan.runs, start=1))
    # Whoever holds a run may end without having made it: those are looked at again until all that are left are held.
    left: list[tuple[int, PlannedRun]] = []
    held = numbered
    while held and len(held) != len(left):
        left, held = held, [(number, run) for number, run in held if not worker.see_to(run, number)]
    outcome = StudyOutcome(elsewhere=[run.name for _, run in held])
    for run in prepared.plan.runs:
        record = worker.record(run)
        if record is not None and record.status == "done":
            outcome.done.append(run.name)
        elif record is not None:
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

    def see_to(self, run: PlannedRun, number: int) -> bool:
        """Make a run that has no record; False where another process is making it."""
        if self.record(run) is not None:
            return True
        with self.folder.claimed(run.name) as mine:
            # Another process may have ended it just now.
            if mine and self.record(run) is None:
                self.say(f"\\[{number}/{len(self.prepared.plan.runs)}] {run.name}: {run.tokens:,} tokens")
                self.make(run)
            return mine

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
