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
import functools
import hashlib
import math
import platform
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from metro_t0.evaluation.answers import score_answers
from metro_t0.evaluation.course import Course, Predictions
from metro_t0.evaluation.evaluation_folder import EvaluationFolder, check_unfinished
from metro_t0.evaluation.loading import Precision, load_model, resolved_precision
from metro_t0.evaluation.questions import OPEN_ENDED, TaskQuestions
from metro_t0.evaluation.ranking.budget import TokenBudget
from metro_t0.evaluation.ranking.plain import readable_tokens
from metro_t0.evaluation.ranking.precision import changed_predictions
from metro_t0.evaluation.ranking.processes import Processes, rank_together
from metro_t0.evaluation.ranking.rank import RankResult, unheard
from metro_t0.evaluation.records import write_text
from metro_t0.evaluation.report.markdown import results_markdown
from metro_t0.evaluation.report.page import write_report
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
from metro_t0.evaluation.written import answer_task, read_answers_of, write_answers

if TYPE_CHECKING:
    import torch
    from rich.console import Console
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class EvaluationSettings:
    """What is asked, of which rows, and how it is scored.

    Attributes:
        limit: only the first rows of each task; None = all.
        split: instead of the splits that the suite's tasks name.
        shots: solved examples before each question.
        max_input_length: tokens of a prompt that are read, ``<s>`` and ``</s>`` included.
        scoring: further ways of scoring beside the official one, of ``results.SCORINGS``.
        precision: of the weights and activations; log-probabilities are float32 in any case. ``int8`` runs on the CPU;
            ``auto`` is bf16 where the device multiplies it itself, else fp32.
        generate: whether templates without answer choices are answered freely and scored.
        seed: of the bootstrap and of what templates draw.
    """

    limit: int | None = None
    split: str | None = None
    shots: int = 0
    max_input_length: int = 512
    scoring: tuple[str, ...] = ()
    precision: Precision = "fp32"
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
    start = time.perf_counter()
    with Processes.from_environment() as processes, ExitStack() as held:
        console = console if processes.is_main else None
        say = unheard if console is None else functools.partial(console.print, markup=False)
        with processes.together():
            check_unfinished(out)
            the_suite = load_suite(
                suite, templates=templates, data_root=data_root, split=settings.split, story_cloze=story_cloze
            )
            course = Course.begin(the_suite, limit=settings.limit, seed=settings.seed, say=say)
            _check_answerable(course, the_suite, settings)
            device = "cpu" if settings.precision == "int8" else processes.device
            settings = replace(settings, precision=resolved_precision(settings.precision, device))
            # A broken card is told before the work, not after it.
            supervised = trained_on(model) or frozenset()
            network, tokenizer = load_model(model, device=device)
            answering = _Answering(
                network,
                tokenizer,
                settings,
                processes,
                TokenBudget.of(network, batch_tokens, longest=settings.max_input_length),
                console,
                say,
            )
            if settings.shots:
                course.add_shots(settings.shots, fits=answering.fits, seed=settings.seed)
            checksum = weights_checksum(network)
            folder = EvaluationFolder(
                out,
                {"suite": the_suite.name, "model": checksum, **asdict(settings)},
                {
                    one.task.name: _together([one.data_checksum, one.templates_checksum])
                    for one in course.asked
                },
            )
            if processes.is_main:
                held.enter_context(folder)
        precision = answering.set_precision(course)
        predictions = course.rank(
            folder if processes.is_main else None,
            answering.rank,
            calibrated="calibrated" in settings.scoring,
            processes=processes,
            console=console,
        )
        generated = answering.write(course, out / "generated") if settings.generate else []
        results = _results(the_suite, course, predictions, settings, supervised)
        results |= {
            "model": str(model),
            "precision": precision,
            "generated": generated,
            "seconds": time.perf_counter() - start,
            "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "environment": {**_environment(network), "precision": precision["dtype"]},
        }
        results["checksums"] = {"model": checksum, **results["checksums"]}
        if processes.is_main:
            folder.finish(results)
            write_text(out / "results.md", results_markdown(results))
            write_report(
                [], out / "report.html", evaluation=out, title=f"{the_suite.name}: {Path(model).name}"
            )
    return results


@dataclass
class _Answering:
    """A model at work, on all processes together."""

    network: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    settings: EvaluationSettings
    processes: Processes
    budget: TokenBudget
    console: Console | None
    say: Callable[[str], None]

    def fits(self, prompt: str) -> bool:
        """Whether the model reads all of a prompt."""
        most = readable_tokens(self.network, self.settings.max_input_length)
        return len(self.tokenizer(prompt)["input_ids"]) <= most

    def set_precision(self, course: Course) -> Entry:
        """Makes the model what the settings want; its entry says what that does to predictions."""
        if self.settings.precision == "fp32":
            return {"dtype": "float32", "sample": None, "changed": None}
        dtype = "int8" if self.settings.precision == "int8" else "bfloat16"
        self.say(f"ranking a sample in float32 and in {dtype}")
        questions = [questions for one in course.asked for questions in one.questions]
        with self.processes.together():
            sample, changed = changed_predictions(
                self.network,
                self.tokenizer,
                [prompt for one in questions for prompt in one.prompts],
                [choices for one in questions for choices in one.choices],
                precision="int8" if self.settings.precision == "int8" else "bf16",
                seed=self.settings.seed,
                max_input_length=self.settings.max_input_length,
                batch_tokens=self.budget,
                say=self.say,
            )
        self.say(f"{dtype} changes {changed} of {sample} predictions drawn from all")
        return {"dtype": dtype, "sample": sample, "changed": changed}

    def rank(
        self, prompts: Sequence[str], choices: Sequence[Sequence[str]], advance: Callable[[int], None]
    ) -> list[RankResult]:
        """All rows' results, on every process."""
        return rank_together(
            self.processes,
            self.network,
            self.tokenizer,
            prompts,
            choices,
            max_input_length=self.settings.max_input_length,
            batch_tokens=self.budget,
            advance=advance,
            say=self.say,
        )

    def write(self, course: Course, folder: Path) -> list[Entry]:
        """Entries of the templates without answer choices, answered by the main process."""
        entries: list[Entry] = []
        for one in list(course.asked):
            try:
                with self.processes.together():
                    written = self._write_task(one, folder) if self.processes.is_main else []
                entries += self.processes.broadcast(written)
            except (ValueError, RuntimeError) as error:
                course.guard(one.task.name, error)
        return entries

    def _write_task(self, one: TaskQuestions, folder: Path) -> list[Entry]:
        entries = []
        for template in one.open_ended:
            answers = read_answers_of(folder, one.task.name, template.name)
            if answers is None:
                answers = answer_task(
                    one.task,
                    template,
                    list(one.task.evaluation_rows(self.settings.limit)),
                    self.network,
                    self.tokenizer,
                    max_input_length=self.settings.max_input_length,
                    seed=self.settings.seed,
                    console=self.console,
                )
                write_answers(folder, answers)
            entries.append(answers.entry)
        return entries


def _check_answerable(course: Course, suite: Suite, settings: EvaluationSettings) -> None:
    if settings.generate:
        score_answers(["is the library there?"], ["it is"])
    elif not any(one.questions for one in course.asked):
        raise ValueError(
            f"suite {suite.name!r}: no template has answer choices to rank; ranking needs templates with "
            "answer_choices, and --generate scores what the model writes"
        )


def _results(
    suite: Suite,
    course: Course,
    predictions: Predictions,
    settings: EvaluationSettings,
    supervised: frozenset[tuple[str, str | None]],
) -> Entry:
    """What was asked and what came out; see ``results.py``."""
    scored = [
        task_results(
            one,
            [predictions[one.task.name, questions.template] for questions in one.questions],
            scoring=settings.scoring,
            supervised=(one.task.dataset, one.task.subset) in supervised,
            seed=settings.seed,
        )
        for one in course.asked
        if one.questions
    ]
    entries, scores = [entry for entry, _ in scored], [score for _, score in scored]
    prompts = sum(template["examples"] for entry in entries for template in entry["templates"])
    ranking = math.fsum(entry["seconds"] for entry in entries)
    return {
        "format_version": FORMAT_VERSION,
        "suite": suite.name,
        "limit": settings.limit,
        "split": settings.split,
        "shots": settings.shots,
        "max_input_length": settings.max_input_length,
        "seed": settings.seed,
        "scoring": [OFFICIAL, *settings.scoring],
        "checksums": {
            "templates": _together(one.templates_checksum for one in course.asked),
            "data": _together(one.data_checksum for one in course.asked),
        },
        "overall": overall_entry(scores, entries, expected_tasks=len(suite.order)),
        "groups": group_entries(scores, entries),
        "tasks": entries,
        "missing": [{"task": name, "reason": reason} for name, reason in suite.missing.items()],
        "failures": [{"task": name, "reason": reason} for name, reason in course.failures.items()],
        "skipped": [
            {"task": one.task.name, "template": template.name, "reason": OPEN_ENDED}
            for one in course.asked
            for template in one.open_ended
            if not settings.generate
        ],
        "prompts": prompts,
        "truncated_prompts": sum(entry["truncated_prompts"] for entry in entries),
        "examples_per_second": prompts / ranking if ranking else None,
    }


def weights_checksum(model: PreTrainedModel) -> str:
    """The checksum of a model's tensors, in the precision that they are held in."""
    return tensors_checksum(model.state_dict())


def tensors_checksum(tensors: Mapping[str, torch.Tensor]) -> str:
    """SHA-256 of tensors and their names, in the order of the names."""
    import torch

    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(name.encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        digest.update(flat.view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _together(checksums: Iterable[str]) -> str:
    return hashlib.sha256("".join(checksums).encode()).hexdigest()


def _environment(model: PreTrainedModel) -> Entry:
    import torch
    import transformers

    from metro_t0 import __version__

    return {
        "metro_t0": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": str(model.device),
    }
