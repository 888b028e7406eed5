"""Zero-shot evaluation on a suite: every task, every template, ranked and scored.

    results = evaluate("runs/finetune", "t0", Path("results"), data_root=Path("data"))
    results["overall"]["mean"], results["tasks"][0]["templates"][0]["accuracy"]

A suite is one that has a name or a file (``suite_file.py``). The model is loaded once; templates of a task share
batches, and what was ranked is on the disk template by template (``evaluation_folder.py``), so that a killed evaluation
goes on where it stood. A task that fails is named, and the others go on. In the end the folder holds:

- ``results.json``: ``overall``, ``tasks`` (each with its ``templates``), ``missing`` (tasks without data),
  ``failures``, ``skipped`` (templates without answers to rank), ``generated`` (what was written for those); see
  ``results.py``.
- ``results.md``: the same as a table; ``report.html``: a page to look at.
- ``predictions/``: every single one, see ``predictions.py``.
"""

from __future__ import annotations

import datetime
import hashlib
import math
import platform
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from metro_t0.evaluation.evaluation_folder import EvaluationFolder, check_unfinished
from metro_t0.evaluation.loading import load_model
from metro_t0.evaluation.predictions import Prediction, TemplatePredictions
from metro_t0.evaluation.questions import OPEN_ENDED, Questions, TaskQuestions, add_shots, ask
from metro_t0.evaluation.rank import RankResult, progress_bar, rank_rows
from metro_t0.evaluation.report import write_report
from metro_t0.evaluation.results import (
    FORMAT_VERSION,
    OFFICIAL,
    SCORINGS,
    Entry,
    group_entries,
    overall_entry,
    task_results,
)
from metro_t0.evaluation.suite_file import Suite, load_suite
from metro_t0.evaluation.supervision import trained_on

if TYPE_CHECKING:
    from rich.console import Console

# Fewer prompts than this are ranked together with those of the task's next template: enough of them for batches of like
# length, and little is lost when the process is killed.
_PROMPTS_AT_ONCE = 2048

Ranker = Callable[[Sequence[str], Sequence[Sequence[str]], Callable[[int], None]], list[RankResult]]


@dataclass(frozen=True)
class EvaluationSettings:
    """What is asked, of which rows, and how it is scored.

    Attributes:
        limit: only the first rows of each task; None = all.
        split: instead of the splits that the suite's tasks name.
        shots: solved examples before each question.
        max_input_length: tokens of a prompt that are read, ``<s>`` and ``</s>`` included.
        scoring: further ways of scoring beside the official one, of ``results.SCORINGS``.
        precision: of the weights and activations; log-probabilities are float32 in any case.
        generate: whether templates without answer choices are answered freely and scored.
        seed: of the bootstrap and of what templates draw.
    """

    limit: int | None = None
    split: str | None = None
    shots: int = 0
    max_input_length: int = 512
    scoring: tuple[str, ...] = ()
    precision: Literal["fp32", "bf16"] = "fp32"
    generate: bool = False
    seed: int = 0

    def check(self) -> None:
        """Raises ValueError naming the setting that cannot be."""
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit must be at least 1, not {self.limit}")
        if self.shots < 0:
            raise ValueError(f"shots must be 0 or more, not {self.shots}")
        for name in self.scoring:
            if name not in SCORINGS:
                raise ValueError(f"no scoring {name!r}; known: {', '.join(SCORINGS)}")


@dataclass
class _Course:
    """An evaluation on its way."""

    asked: list[TaskQuestions]
    failures: dict[str, str]
    say: Callable[[str], None]

    def fail(self, task: str, error: Exception) -> None:
        reason = " ".join(str(error).split()) or type(error).__name__
        self.failures[task] = reason
        self.asked = [one for one in self.asked if one.task.name != task]
        self.say(f"{task} failed, the others go on: {reason}")


def evaluate(
    model: str | Path,
    suite: str | Path,
    out: Path,
    settings: EvaluationSettings | None = None,
    *,
    templates: Path | None = None,
    data_root: Path | None = None,
    story_cloze: Path | None = None,
    batch_tokens: int | None = None,
    console: Console | None = None,
) -> Entry:
    """Rank and score every task of a suite.

    Args:
        model: a model folder, a run directory, or a Hub name; any sequence-to-sequence model of transformers.
        suite: ``t0``, ``mmlu``, or a suite's file.
        out: folder to fill; an evaluation that was interrupted in it is gone on with.
        settings: by default everything official.
        templates: takes the place of the suite's own templates folder.
        data_root: takes the place of the suite's own ``DIR/<dataset>/<subset or default>/<split>.jsonl.gz``.
        story_cloze: StoryCloze's CSV of 2016, validation, as its authors send it.
        batch_tokens: padded tokens computed at once; by default what suits the device.
        console: shows a progress bar and what fails there; silent without.

    Returns:
        What ``results.json`` holds. ``failures`` names the tasks that failed.

    Raises:
        ValueError: ``out`` holds results already, the suite is broken or none of its tasks can be scored, or the model
        cannot be read.
    """
    settings = settings or EvaluationSettings()
    settings.check()
    out = Path(out)
    check_unfinished(out)
    the_suite = load_suite(
        suite, templates=templates, data_root=data_root, split=settings.split, story_cloze=story_cloze
    )
    say = (lambda line: console.print(line, markup=False)) if console else (lambda line: None)
    course = _ask(the_suite, settings, say)
    network, tokenizer = load_model(model)
    if settings.shots:
        _add_shots(course, settings, tokenizer)
    model_checksum = weights_checksum(network)
    asked_for = {"format_version": FORMAT_VERSION, "suite": the_suite.name, "model": model_checksum}
    asked_of_tasks = {
        one.task.name: _together([one.data_checksum, one.templates_checksum]) for one in course.asked
    }

    def rank(
        prompts: Sequence[str], choices: Sequence[Sequence[str]], advance: Callable[[int], None]
    ) -> list[RankResult]:
        return rank_rows(
            network,
            tokenizer,
            prompts,
            choices,
            max_input_length=settings.max_input_length,
            batch_tokens=batch_tokens,
            advance=advance,
        )

    start = time.perf_counter()
    with EvaluationFolder(out, {**asked_for, **asdict(settings)}, asked_of_tasks) as folder:
        predictions = _rank_all(course, folder, rank, "calibrated" in settings.scoring, console)
        known = trained_on(model) or frozenset()
        scored = [
            task_results(
                one,
                [predictions[one.task.name, questions.template] for questions in one.questions],
                scoring=settings.scoring,
                supervised=(one.task.dataset, one.task.subset) in known,
                seed=settings.seed,
            )
            for one in course.asked
            if one.questions
        ]
        entries = [entry for entry, _ in scored]
        seconds = time.perf_counter() - start
        prompts = sum(len(of.items) for of in predictions.values())
        results: Entry = {
            "format_version": FORMAT_VERSION,
            "suite": the_suite.name,
            "model": str(model),
            "limit": settings.limit,
            "split": settings.split,
            "shots": settings.shots,
            "max_input_length": settings.max_input_length,
            "seed": settings.seed,
            "scoring": [OFFICIAL, *settings.scoring],
            "checksums": {
                "model": model_checksum,
                "templates": _together(one.templates_checksum for one in course.asked),
                "data": _together(one.data_checksum for one in course.asked),
            },
            "overall": overall_entry(
                [score for _, score in scored], entries, expected_tasks=len(the_suite.order)
            ),
            "groups": group_entries([score for _, score in scored], entries),
            "tasks": entries,
            "missing": [{"task": name, "reason": reason} for name, reason in the_suite.missing.items()],
            "failures": [{"task": name, "reason": reason} for name, reason in course.failures.items()],
            "skipped": [
                {"task": one.task.name, "template": template.name, "reason": OPEN_ENDED}
                for one in course.asked
                for template in one.open_ended
            ],
            "prompts": prompts,
            "truncated_prompts": sum(entry["truncated_prompts"] for entry in entries),
            "seconds": seconds,
            "examples_per_second": prompts / math.fsum(of.seconds for of in predictions.values()),
            "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "environment": _environment(network),
        }
        folder.finish(results)
        write_report([], out / "report.html", evaluation=out, title=f"{the_suite.name}: {Path(model).name}")
    return results


def weights_checksum(model: Any) -> str:
    """SHA-256 of a model's tensors, in the order of their names, in the precision that they are held in."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _ask(suite: Suite, settings: EvaluationSettings, say: Callable[[str], None]) -> _Course:
    """All tasks as questions; a task that cannot be asked is a failure of that task, unless all are."""
    course = _Course([], {}, say)
    first: ValueError | None = None
    for task in suite.tasks:
        try:
            course.asked.append(ask(task, limit=settings.limit, seed=settings.seed))
        except ValueError as error:
            first = first or error
            if len(suite.tasks) > 1:
                course.fail(task.name, error)
    if not course.asked and first is not None:
        raise first
    if not any(one.questions for one in course.asked) and not settings.generate:
        raise ValueError(
            f"suite {suite.name!r}: no template has answer choices to rank; ranking needs templates with "
            "answer_choices, and --generate scores what the model writes"
        )
    return course


def _add_shots(course: _Course, settings: EvaluationSettings, tokenizer: Any) -> None:
    def fits(prompt: str) -> bool:
        return len(tokenizer(prompt)["input_ids"]) <= settings.max_input_length

    for one in list(course.asked):
        try:
            add_shots(one, settings.shots, fits=fits, seed=settings.seed)
        except ValueError as error:
            if len(course.asked) == 1:
                raise
            course.fail(one.task.name, error)


def _rank_all(
    course: _Course, folder: EvaluationFolder, rank: Ranker, calibrated: bool, console: Console | None
) -> dict[tuple[str, str], TemplatePredictions]:
    """Predictions of every (task, template), those of an earlier call included."""
    done: dict[tuple[str, str], TemplatePredictions] = {}
    for one in course.asked:
        for questions in one.questions:
            found = folder.predictions(one.task.name, questions.template)
            if found is not None:
                done[one.task.name, questions.template] = found
    total = sum(len(questions.prompts) for one in course.asked for questions in one.questions)
    before = sum(len(found.items) for found in done.values())
    if before:
        course.say(f"going on: {before:,} of {total:,} prompts were ranked before")
    with progress_bar(console, total, "Ranking answers") as advance:
        advance(before)
        for one in list(course.asked):
            name = one.task.name
            try:
                for group in _groups([q for q in one.questions if (name, q.template) not in done]):
                    for predicted in _rank_group(name, group, rank, calibrated, advance):
                        folder.add(predicted)
                        done[name, predicted.template] = predicted
            except (ValueError, RuntimeError) as error:
                if len(course.asked) == 1 and not course.failures:
                    raise
                course.fail(name, error)
    return {key: found for key, found in done.items() if key[0] not in course.failures}


def _groups(questions: Sequence[Questions]) -> Iterator[list[Questions]]:
    group: list[Questions] = []
    for one in questions:
        group.append(one)
        if sum(len(member.prompts) for member in group) >= _PROMPTS_AT_ONCE:
            yield group
            group = []
    if group:
        yield group


def _rank_group(
    task: str, group: Sequence[Questions], rank: Ranker, calibrated: bool, advance: Callable[[int], None]
) -> Iterator[TemplatePredictions]:
    """Ranks some templates of a task together."""
    start = time.perf_counter()
    results = iter(
        rank(
            [prompt for one in group for prompt in one.prompts],
            [choices for one in group for choices in one.choices],
            advance,
        )
    )
    unprompted: dict[str, float] = {}
    if calibrated:
        answers = list(
            dict.fromkeys(answer for one in group for choices in one.choices for answer in choices)
        )
        (alone,) = rank([""], [answers], lambda rows: None)
        unprompted = dict(zip(answers, alone.log_likelihoods, strict=True))
    seconds = (time.perf_counter() - start) / sum(len(one.prompts) for one in group)
    for one in group:
        items = [
            Prediction(
                row,
                prompt,
                choices,
                result.log_likelihoods,
                result.lengths,
                result.prediction,
                gold,
                [unprompted[answer] for answer in choices] if calibrated else None,
                result.prompt_truncated,
            )
            for row, prompt, choices, gold, result in zip(
                one.rows, one.prompts, one.choices, one.golds, results, strict=False
            )
        ]
        yield TemplatePredictions(task, one.template, items, dict(one.dropped), seconds * len(items))


def _together(checksums: Iterable[str]) -> str:
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


def _environment(model: Any) -> Entry:
    import torch
    import transformers

    from metro_t0 import __version__

    return {
        "metro_t0": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": str(model.device),
        "precision": str(model.dtype).removeprefix("torch."),
    }
