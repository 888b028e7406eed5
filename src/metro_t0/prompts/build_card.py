"""The card of a built mixture, as JSON (``card.json``) and as a page to read (``card.md``)::

{"format_version": 2, "name": ..., "cap": ..., (the other settings, see BuildSettings),
 "vocabulary_size", "vocabulary_checksum", "templates_checksum",
 "checksums": {"train", "validation"},
 "tasks":     [{"name", "dataset", "subset", "rows": {"train", "validation"}, "rendered_rows",
                "sources": {part: {"source", "rows", "bytes", "sha256"}}, "templates_checksum"}],
 "templates": [{"task", "name", "id", "cap", "weight", "train": COUNTS, "validation": COUNTS}],
 "totals":    {"train": COUNTS, "validation": COUNTS}}

COUNTS = {"rows", "examples", "input_tokens", "target_tokens", "truncated_inputs", "truncated_targets",
          "dropped": {reason: n}, "input_histogram": {"3-4": n}, "target_histogram"}
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from metro_t0.prompts.build_plan import BuildSettings, TaskPlan, templates_checksum
from metro_t0.prompts.prompted_data import FORMAT_VERSION
from metro_t0.prompts.rendering import Counts, histogram_labels

SPLITS = ("train", "validation")


def mixture_card(
    plans: Sequence[TaskPlan],
    counts: Sequence[Mapping[str, Counts]],
    settings: BuildSettings,
    *,
    vocabulary_size: int,
    vocabulary: str,
    checksums: Mapping[str, str],
) -> dict[str, Any]:
    """The card as plain values.

    Args:
        plans: of the tasks.
        counts: of each template of the mixture, by split.
        settings: of the build.
        vocabulary_size, vocabulary: of the tokenizer, and its checksum.
        checksums: of the content, by split.
    """
    totals = {split: Counts() for split in SPLITS}
    templates: list[dict[str, Any]] = []
    for plan in plans:
        for number, template in enumerate(plan.task.templates, start=plan.first_template):
            for split in SPLITS:
                totals[split].add(counts[number][split])
            templates.append(
                {
                    "task": plan.task.name,
                    "name": template.name,
                    "id": template.id,
                    "cap": settings.template_cap(plan.task),
                    "weight": plan.task.weight,
                    **{split: counts[number][split].as_card() for split in SPLITS},
                }
            )
    tasks = [_task_entry(plan) for plan in plans]
    used = json.dumps([[task["name"], task["templates_checksum"]] for task in tasks])
    return {
        "format_version": FORMAT_VERSION,
        **asdict(settings),
        "vocabulary_size": vocabulary_size,
        "vocabulary_checksum": vocabulary,
        "templates_checksum": hashlib.sha256(used.encode()).hexdigest(),
        "checksums": dict(checksums),
        "tasks": tasks,
        "templates": templates,
        "totals": {split: totals[split].as_card() for split in SPLITS},
    }


def _task_entry(plan: TaskPlan) -> dict[str, Any]:
    task = plan.task
    return {
        "name": task.name,
        "dataset": task.dataset,
        "subset": task.subset,
        "rows": {"train": plan.train_rows, "validation": plan.validation_rows},
        "rendered_rows": plan.rendered_rows,
        "sources": {part: asdict(facts) for part, facts in plan.facts.items()},
        "templates_checksum": templates_checksum(task),
    }


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Writes ``card.json`` and ``card.md``."""
    content = json.dumps(card, indent=1, ensure_ascii=False)
    (folder / "card.json").write_text(content + "\n", encoding="utf-8")
    (folder / "card.md").write_text(card_page(card), encoding="utf-8")


def card_page(card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    return "\n".join(
        [
            *_head(card),
            *_totals(card),
            *_histograms(card),
            *_tasks(card),
            *_sources(card),
            *_checksums(card),
        ]
    )


def _table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> list[str]:
    aligned = ["---" if number == 0 else "---:" for number in range(len(headings))]
    cells = [[_cell(value) for value in row] for row in rows]
    return [f"| {' | '.join(row)} |" for row in [list(headings), aligned, *cells]] + [""]


def _cell(value: object) -> str:
    if isinstance(value, int):
        return f"{value:,}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _head(card: Mapping[str, Any]) -> list[str]:
    cap = "none" if card["cap"] is None else f"{card['cap']:,} rows of a dataset, shared by its templates"
    if card["cap_rule"] == "t0":
        cap = "T0's: datasets above 500,000 rows share 500,000 among their templates, others have none"
    long = "dropped" if card["drop_long"] else "cut"
    lines = [
        f"# Mixture {card['name']}",
        "",
        f"{len(card['tasks'])} tasks, {len(card['templates'])} templates, "
        f"{card['totals']['train']['examples']:,} examples to train on.",
        "",
        f"- cap of an epoch: {cap}",
        f"- at most {card['max_input_length']} tokens an input and {card['max_target_length']} a target; "
        f"longer ones are {long}",
        f"- answers that are not among the choices are {'dropped' if card['check_choices'] else 'kept'}",
        f"- held out where a task names no validation rows: {card['validation_fraction']:g} of its rows",
        f"- seed {card['seed']}",
    ]
    if card["epochs"] is not None:
        lines.append(
            f"- rendered for {card['epochs']} epoch(s): of a larger dataset each template renders only as many "
            "rows as the windows of so many epochs visit, drawn by the seed"
        )
    if card["missing"]:
        lines.append(f"- left out, since their rows were not there: {', '.join(card['missing'])}")
        lines.append("- caps are those of the whole mixture")
    return [*lines, ""]


def _totals(card: Mapping[str, Any]) -> list[str]:
    keys = ("rows", "examples", "input_tokens", "target_tokens", "truncated_inputs", "truncated_targets")
    headings = ["split", "renderings", *(key.replace("_", " ") for key in keys[1:]), "dropped"]
    rows = [
        [split, *(counts[key] for key in keys), _dropped(counts)] for split, counts in card["totals"].items()
    ]
    return ["## Totals", "", *_table(headings, rows)]


def _dropped(counts: Mapping[str, Any]) -> str:
    return "; ".join(f"{reason}: {number:,}" for reason, number in counts["dropped"].items()) or "0"


def _histograms(card: Mapping[str, Any]) -> list[str]:
    counts = card["totals"]["train"]
    columns = [counts["input_histogram"], counts["target_histogram"]]
    rows = [
        [label, *(column.get(label, 0) for column in columns)]
        for label in histogram_labels()
        if any(label in column for column in columns)
    ]
    return [
        "## Tokens",
        "",
        "Training examples by length, before anything was cut.",
        "",
        *_table(["tokens", "inputs", "targets"], rows),
    ]


def _tasks(card: Mapping[str, Any]) -> list[str]:
    lines = ["## Templates", ""]
    headings = ["template", "rows", "examples", "dropped", "inputs cut", "targets cut", "cap", "weight"]
    for task in card["tasks"]:
        rows = []
        for template in card["templates"]:
            if template["task"] == task["name"]:
                train = template["train"]
                numbers = [train[key] for key in ("rows", "examples")]
                cut = [train[key] for key in ("truncated_inputs", "truncated_targets")]
                cap = "none" if template["cap"] is None else template["cap"]
                rows.append(
                    [template["name"], *numbers, _dropped(train), *cut, cap, f"{template['weight']:g}"]
                )
        rendered = (
            f", of which each template renders {task['rendered_rows']:,}"
            if task["rendered_rows"] < task["rows"]["train"]
            else ""
        )
        lines += [
            f"### {task['name']}",
            "",
            f"{task['rows']['train']:,} rows to train on{rendered}; {task['rows']['validation']:,} held out.",
            "",
            *_table(headings, rows),
        ]
    return lines


def _sources(card: Mapping[str, Any]) -> list[str]:
    rows = [
        [f"{task['name']} ({part})", facts["source"], facts["rows"], facts["bytes"] or "", facts["sha256"]]
        for task in card["tasks"]
        for part, facts in task["sources"].items()
    ]
    return ["## Sources", "", *_table(["task", "source", "rows", "bytes", "SHA-256"], rows)]


def _checksums(card: Mapping[str, Any]) -> list[str]:
    rows = [
        *([f"content of {split}", checksum] for split, checksum in card["checksums"].items()),
        ["templates", card["templates_checksum"]],
        [f"vocabulary of {card['vocabulary_size']:,}", card["vocabulary_checksum"]],
    ]
    return ["## Checksums (SHA-256)", "", *_table(["of", "checksum"], rows)]
