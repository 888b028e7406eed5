"""The answers that a model writes to a template without answer choices: generated, scored, kept.

    answers = answer_task(task, template, rows, model, tokenizer)
    answers.entry                                            # its line under "generated" in results.json
    answers.items[0].prompt, answers.items[0].output
    write_answers(results / "generated", answers)            # <task>/<template>-<hash>.jsonl.gz, whole or not at all

Files are made as those of :mod:`.predictions`: one that is there is whole.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro_t0.evaluation.answers import score_answers
from metro_t0.evaluation.generation import generate_texts
from metro_t0.evaluation.predictions import predictions_file, read_lines, write_lines
from metro_t0.prompts.rendering import drop_reason

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from metro_t0.prompts.sources import Row
    from metro_t0.prompts.tasks import Task
    from metro_t0.prompts.template import Template


@dataclass(frozen=True)
class WrittenAnswer:
    """One row of a task under one template.

    Attributes:
        row: its place in the task's data, from 0.
        prompt: what the model read (before it was cut to the length that the model reads).
        target: the wanted answer.
        output: what the model wrote.
        truncated: the prompt was longer than the model reads.
    """

    row: int
    prompt: str
    target: str
    output: str
    truncated: bool = False


@dataclass(frozen=True)
class TemplateAnswers:
    """All written answers of one template of one task.

    Attributes:
        entry: task, dataset, subset, split, template, examples, exact_match, f1 and rouge_l (0 to 1).
        items: in the order of the rows.
        dropped: rows that gave no example, by reason.
    """

    entry: dict[str, Any]
    items: list[WrittenAnswer]
    dropped: dict[str, int] = field(default_factory=dict)


def answer_task(
    task: Task,
    template: Template,
    rows: Sequence[Row],
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_input_length: int = 512,
    max_new_tokens: int = 64,
    batch_size: int = 16,
    seed: int = 0,
    console: Console | None = None,
) -> TemplateAnswers:
    """Lets the model answer every row in its own words, greedily, and scores the answers.

    Args:
        task: whose evaluation rows these are.
        template: one of the task's, with or without answer choices.
        rows: as ``task.evaluation_rows()`` gives them, from the first on.
        model: ours, or another encoder-decoder of transformers, as ``load_model`` gives it.
        tokenizer: of the model.
        max_input_length: tokens of a prompt that are read.
        max_new_tokens: longest answer.
        batch_size: prompts at once.
        seed: of the template's draws.
        console: shows a progress bar there; silent without.

    Raises:
        ValueError: a row that cannot be rendered, no row that gives an example, or torchmetrics is not installed.
    """
    kept: list[tuple[int, str, str]] = []
    dropped: Counter[str] = Counter()
    for index, row in enumerate(rows):
        rendered = task.render(template, row, index, "evaluation", seed)
        reason = drop_reason(rendered, check_choices=False)
        if reason is None:
            kept.append((index, rendered.input, rendered.target))
        else:
            dropped[reason] += 1
    if not kept:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in dropped.most_common()) or "no rows"
        raise ValueError(f"task {task.name!r}, {template}: gives nothing to answer: {reasons}")
    # Before the work, not after it: the library that scores may be missing.
    score_answers([""], [""])
    written = generate_texts(
        model,
        tokenizer,
        [prompt for _, prompt, _ in kept],
        max_new_tokens=max_new_tokens,
        max_input_length=max_input_length,
        batch_size=batch_size,
        console=console,
    )
    items = [
        WrittenAnswer(index, prompt, target, answer.output, answer.prompt_truncated)
        for (index, prompt, target), answer in zip(kept, written, strict=True)
    ]
    return TemplateAnswers(_entry(task, template, items), items, dict(dropped))


def _entry(task: Task, template: Template, items: Sequence[WrittenAnswer]) -> dict[str, Any]:
    scores = score_answers([item.output for item in items], [item.target for item in items])
    return {
        "task": task.name,
        "dataset": task.dataset,
        "subset": task.subset,
        "split": task.source("evaluation").split,
        "template": template.name,
        "examples": scores.examples,
        "exact_match": scores.exact_match,
        "f1": scores.f1,
        "rouge_l": scores.rouge_l,
    }


def write_answers(folder: Path, answers: TemplateAnswers) -> Path:
    """Writes a template's file aside and renames it: first the entry and what was dropped, then a row a line."""
    path = predictions_file(folder, answers.entry["task"], answers.entry["template"])
    head = {"entry": answers.entry, "dropped": answers.dropped}
    write_lines(path, [head, *map(dataclasses.asdict, answers.items)])
    return path


def read_template_answers(path: Path) -> TemplateAnswers:
    """Reads one file.

    Raises:
        ValueError: it is broken.
    """
    return read_lines(
        path, lambda head, items: TemplateAnswers(**head, items=[WrittenAnswer(**item) for item in items])
    )


def read_answers_of(folder: Path, task: str, template: str) -> TemplateAnswers | None:
    """A template's answers below a folder; None when they are not there or cannot be read."""
    path = predictions_file(folder, task, template)
    try:
        return read_template_answers(path) if path.is_file() else None
    except ValueError:
        return None


def read_answers(folder: Path) -> list[TemplateAnswers]:
    """Reads all files below a folder, in the order of their names; empty when there is none.

    Raises:
        ValueError: a file is broken.
    """
    return [read_template_answers(path) for path in sorted(folder.glob("*/*.jsonl.gz"))]
