"""Zero-shot evaluation on a suite: every task, every template, ranked and scored.

    results = evaluate(Path("runs/finetune"), Path("suite.yaml"), Path("results"))
    results["overall"]["mean"], results["tasks"][0]["templates"][0]["accuracy"]

A suite is a file in the format of mixtures (``metro_t0.prompts.mixture``) whose tasks name their
``evaluation`` rows. All prompts are rendered before the model is loaded, so that a broken template ends the
run at once. Then the output directory gets two files, both or none:

- ``results.json``: ``overall`` (mean over tasks), ``tasks`` (each with mean, median and spread over its
  ``templates``, chance and a 95 % interval), ``skipped`` (templates that have no answers to rank, with the
  reason). Accuracies are 0-1. The functions ending in ``_entry`` say which keys there are.
- ``examples.jsonl``: a few examples of each task, drawn at random, for people to read.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import math
import platform
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from metro_t0.evaluation.aggregate import (
    OverallScore,
    TaskScore,
    TemplateScore,
    score_overall,
    score_task,
    score_template,
)
from metro_t0.evaluation.loading import load_model
from metro_t0.evaluation.rank import RankResult, progress_bar, rank_rows
from metro_t0.prompts.mixture import load_mixture

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from metro_t0.prompts.tasks import Task
    from metro_t0.prompts.template import Template

FORMAT_VERSION = 1
EXAMPLES_PER_TASK = 12

Entry = dict[str, Any]


@dataclass
class _Prompts:
    """One template on the rows of its task: what is to be ranked.

    Attributes:
        template: its name.
        rows: index of each prompt's row in the task.
        inputs: the prompts.
        choices: their answers.
        golds: index of the correct answer.
        dropped: rows that gave no example, by reason.
    """

    template: str
    rows: list[int] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    choices: list[list[str]] = field(default_factory=list)
    golds: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


@dataclass
class _RenderedTask:
    task: Task
    number_of_rows: int
    prompts: list[_Prompts]
    skipped: list[Entry]


def evaluate(
    model: str | Path,
    suite: Path,
    out: Path,
    *,
    templates: Path | None = None,
    data_root: Path | None = None,
    limit: int | None = None,
    max_input_length: int = 512,
    seed: int = 0,
    console: Console | None = None,
) -> Entry:
    """Rank and score every task of a suite.

    Args:
        model: a model folder, a run directory, or a Hub name.
        suite: the suite's file.
        out: directory for ``results.json`` and ``examples.jsonl``; made if need be.
        templates: takes the place of the suite's own templates folder.
        data_root: takes the place of the suite's own ``DIR/<dataset>/<subset or default>/<split>.jsonl.gz``.
        limit: only the first rows of each task.
        max_input_length: tokens of a prompt that are read.
        seed: of the bootstrap, of what templates draw, and of the examples.
        console: shows a progress bar there; silent without.

    Returns:
        What ``results.json`` holds.

    Raises:
        ValueError: ``out`` holds results already, the suite is broken, a template gives no example for any
            row of its task, an answer is not among its choices, no template has choices, or the model
            cannot be read.
    """
    out = Path(out)
    if limit is not None and limit < 1:
        raise ValueError(f"limit must be at least 1, not {limit}")
    _check_output(out)
    mixture = load_mixture(suite, templates=templates, data_root=data_root)
    rendered = [_render(task, limit=limit, seed=seed) for task in mixture.tasks]
    if not any(task.prompts for task in rendered):
        raise ValueError(
            f"{suite}: no template has answer choices to rank; ranking needs templates with answer_choices"
        )
    network, tokenizer = load_model(model)

    start = time.perf_counter()
    entries: list[Entry] = []
    scores: list[TaskScore] = []
    examples: list[Entry] = []
    total = sum(len(prompts.inputs) for task in rendered for prompts in task.prompts)
    with progress_bar(console, total, "Ranking answers") as advance:
        for task in rendered:
            if not task.prompts:
                continue
            ranked = _rank_task(
                network,
                tokenizer,
                task,
                max_input_length,
                advance,
            )
            score, entry = _score(task, ranked, seed=seed)
            scores.append(score)
            entries.append(entry)
            examples.extend(_examples(task, ranked, seed=seed))
    seconds = time.perf_counter() - start

    results: Entry = {
        "format_version": FORMAT_VERSION,
        "suite": mixture.name,
        "model": str(model),
        "limit": limit,
        "max_input_length": max_input_length,
        "seed": seed,
        "overall": overall_entry(score_overall(scores)),
        "tasks": entries,
        "skipped": [skipped for task in rendered for skipped in task.skipped],
        "prompts": total,
        "truncated_prompts": sum(t["truncated_prompts"] for entry in entries for t in entry["templates"]),
        "seconds": seconds,
        "written": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        "environment": _environment(network),
    }
    _write(out, results, examples)
    return results


# ---- entries of results.json -----------------------------------------------------------------------------


def template_entry(
    dataset: str,
    subset: str | None,
    split: str,
    template: str,
    score: TemplateScore,
    *,
    truncated: int = 0,
    dropped: dict[str, int] | None = None,
) -> Entry:
    """One template's line: where it comes from, its score (:class:`TemplateScore`), and what was cut or left out."""
    return {
        "dataset": dataset,
        "subset": subset,
        "split": split,
        "template": template,
        "accuracy": score.accuracy,
        "examples": score.examples,
        "correct": score.correct,
        "chance": score.chance,
        "majority": score.majority,
        "interval": list(score.interval),
        "truncated_prompts": truncated,
        "dropped": dropped or {},
    }


def task_entry(
    name: str,
    dataset: str,
    subset: str | None,
    split: str,
    rows: int,
    score: TaskScore,
    templates: list[Entry],
) -> Entry:
    """One task's line: its :class:`TaskScore` and its templates' entries."""
    return {
        "task": name,
        "dataset": dataset,
        "subset": subset,
        "split": split,
        "rows": rows,
        "mean": score.mean,
        "median": score.median,
        "spread": dataclasses.asdict(score.spread),
        "interval": list(score.interval),
        "chance": score.chance,
        "majority": score.majority,
        "verdict": score.verdict,
        "templates": templates,
    }


def overall_entry(score: OverallScore) -> Entry:
    """The suite's headline."""
    return {
        "mean": score.mean,
        "interval": list(score.interval),
        "chance": score.chance,
        "tasks": score.tasks,
        "verdict": score.verdict,
    }


# ---- rendering -------------------------------------------------------------------------------------------


def _render(task: Task, *, limit: int | None, seed: int) -> _RenderedTask:
    rows = list(task.evaluation_rows(limit))
    if not rows:
        raise ValueError(f"task {task.name!r} has no rows to evaluate in {task.source('evaluation')}")
    prompts: list[_Prompts] = []
    skipped: list[Entry] = []
    for template in task.templates:
        if template.answer_choices is None:
            reason = "open-ended: it has no answer choices to rank"
            skipped.append({"task": task.name, "template": template.name, "reason": reason})
        else:
            prompts.append(_render_template(task, template, rows, seed))
    return _RenderedTask(task, len(rows), prompts, skipped)


def _render_template(task: Task, template: Template, rows: Sequence[dict[str, Any]], seed: int) -> _Prompts:
    prompts = _Prompts(template.name)
    for index, row in enumerate(rows):
        rendered = task.render(template, row, index, "evaluation", seed)
        reason = (
            "no input"
            if not rendered.input
            else "no target"
            if not rendered.target
            else "more than one ||| in it"
            if rendered.num_parts != 2
            else None
        )
        if reason is not None:
            prompts.dropped[reason] += 1
            continue
        choices = rendered.answer_choices or []
        if rendered.target not in choices:
            raise ValueError(
                f"task {task.name!r}, {template}, row {index + 1}: the answer {rendered.target[:80]!r} is not among "
                f"the choices {choices}; mend the template, or leave it out by 'use:' in the suite"
            )
        prompts.rows.append(index)
        prompts.inputs.append(rendered.input)
        prompts.choices.append(choices)
        prompts.golds.append(choices.index(rendered.target))
    if not prompts.inputs:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in prompts.dropped.most_common())
        raise ValueError(
            f"task {task.name!r}, {template}: gives no example for any of the {len(rows)} rows: {reasons}"
        )
    return prompts


# ---- ranking and scoring ---------------------------------------------------------------------------------


def _rank_task(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    task: _RenderedTask,
    max_input_length: int,
    advance: Callable[[int], None],
) -> list[list[RankResult]]:
    """Results a template; all templates of the task share batches, since their prompts are of like length."""
    results = iter(
        rank_rows(
            model,
            tokenizer,
            [text for prompts in task.prompts for text in prompts.inputs],
            [choices for prompts in task.prompts for choices in prompts.choices],
            max_input_length=max_input_length,
            advance=advance,
        )
    )
    return [[next(results) for _ in prompts.inputs] for prompts in task.prompts]


def _score(
    task: _RenderedTask, ranked: Sequence[Sequence[RankResult]], *, seed: int
) -> tuple[TaskScore, Entry]:
    source = task.task
    split = source.source("evaluation").split
    correct = np.full((task.number_of_rows, len(task.prompts)), math.nan)
    scores: list[TemplateScore] = []
    entries: list[Entry] = []
    for column, (prompts, results) in enumerate(zip(task.prompts, ranked, strict=True)):
        predictions = [result.prediction for result in results]
        correct[prompts.rows, column] = np.equal(predictions, prompts.golds)
        score = score_template(predictions, prompts.golds, prompts.choices)
        scores.append(score)
        entries.append(
            template_entry(
                source.dataset,
                source.subset,
                split,
                prompts.template,
                score,
                truncated=sum(result.prompt_truncated for result in results),
                dropped=dict(prompts.dropped),
            )
        )
    asked = correct[~np.isnan(correct).all(axis=1)]
    task_score = score_task(scores, asked, seed=seed)
    entry = task_entry(
        source.name, source.dataset, source.subset, split, task.number_of_rows, task_score, entries
    )
    return task_score, entry


def _examples(task: _RenderedTask, ranked: Sequence[Sequence[RankResult]], *, seed: int) -> list[Entry]:
    """A few (template, row) pairs of a task, drawn at random."""
    pairs = [
        (column, place) for column, prompts in enumerate(task.prompts) for place in range(len(prompts.rows))
    ]
    rng = np.random.default_rng(seed)
    drawn = rng.permutation(len(pairs))[:EXAMPLES_PER_TASK]
    examples = []
    for column, place in (pairs[index] for index in drawn):
        prompts, result = task.prompts[column], ranked[column][place]
        examples.append(
            {
                "task": task.task.name,
                "template": prompts.template,
                "row": prompts.rows[place],
                "prompt": prompts.inputs[place],
                "choices": prompts.choices[place],
                "log_likelihoods": result.log_likelihoods,
                "prediction": result.prediction,
                "gold": prompts.golds[place],
            }
        )
    return examples


# ---- output ----------------------------------------------------------------------------------------------


def _check_output(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; give a directory for the results")
    for name in ("results.json", "examples.jsonl"):
        if (out / name).exists():
            raise ValueError(f"{out} already holds {name}; give another directory, or remove it first")


def _write(out: Path, results: Entry, examples: Sequence[Entry]) -> None:
    out.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(dir=out, prefix=".writing-"))
    try:
        lines = (json.dumps(example, ensure_ascii=False) + "\n" for example in examples)
        (aside / "examples.jsonl").write_text("".join(lines), encoding="utf-8")
        text = json.dumps(results, indent=2, ensure_ascii=False) + "\n"
        (aside / "results.json").write_text(text, encoding="utf-8")
        # results.json last: where it is, the examples are too.
        for name in ("examples.jsonl", "results.json"):
            (aside / name).replace(out / name)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


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
        "precision": str(model.dtype).removeprefix("torch."),
    }
