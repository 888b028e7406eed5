"""What the report page shows of a training run: its few large numbers, its curves, its settings.

view = run_view(read_run(Path("runs/pretrain")))        # a dictionary for the page's template
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from metro_t0.evaluation.records import Part, Record, RunRecord
from metro_t0.evaluation.report import charts
from metro_t0.evaluation.report.samples_view import samples_view
from metro_t0.evaluation.report.signals_view import (
    activation_lines,
    calibration_error,
    is_one_of_many,
    reliability_lines,
)

_MAX_LINES = 5


@dataclass(frozen=True)
class _Panel:
    """What one small figure of a run shows."""

    title: str
    metrics: dict[str, str]
    caption: str
    unit: charts.Unit = "number"
    from_zero: bool = False
    labelled: bool = False
    logarithmic: bool = False


_DETECTION = "Replaced-token detection (RTD)"
_GROUPS: dict[str, tuple[_Panel, ...]] = {
    "Losses": (
        _Panel(
            "Total loss", {"loss": "loss"}, "What the optimiser minimises: the weighted sum of the parts."
        ),
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
    ),
    "What is replaced, and what comes back": (
        _Panel(
            "Auxiliary model: accuracy",
            {"auxiliary_accuracy": "accuracy"},
            "Share of masked tokens it predicts right.",
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
            "Main model: loss, replaced and kept",
            {"lm_loss_replaced": "replaced tokens", "lm_loss_kept": "kept masked tokens"},
            "Nats a masked token, by whether the auxiliary model wrote another token there.",
        ),
    ),
    _DETECTION: (
        _Panel(
            "Hits",
            {
                "rtd_recall": "replaced, found",
                "rtd_precision": "called replaced, rightly",
                "rtd_specificity": "original, left alone",
            },
            "Recall on replaced tokens, precision of the answer, specificity on original ones.",
            unit="percent",
            from_zero=True,
        ),
    ),
    "Inside the network": (
        _Panel(
            "Gradient norm",
            {"gradient_norm": "norm"},
            "Of all parameters, before clipping; powers of ten.",
            logarithmic=True,
        ),
        _Panel(
            "Gradient norm by part",
            {
                "gradient_norm_embeddings": "embeddings",
                "gradient_norm_encoder": "encoder",
                "gradient_norm_decoder": "decoder",
                "gradient_norm_auxiliary": "auxiliary model",
                "gradient_norm_detection_head": "detection head",
            },
            "Before clipping; powers of ten. The embeddings are those of all stacks that share them.",
            labelled=True,
            logarithmic=True,
        ),
    ),
    "The run": (
        _Panel(
            "Speed",
            {"tokens_per_second": "tokens/s"},
            "Tokens a second, padding not counted.",
            from_zero=True,
        ),
        _Panel(
            "Learning rate", {"learning_rate": "learning rate"}, "As the optimiser used it.", from_zero=True
        ),
    ),
}
_NOT_DRAWN = {"step", "tokens", "seconds", "skipped_updates"}


def run_view(run: RunRecord) -> dict[str, Any]:
    """A run for the page: name, kind, facts, figures in groups, samples, and what it was set to."""
    last = run.last("train") or run.last("validation")
    return {
        "name": run.name,
        "kind": _kind(run.config),
        "facts": _run_facts(run),
        "groups": _groups(run),
        "samples": samples_view(run),
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


def _groups(run: RunRecord) -> list[dict[str, Any]]:
    """Figures under headings; a heading without a figure is left out."""
    drawn = {
        metric for panels in _GROUPS.values() for panel in panels for metric in panel.metrics
    } | _NOT_DRAWN
    others = [name for name in run.metric_names() if name not in drawn and not is_one_of_many(name)]
    groups = []
    for title, panels in _GROUPS.items():
        if title == "The run":
            panels = (*panels, *(_Panel(name, {name: name}, "As logged.") for name in others))
        figures = [figure for figure in (_figure(run, panel) for panel in panels) if figure is not None]
        if title == _DETECTION:
            figures += _calibration_figures(run)
        if title == "Inside the network":
            figures += _activation_figures(run)
        if figures:
            groups.append({"title": title, "figures": figures})
    return groups


def _figure(run: RunRecord, panel: _Panel) -> dict[str, Any] | None:
    lines: list[charts.Line] = []
    alone = len(panel.metrics) == 1
    colour = 0
    parts: tuple[Part, ...] = ("train", "validation")
    for metric, label in panel.metrics.items():
        seen = False
        for part in parts:
            x, y = run.curve(part, metric)
            if not (np.isfinite(y) & ((y > 0) | (not panel.logarithmic))).any():
                continue
            seen = True
            name = part if alone else label if panel.labelled else f"{label}, {part}"
            shade = 1 if part == "validation" and alone else colour
            end = str(colour + 1) if panel.labelled else ""
            lines.append(charts.Line(name, x, y, shade, part == "validation", label=end))
        colour = (colour + seen) % _MAX_LINES
    if not lines:
        return None
    return _drawn(run, panel, lines)


def _calibration_figures(run: RunRecord) -> list[dict[str, Any]]:
    figures = []
    if lines := reliability_lines(run):
        caption = (
            "What RTD says (across) and how often it is so (upwards), in held-out text; bins with less than one token "
            "in a thousand are left out."
        )
        figures.append(
            _drawn(
                run, _Panel("Calibration", {}, caption, "percent", True), lines, "probability that RTD gives"
            )
        )
    steps, errors = calibration_error(run)
    if len(steps):
        caption = "Mean distance between what RTD says and how often it is so, over tokens; 0 is best."
        line = charts.Line("validation", steps, errors, 1, measured_now_and_then=True)
        figures.append(
            _drawn(run, _Panel("Expected calibration error", {}, caption, "percent", True), [line])
        )
    return figures


def _activation_figures(run: RunRecord) -> list[dict[str, Any]]:
    return [
        _drawn(
            run,
            _Panel(
                f"Activation by layer: {'auxiliary model' if stack == 'auxiliary' else stack}",
                {},
                "Share of the feed-forward units that fire, mean over held-out tokens.",
                "percent",
                True,
            ),
            lines,
        )
        for stack, lines in activation_lines(run).items()
    ]


def _drawn(
    run: RunRecord, panel: _Panel, lines: list[charts.Line], x_label: str = "update"
) -> dict[str, Any]:
    changes = [_change(line, panel.unit) if x_label == "update" else line.name for line in lines]
    description = f"{panel.title} in {run.name}, over its updates. {panel.caption} {'; '.join(changes)}."
    return {
        "title": panel.title,
        "caption": panel.caption,
        "lines": lines,
        "changes": changes,
        "svg": charts.line_chart(
            lines,
            x_label=x_label,
            unit=panel.unit,
            from_zero=panel.from_zero,
            description=description,
            logarithmic=panel.logarithmic,
        ),
    }


def _change(line: charts.Line, unit: charts.Unit) -> str:
    """A curve's name with its first and its last value."""
    finite = line.y[np.isfinite(line.y)]
    values = [charts.format_value(float(value), unit) for value in (finite[0], finite[-1])]
    return f"{line.name}: {' → '.join(values if len(finite) > 1 else values[-1:])}"


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
