"""A suite's tasks as questions: every row under every template, with its answers and which of them is correct.

    task = ask(load_suite("t0").tasks[0], limit=100, seed=0)
    task.questions[0].prompts, task.questions[0].choices, task.questions[0].golds

With shots, solved examples of the same template go before a question: prompt, a line break, answer, an empty line. As
many as fit with the question into what the model reads, since a prompt that is too long loses its end.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from metro_t0.prompts.rendering import drop_reason
from metro_t0.prompts.tasks import Task
from metro_t0.prompts.template import Template

OPEN_ENDED = "open-ended: it has no answer choices to rank; --generate scores what the model writes"


@dataclass
class Questions:
    """One template on the rows of its task.

    Attributes:
        template: its name.
        rows: place of each prompt's row in the task's data, from 0.
        prompts: what the model reads.
        choices: the answers offered.
        golds: index of the correct answer, the first of equal ones.
        dropped: rows that gave no example, by reason.
        shots_left_out: solved examples that did not fit, over all prompts.
    """

    template: str
    rows: list[int] = field(default_factory=list)
    prompts: list[str] = field(default_factory=list)
    choices: list[list[str]] = field(default_factory=list)
    golds: list[int] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)
    shots_left_out: int = 0


@dataclass
class TaskQuestions:
    """A task, asked.

    Attributes:
        task: where it comes from.
        number_of_rows: rows that were read.
        questions: a template with answer choices each.
        open_ended: the templates without.
        data_checksum: SHA-256 of the rows, in their order, as the templates see them.
        templates_checksum: SHA-256 of the templates.
    """

    task: Task
    number_of_rows: int
    questions: list[Questions]
    open_ended: list[Template]
    data_checksum: str
    templates_checksum: str


def ask(task: Task, *, limit: int | None = None, seed: int = 0) -> TaskQuestions:
    """Renders a task's rows under all of its templates.

    Args:
        task: of a suite.
        limit: only the first rows.
        seed: of what templates draw.

    Raises:
        ValueError: the task has no rows or a row is broken, an answer is not among its choices, or a template gives no
        example for any row.
    """
    rows = list(task.evaluation_rows(limit))
    if not rows:
        raise ValueError(f"task {task.name!r} has no rows to evaluate in {task.source('evaluation')}")
    return TaskQuestions(
        task,
        len(rows),
        [
            _ask(task, template, rows, seed)
            for template in task.templates
            if template.answer_choices is not None
        ],
        [template for template in task.templates if template.answer_choices is None],
        _checksum(rows),
        _checksum([template.name, template.jinja, template.answer_choices] for template in task.templates),
    )


def _ask(task: Task, template: Template, rows: Sequence[dict[str, Any]], seed: int) -> Questions:
    asked = Questions(template.name)
    for index, row in enumerate(rows):
        rendered = task.render(template, row, index, "evaluation", seed)
        reason = drop_reason(rendered, check_choices=False)
        if reason is not None:
            asked.dropped[reason] += 1
            continue
        choices = rendered.answer_choices or []
        if rendered.target not in choices:
            raise ValueError(
                f"task {task.name!r}, {template}, row {index + 1}: the answer {rendered.target[:80]!r} is not among "
                f"the choices {_shortened(choices)}; mend the template, or leave it out by 'use:' in the suite"
            )
        asked.rows.append(index)
        asked.prompts.append(rendered.input)
        asked.choices.append(choices)
        asked.golds.append(choices.index(rendered.target))
    if not asked.prompts:
        reasons = ", ".join(f"{reason} ({count})" for reason, count in asked.dropped.most_common())
        raise ValueError(
            f"task {task.name!r}, {template}: gives no example for any of the {len(rows)} rows: {reasons}"
        )
    return asked


def _shortened(choices: Sequence[str]) -> str:
    return str([choice[:40] for choice in choices[:8]]) + (
        f" and {len(choices) - 8} more" if len(choices) > 8 else ""
    )


def add_shots(asked: TaskQuestions, count: int, *, fits: Callable[[str], bool], seed: int = 0) -> None:
    """Puts solved examples before each question, the first rows of the task's ``shots:`` that give one.

    Args:
        asked: its prompts are changed.
        count: how many; fewer where they would not fit.
        fits: whether the model reads all of a prompt.
        seed: of what templates draw.

    Raises:
        ValueError: the task has no ``shots:`` rows, or fewer than ``count`` of them give an example.
    """
    task = asked.task
    # Some rows give no example.
    rows = list(task.rows("shots", 4 * count))
    templates = {template.name: template for template in task.templates}
    for questions in asked.questions:
        rendered = [
            task.render(templates[questions.template], row, index, "shots", seed)
            for index, row in enumerate(rows)
        ]
        shots = [f"{one.input}\n{one.target}\n\n" for one in rendered if drop_reason(one, False) is None][
            :count
        ]
        if len(shots) < count:
            raise ValueError(
                f"{task.source('shots')} gives {len(shots)} solved examples, not {count}: ask for fewer shots"
            )
        for place, question in enumerate(questions.prompts):
            kept = list(shots)
            while kept and not fits("".join(kept) + question):
                kept.pop()
            questions.shots_left_out += count - len(kept)
            questions.prompts[place] = "".join(kept) + question


def _checksum(values: Any) -> str:
    digest = hashlib.sha256()
    for value in values:
        digest.update(json.dumps(value, sort_keys=True, ensure_ascii=False, default=str).encode() + b"\n")
    return digest.hexdigest()
