"""What comes before a study's first run: everything seen to fit together, costs measured, runs planned.

    prepared = prepare_study(load_study("paper-axes"), Path("prepared"), Path("study"), StudySettings())
    [run.name for run in prepared.plan.runs]

What was measured and what the study is made of are in its folder's ``study.json`` from then on, for all processes and
calls.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metro_t0.data.preparation import vocabulary_checksum
from metro_t0.data.prepare import PreparedCorpus
from metro_t0.data.rows import TokenRows
from metro_t0.evaluation.course import Course
from metro_t0.evaluation.suite_file import load_suite
from metro_t0.prompts.build_plan import templates_checksum
from metro_t0.prompts.mixture import load_mixture
from metro_t0.study.costs import Costs, measured_costs
from metro_t0.study.plan import FREE_SETTINGS, Plan, fingerprint, plan_runs
from metro_t0.study.study_file import Finetuning, Study
from metro_t0.study.study_folder import StudyFolder
from metro_t0.tokenization.inspection import open_tokenizer
from metro_t0.training.interruption import stopped_at_once
from metro_t0.training.run_directory import environment

if TYPE_CHECKING:
    from rich.console import Console

Kept = Literal["models", "nothing"]
_OTHER = {
    "study": "another study",
    "corpus": "another corpus",
    "tasks": "other rows or templates of what is ranked",
    "budget_seconds": "another budget",
}
# That are rendered to see that a task can be asked; all of them would take as long as a short run.
_ROWS_TO_TRY = 32


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
    asked = _Asked.check(study, data, out, settings, console)
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
    asked = _Asked.check(study, data, out, settings, console)
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
    def check(
        cls, study: Study, data: Path, out: Path, settings: StudySettings, console: Console | None
    ) -> _Asked:
        """A mistake is told here, before anything is measured or written."""
        corpus = PreparedCorpus.load(data)
        shape = _corpus_shape(corpus)
        plan_runs(study, **shape)
        tasks = {
            name: _checked_tasks(one, settings, StudyFolder(out).mixture(name).is_dir(), console)
            for name, one in study.finetunings.items()
        }
        facts = {
            "study": described(study),
            "corpus": _corpus_facts(corpus),
            "tasks": tasks,
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
            # A study that was begun before a fact was kept says nothing of it.
            if stored.get(what, value) != value:
                raise ValueError(
                    f"{out} was begun with {_OTHER[what]}: give the same again to go on with it, or another folder"
                )
        return self._planned(Costs(**stored["costs"]))

    def _planned(self, costs: Costs) -> PreparedStudy:
        shortened = costs.shortened(self.study)
        plan = plan_runs(shortened, **self.shape, speeds=costs.speeds)
        facts = {"corpus": self.facts["corpus"], "finetunings": described(shortened)["finetunings"]}
        return PreparedStudy(shortened, plan, {run.name: fingerprint(run, facts) for run in plan.runs})


def _checked_tasks(
    finetuning: Finetuning, settings: StudySettings, is_built: bool, console: Console | None
) -> str:
    """See that there is something to train on and to ask, before the hours that come before that.

    Returns:
        A checksum of the rows and templates that are ranked.
    """
    finetuning.config(0)
    templates, data_root = settings.templates, settings.data_root
    if not is_built:
        load_mixture(finetuning.mixture, templates=templates, data_root=data_root, allow_missing=True).check()
    suite = load_suite(finetuning.suite, templates=templates, data_root=data_root)

    def say(line: str) -> None:
        if console is not None:
            console.print(line, highlight=False)

    try:
        Course.begin(suite, limit=_ROWS_TO_TRY, seed=0, say=say)
    except ValueError:
        # Examples may begin further down.
        Course.begin(suite, limit=finetuning.limit, seed=0, say=say)
    digest = hashlib.sha256()
    for task in suite.tasks:
        digest.update(f"{task.name} {templates_checksum(task)}\n".encode())
        for row in task.evaluation_rows(finetuning.limit):
            digest.update(json.dumps(row, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()[:16]


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
