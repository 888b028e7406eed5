"""What the report page shows of a training run: its few large numbers, its curves, its settings.

view = run_view(read_run(Path("runs/pretrain")))        # a dictionary for the page's template
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metro_t0.evaluation.records import Part, Record, RunRecord
from metro_t0.evaluation.report import charts

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


def run_view(run: RunRecord) -> dict[str, Any]:
    """A run for the page: name, kind, facts, figures, and what it was set to."""
    last = run.last("train") or run.last("validation")
    return {
        "name": run.name,
        "kind": _kind(run.config),
        "facts": _run_facts(run),
        "figures": _figures(run),
        "steps": last.get("step", 0),
        "smoothed": len(run.metrics["train"]) > 0
        and charts.is_smoothed(charts.Line("", *run.curve("train", "step"))),
        "config": flatten(run.config),
        "environment": flatten(run.environment),
        "data_card": flatten(run.data_card),
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
        facts.append(("training time", duration(float(last["seconds"]))))
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


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
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


def flatten(record: Record, prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as dotted names and readable values."""
    rows: list[tuple[str, str]] = []
    for key, value in record.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and value:
            rows += flatten(value, f"{name}.")
        elif isinstance(value, list):
            rows.append((name, ", ".join(map(str, value))))
        else:
            rows.append((name, "–" if value is None else str(value)))
    return rows
