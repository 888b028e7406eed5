"""One self-contained HTML page that shows what runs did and what an evaluation found.

    write_report([Path("runs/pretrain"), Path("runs/finetune")], Path("report.html"),
    evaluation=Path("results"))

The page loads nothing from outside, runs no script, and works on a phone, on paper, and in light and dark.
Whatever a file holds (prompts come from strangers) is escaped by the template engine.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from markupsafe import Markup

from metro_t0 import __version__
from metro_t0.evaluation import charts
from metro_t0.evaluation.aggregate import verdict
from metro_t0.evaluation.records import (
    EvaluationRecord,
    Part,
    Record,
    RunRecord,
    read_evaluation,
    read_run,
    write_text,
)

_EXAMPLES_PER_TASK = 4
_MAX_LINES = 4


@dataclass(frozen=True)
class _Panel:
    """What one small figure of a run shows."""

    title: str
    metrics: dict[str, str]
    caption: str
    unit: charts.Unit = "number"
    from_zero: bool = False


_PANELS = (
    _Panel("Total loss", {"loss": "loss"}, "What the optimiser minimises: the weighted sum of the parts."),
    _Panel(
        "Main model: language-model loss", {"lm_loss": "LM loss"}, "Nats a target token; lower is better."
    ),
    _Panel(
        "Auxiliary model: masked-token loss",
        {"auxiliary_loss": "auxiliary loss"},
        "Nats a masked token; lower is better.",
    ),
    _Panel(
        "Replaced-token detection: loss",
        {"rtd_loss": "RTD loss"},
        "Nats a token, before its weight; always answering 0.5 gives 0.693.",
    ),
    _Panel(
        "Auxiliary model: accuracy",
        {"auxiliary_accuracy": "accuracy"},
        "Share of masked tokens it predicts right.",
        unit="percent",
        from_zero=True,
    ),
    _Panel(
        "Main model: accuracy",
        {
            "lm_accuracy": "target tokens",
            "lm_accuracy_replaced": "replaced tokens",
            "lm_accuracy_kept": "kept masked tokens",
            "lm_accuracy_all": "all tokens",
        },
        "Share of tokens the decoder predicts right, given the tokens before.",
        unit="percent",
        from_zero=True,
    ),
    _Panel(
        "Replaced-token detection: hits",
        {"rtd_recall": "replaced, found", "rtd_specificity": "original, left alone"},
        "Recall on replaced tokens, specificity on original ones.",
        unit="percent",
        from_zero=True,
    ),
    _Panel(
        "Replaced share",
        {"replace_ratio": "replaced"},
        "Share of all tokens that the auxiliary model replaced by another.",
        unit="percent",
        from_zero=True,
    ),
    _Panel(
        "Speed", {"tokens_per_second": "tokens/s"}, "Tokens a second, padding not counted.", from_zero=True
    ),
    _Panel("Learning rate", {"learning_rate": "learning rate"}, "As the optimiser used it.", from_zero=True),
    _Panel("Gradient norm", {"gradient_norm": "norm"}, "Of all parameters, before clipping.", from_zero=True),
)
_NOT_DRAWN = {"step", "tokens", "seconds", "skipped_updates"}


def write_report(
    runs: Sequence[Path],
    out: Path,
    *,
    evaluation: Path | None = None,
    title: str = "METRO-T0 report",
) -> Path:
    """Write the page.

    Args:
        runs: run directories, in the order they are to be shown; may be empty if there is an evaluation.
        out: the HTML file; an older one is replaced once the new one is whole.
        evaluation: directory with ``results.json`` and ``examples.jsonl``.
        title: the page's name.

    Returns:
        ``out``.

    Raises:
        ValueError: there is nothing to show, or a file is missing or broken (named with its line).
    """
    if not runs and evaluation is None:
        raise ValueError("nothing to report: give at least one run directory or an evaluation")
    records = [read_run(Path(run)) for run in runs]
    results = read_evaluation(Path(evaluation)) if evaluation is not None else None
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("metro_t0", "evaluation/page"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = charts.format_value
    environment.filters["interval"] = _interval_text
    environment.filters["percent"] = lambda share: charts.format_value(share, "percent")
    page = environment.get_template("report.html.jinja").render(
        title=title,
        runs=[_run_view(record) for record in records],
        evaluation=_evaluation_view(results) if results else None,
        version=__version__,
        written=datetime.datetime.now().astimezone().strftime("%-d %B %Y, %H:%M"),
    )
    write_text(Path(out), page)
    return Path(out)


def _interval_text(interval: Sequence[float]) -> str:
    low, high = interval
    return f"{100 * low:.1f} to {charts.format_value(high, 'percent')}"


# ---- runs ------------------------------------------------------------------------------------------------


def _run_view(run: RunRecord) -> dict[str, Any]:
    last = run.last("train") or run.last("validation")
    return {
        "name": run.name,
        "kind": _kind(run.config),
        "facts": _run_facts(run),
        "figures": _figures(run),
        "steps": last.get("step", 0),
        "smoothed": len(run.metrics["train"]) > 0
        and charts.is_smoothed(charts.Line("", *run.curve("train", "step"))),
        "config": _flatten(run.config),
        "environment": _flatten(run.environment),
        "data_card": _flatten(run.data_card),
    }


def _kind(config: Record) -> str:
    objective = config.get("objective")
    kind = objective.get("kind") if isinstance(objective, dict) else None
    names = {
        "metro": "METRO pretraining",
        "span-corruption": "Span-corruption pretraining",
        "span_corruption": "Span-corruption pretraining",
        "prompted": "Prompt-finetuning",
    }
    return names.get(str(kind), "Training run")


def _run_facts(run: RunRecord) -> list[tuple[str, str]]:
    """The few numbers worth a large print, as (label, value)."""
    train, validation = run.last("train"), run.last("validation")
    last = train or validation
    facts: list[tuple[str, str]] = []
    if "step" in last:
        facts.append(("updates", f"{last['step']:,}"))
    if "tokens" in last:
        facts.append(("tokens seen", charts.format_value(float(last["tokens"]))))
    if "seconds" in last:
        facts.append(("training time", _duration(float(last["seconds"]))))
    _, speed = run.curve("train", "tokens_per_second")
    if len(speed):
        facts.append(("median speed", f"{charts.format_value(float(np.median(speed)))} tokens/s"))
    if last.get("skipped_updates"):
        facts.append(("updates skipped, not finite", f"{last['skipped_updates']:,}"))
    _, losses = run.curve("validation", "loss")
    if len(losses) > 1:
        first, final = (charts.format_value(float(value)) for value in (losses[0], losses[-1]))
        facts.append(("validation loss", f"{first} → {final}"))
    return facts


def _duration(seconds: float) -> str:
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def _figures(run: RunRecord) -> list[dict[str, Any]]:
    drawn = {metric for panel in _PANELS for metric in panel.metrics} | _NOT_DRAWN
    others = [name for name in run.metric_names() if name not in drawn]
    panels = [*_PANELS, *(_Panel(name, {name: name}, "As logged.") for name in others)]
    figures = (_figure(run, panel) for panel in panels)
    return [figure for figure in figures if figure is not None]


def _figure(run: RunRecord, panel: _Panel) -> dict[str, Any] | None:
    lines: list[charts.Line] = []
    changes: list[str] = []
    single = len([m for m in panel.metrics if len(run.curve("train", m)[0])]) <= 1
    colour = 0
    parts: tuple[Part, ...] = ("train", "validation")
    for metric, label in panel.metrics.items():
        seen = False
        for part in parts:
            x, y = run.curve(part, metric)
            if not np.isfinite(y).any():
                continue
            seen = True
            name = part if single and len(panel.metrics) == 1 else f"{label}, {part}"
            shade = 1 if single and part == "validation" and len(panel.metrics) == 1 else colour
            lines.append(charts.Line(name, x, y, shade, measured_now_and_then=part == "validation"))
            finite = y[np.isfinite(y)]
            first, last = (charts.format_value(float(v), panel.unit) for v in (finite[0], finite[-1]))
            changes.append(f"{name}: {first} → {last}" if len(finite) > 1 else f"{name}: {last}")
        colour = (colour + seen) % _MAX_LINES
    if not lines:
        return None
    description = f"{panel.title} over {run.name}'s updates. {panel.caption} {'; '.join(changes)}."
    return {
        "title": panel.title,
        "caption": panel.caption,
        "lines": lines,
        "changes": changes,
        "svg": charts.line_chart(
            lines, x_label="update", unit=panel.unit, from_zero=panel.from_zero, description=description
        ),
    }


def _flatten(record: Record, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and readable values."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            rows += _flatten(value, f"{name}.")
        elif isinstance(value, list):
            rows.append((name, ", ".join(map(str, value))))
        else:
            rows.append((name, "–" if value is None else str(value)))
    return rows


# ---- evaluation ------------------------------------------------------------------------------------------


def _evaluation_view(record: EvaluationRecord) -> dict[str, Any]:
    results = record.results
    tasks = [_task_view(task) for task in results.get("tasks", [])]
    overall = dict(results.get("overall") or {})
    if overall:
        overall["interval"] = tuple(overall["interval"])
        overall["verdict"] = verdict(overall["interval"], overall["chance"])
        overall["strip"] = charts.interval_strip(
            overall["mean"], overall["interval"], overall["chance"], description="mean over tasks"
        )
    verdicts = [task["verdict"] for task in tasks]
    return {
        "suite": results.get("suite", record.path.name),
        "model": results.get("model", ""),
        "limit": results.get("limit"),
        "overall": overall or None,
        "tasks": tasks,
        "skipped": results.get("skipped", []),
        "counts": {name: verdicts.count(name) for name in ("above chance", "within noise", "below chance")},
        "truncated": results.get("truncated_prompts", 0),
        "prompts": results.get("prompts", 0),
        "examples": _example_views(record.examples),
        "facts": _flatten({key: results[key] for key in ("environment",) if key in results}),
        "seconds": results.get("seconds"),
    }


def _task_view(task: Record) -> dict[str, Any]:
    interval = (task["interval"][0], task["interval"][1])
    where = verdict(interval, task["chance"])
    name = task["task"]
    spread = task["spread"]
    described = (
        f"{name}: mean accuracy {100 * task['mean']:.1f} %, 95 % interval {100 * interval[0]:.1f} to "
        f"{100 * interval[1]:.1f} %, chance {100 * task['chance']:.1f} %"
    )
    return {
        **task,
        "name": name,
        "interval": interval,
        "verdict": where,
        "statement": _statement(task, interval, where),
        "strip": charts.interval_strip(task["mean"], interval, task["chance"], description=described),
        "templates": [
            {**template, "verdict": verdict(tuple(template["interval"]), template["chance"])}
            for template in task["templates"]
        ],
        "template_strip": charts.template_strip(
            [(template["template"], template["accuracy"]) for template in task["templates"]],
            (spread["first_quartile"], spread["third_quartile"]),
            task["median"],
            task["chance"],
            description=f"{name}: accuracies of {len(task['templates'])} templates",
        ),
    }


def _statement(task: Record, interval: tuple[float, float], where: str) -> str:
    """One plain sentence: does this task lie above chance, and would a fixed answer have done as well?"""
    text = {
        "above chance": "The whole interval lies over chance.",
        "within noise": "Chance lies inside the interval.",
        "below chance": "The whole interval lies under chance.",
    }[where]
    majority = task.get("majority")
    if where == "above chance" and majority is not None and interval[0] <= majority:
        level = charts.format_value(majority, "percent")
        text += f" But always giving the commonest answer would score {level}."
    return text


def _example_views(examples: Sequence[Record]) -> list[dict[str, Any]]:
    """Examples by task, the first few of each."""
    by_task: dict[str, list[dict[str, Any]]] = {}
    for example in examples:
        group = by_task.setdefault(str(example["task"]), [])
        if len(group) < _EXAMPLES_PER_TASK:
            group.append(_example_view(example))
    return [{"task": task, "examples": group} for task, group in by_task.items()]


def _example_view(example: Record) -> dict[str, Any]:
    likelihoods = [float(value) for value in example["log_likelihoods"]]
    highest = max(likelihoods)
    weights = [math.exp(value - highest) if math.isfinite(value) else 0.0 for value in likelihoods]
    total = sum(weights) or 1.0
    choices = [
        {
            "text": text,
            "log_likelihood": likelihood,
            "share": weight / total,
            "bar": Markup('<span class="fill" style="width:{:.2f}%"></span>').format(100 * weight / total),
            "predicted": index == example["prediction"],
            "correct": index == example["gold"],
        }
        for index, (text, likelihood, weight) in enumerate(
            zip(example["choices"], likelihoods, weights, strict=True)
        )
    ]
    return {**example, "choices": choices, "right": example["prediction"] == example["gold"]}
