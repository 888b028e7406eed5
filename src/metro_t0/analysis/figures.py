"""The figures of analyses, models side by side, as inline SVG; a figure file is the same with its style in it.

figures = activation_figures(records, "text")
write_text(Path("activation.svg"), standalone(figures[0].svg))
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup

from metro_t0.evaluation.report import charts

Record = dict[str, Any]
_COLOURS = 4
# What of the report's style sheet a figure needs outside the page.
_STYLES = re.compile(r"^\.(chart|curve|series-\d|dot)\b")


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        name: of its file.
        title, caption: above it.
        svg: itself.
        legend: a line's colour, whether it is dashed, and what it is.
    """

    name: str
    title: str
    caption: str
    svg: Markup
    legend: tuple[tuple[int, bool, str], ...] = ()


def activation_figures(records: Sequence[Record], source: str) -> list[Figure]:
    """Of each stack: the share of firing units by layer, and the units' rates of firing, sorted."""
    figures = []
    for stack in ("encoder", "decoder"):
        by_model = [
            [layer for layer in record["activation"].get(source, []) if layer["stack"] == stack]
            for record in records
        ]
        figures += [_shares(records, by_model, stack, source), _rates(records, by_model, stack, source)]
    return [figure for figure in figures if figure is not None]


def _shares(
    records: Sequence[Record], by_model: Sequence[list[Record]], stack: str, source: str
) -> Figure | None:
    lines, legend = [], []
    for place, (record, layers) in enumerate(zip(records, by_model, strict=True)):
        if layers:
            shares = np.array([layer["share"] for layer in layers])
            numbers = np.array([layer["layer"] + 1.0 for layer in layers])
            lines.append(_line(record, place, numbers, shares))
            first, last = (charts.format_value(share, "percent") for share in (shares[0], shares[-1]))
            legend.append(_entry(record, place, f"{first} → {last}"))
    if not lines:
        return None
    depth = max(len(line.x) for line in lines)
    step = -(-depth // 12)
    title = f"{stack.capitalize()}: share of units that fire"
    return Figure(
        f"activation-{source}-{stack}",
        title,
        "Averaged over tokens, layer by layer.",
        charts.line_chart(
            lines,
            x_label="layer",
            unit="percent",
            from_zero=True,
            description=_description(title, legend),
            x_ticks=[float(layer) for layer in range(1, depth + 1, step)] if depth > 1 else [0.0, 1.0, 2.0],
        ),
        tuple(legend),
    )


def _rates(
    records: Sequence[Record], by_model: Sequence[list[Record]], stack: str, source: str
) -> Figure | None:
    lines, legend = [], []
    for place, (record, layers) in enumerate(zip(records, by_model, strict=True)):
        if layers:
            # Layers have as many units, so that their quantiles together are about the quantiles of all units.
            rates = np.sort(np.concatenate([layer["rates"] for layer in layers]))[::-1]
            lines.append(_line(record, place, np.linspace(0.0, 100.0, len(rates)), rates))
            units = sum(layer["units"] for layer in layers)
            dead, always = (sum(layer[name] for layer in layers) for name in ("dead", "always_on"))
            legend.append(
                _entry(
                    record,
                    place,
                    f"{charts.format_value(dead / units, 'percent')} never, "
                    f"{charts.format_value(always / units, 'percent')} always",
                )
            )
    if not lines:
        return None
    title = f"{stack.capitalize()}: how often each unit fires"
    return Figure(
        f"rates-{source}-{stack}",
        title,
        "Units of all layers, the busiest first; a flat curve is an even use.",
        charts.line_chart(
            lines,
            x_label="units, %",
            unit="percent",
            from_zero=True,
            description=_description(title, legend),
        ),
        tuple(legend),
    )


def lorenz_figure(records: Sequence[Record]) -> Figure:
    """What the least sensitive part of the parameters holds of all sensitivity."""
    lines, legend = [], []
    for place, record in enumerate(records):
        overall = record["sensitivity"]["overall"]
        held = np.array(overall["lorenz"])
        lines.append(_line(record, place, np.linspace(0.0, 100.0, len(held)), held))
        half = charts.format_value(overall["share_for_half"], "percent")
        legend.append(_entry(record, place, f"Gini {overall['gini']:.3f}; {half} hold half"))
    title = "Lorenz curve of sensitivity"
    svg = charts.line_chart(
        lines,
        x_label="parameters, the least sensitive first, %",
        unit="percent",
        from_zero=True,
        description=_description(title, legend),
    )
    return Figure(
        "lorenz",
        title,
        "What they hold together of the mass; were all parameters alike, it would be the diagonal.",
        svg,
        tuple(legend),
    )


def zeroing_figures(record: Record, number: int) -> list[Figure]:
    """First-order numbers against the loss lost, in ranks: the signed sum, and the sum of magnitudes."""
    entries = record["sensitivity"]["zeroed"]
    if len(entries) < 2:
        return []
    figures = []
    for measure, title, x_label, y_label in (
        ("first_order", "Signed first order", "rank of −Σ θ·∂L/∂θ", "rank of the loss lost"),
        ("mass", "Sum of magnitudes", "rank of Σ |θ·∂L/∂θ|", "rank of the loss moved, up or down"),
    ):
        expected = np.array([entry[measure] for entry in entries])
        found = np.array([entry["lost"] for entry in entries])
        ranks = [
            values.argsort().argsort() + 1
            for values in (expected, np.abs(found) if measure == "mass" else found)
        ]
        points = [
            (
                float(x),
                float(y),
                f"{group_name(entry)}: first order {charts.format_value(entry[measure])}, "
                f"lost {charts.format_value(entry['lost'])} nats",
            )
            for x, y, entry in zip(*ranks, entries, strict=True)
        ]
        rho = record["sensitivity"]["rank_correlation"][measure]
        figures.append(
            Figure(
                f"zeroing-{number}-{measure.replace('_', '-')}",
                title,
                f"Spearman's rank correlation {_signed(rho)} over {len(entries)} groups.",
                charts.scatter_chart(
                    points,
                    x_label=x_label,
                    y_label=y_label,
                    description=f"{title} against the loss lost, {record['model']['name']}: rank correlation "
                    f"{_signed(rho)}",
                ),
            )
        )
    return figures


def group_name(entry: Record) -> str:
    """A group of a record, in words."""
    place = entry["stack"] if entry["layer"] is None else f"{entry['stack']} {entry['layer'] + 1}"
    return f"{place}: {entry['kind']}"


def _signed(value: float | None) -> str:
    return "–" if value is None else f"{value:+.2f}".replace("-", "−")


def _line(record: Record, place: int, x: np.ndarray, y: np.ndarray) -> charts.Line:
    return charts.Line(
        record["model"]["name"], x, y, place % _COLOURS, measured_now_and_then=place >= _COLOURS
    )


def _entry(record: Record, place: int, says: str) -> tuple[int, bool, str]:
    return place % _COLOURS, place >= _COLOURS, f"{record['model']['name']}: {says}"


def _description(title: str, legend: Sequence[tuple[int, bool, str]]) -> str:
    return f"{title}. {'; '.join(words for _, _, words in legend)}."


def standalone(svg: Markup) -> str:
    """The figure as a file of its own: its colours, light and dark, come with it."""
    sheet = (
        resources.files("metro_t0.evaluation.report")
        .joinpath("templates", "report.css")
        .read_text(encoding="utf-8")
    )
    colours = sheet[: sheet.index("* {")]
    rules = "\n".join(line for line in sheet.splitlines() if _STYLES.match(line))
    style = f"<style>{colours}{rules}\nsvg {{ background: var(--paper); font-family: sans-serif; }}</style>"
    return re.sub(r"(<svg [^>]*)>", rf'\1 xmlns="http://www.w3.org/2000/svg">{style}', str(svg), count=1)
