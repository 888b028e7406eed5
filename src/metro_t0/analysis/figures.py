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
    for draw in (_shares, _rates):
        for stack in ("encoder", "decoder"):
            by_model = [
                [layer for layer in record["activation"][source] if layer["stack"] == stack]
                for record in records
            ]
            figures.append(draw(records, by_model, stack, source))
    return figures


def _shares(records: Sequence[Record], by_model: Sequence[list[Record]], stack: str, source: str) -> Figure:
    lines, legend = [], []
    for place, (record, layers) in enumerate(zip(records, by_model, strict=True)):
        shares = np.array([layer["share"] for layer in layers])
        lines.append(_line(record, place, np.arange(1.0, len(shares) + 1.0), shares))
        legend.append(_entry(record, place, _first_and_last(shares)))
    return _by_layer(
        f"activation-{source}-{stack}",
        f"{stack.capitalize()}: share of units that fire",
        "Averaged over tokens, layer by layer.",
        lines,
        legend,
    )


def _rates(records: Sequence[Record], by_model: Sequence[list[Record]], stack: str, source: str) -> Figure:
    lines, legend = [], []
    for place, (record, layers) in enumerate(zip(records, by_model, strict=True)):
        # Layers have as many units, so that their quantiles together are about the quantiles of all units.
        rates = np.sort(np.concatenate([layer["rates"] for layer in layers]))[::-1]
        lines.append(_line(record, place, np.linspace(0.0, 100.0, len(rates)), rates))
        units = sum(layer["units"] for layer in layers)
        never, always = (
            charts.format_value(sum(layer[name] for layer in layers) / units, "percent")
            for name in ("dead", "always_on")
        )
        legend.append(_entry(record, place, f"{never} never, {always} always"))
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
        diagonal=True,
    )
    return Figure(
        "lorenz",
        title,
        "What they hold together of its sum; were all parameters alike, it would be the dashed line.",
        svg,
        tuple(legend),
    )


def mass_figures(records: Sequence[Record]) -> list[Figure]:
    """Of each stack: what its layers hold of all sensitivity."""
    figures = []
    for stack in ("encoder", "decoder"):
        lines, legend = [], []
        for place, record in enumerate(records):
            sensitivity = record["sensitivity"]
            held = np.zeros(record["model"][f"{stack}_layers"])
            for group in sensitivity["groups"]:
                if group["stack"] == stack and group["layer"] is not None:
                    held[group["layer"]] += group["mass"]
            held /= sensitivity["overall"]["mass"] or 1.0
            lines.append(_line(record, place, np.arange(1.0, len(held) + 1.0), held))
            legend.append(_entry(record, place, f"{charts.format_value(held.sum(), 'percent')} in all"))
        figures.append(
            _by_layer(
                f"sensitivity-{stack}",
                f"{stack.capitalize()}: share of sensitivity",
                "What each layer holds of the sum over all parameters.",
                lines,
                legend,
            )
        )
    return figures


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
        size = record["sensitivity"]["rank_correlation"]["parameters"]
        beside = f"; of the groups' sizes {_signed(size)}" if measure == "mass" else ""
        figures.append(
            Figure(
                f"zeroing-{number}-{measure.replace('_', '-')}",
                title,
                f"Spearman's rank correlation {_signed(rho)} over {len(entries)} groups{beside}.",
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
        record["model"]["name"],
        x,
        y,
        place % _COLOURS,
        measured_now_and_then=place >= _COLOURS,
        exact=True,
    )


def _entry(record: Record, place: int, says: str) -> tuple[int, bool, str]:
    return place % _COLOURS, place >= _COLOURS, f"{record['model']['name']}: {says}"


def _first_and_last(values: np.ndarray) -> str:
    shown = [charts.format_value(float(value), "percent") for value in (values[0], values[-1])]
    return shown[0] if len(values) == 1 else " → ".join(shown)


def _by_layer(
    name: str,
    title: str,
    caption: str,
    lines: Sequence[charts.Line],
    legend: Sequence[tuple[int, bool, str]],
) -> Figure:
    """Shares over layers, counted from 1."""
    depth = max(len(line.x) for line in lines)
    ticks = [*range(1, depth + 1, -(-depth // 12))]
    svg = charts.line_chart(
        lines,
        x_label="layer",
        unit="percent",
        from_zero=True,
        description=_description(title, legend),
        x_ticks=[float(tick) for tick in (ticks if depth > 1 else (0, 1, 2))],
        x_end=float(depth) if depth > 1 else 2.0,
    )
    return Figure(name, title, caption, svg, tuple(legend))


def _description(title: str, legend: Sequence[tuple[int, bool, str]]) -> str:
    return f"{title}. {'; '.join(words for _, _, words in legend)}."


def standalone(figure: Figure) -> str:
    """The figure as a file of its own, with its title, its legend and its colours, light and dark."""
    sheet = (
        resources.files("metro_t0.evaluation.report")
        .joinpath("templates", "report.css")
        .read_text(encoding="utf-8")
    )
    colours = sheet[: sheet.index("* {")]
    rules = "\n".join(line for line in sheet.splitlines() if _STYLES.match(line))
    style = Markup(
        "<style>{}{}\nsvg {{ background: var(--paper); font-family: sans-serif; }}</style>"
    ).format(Markup(colours), Markup(rules))
    entry = Markup(
        '<line class="series-{0} curve{1}" x1="46" x2="72" y1="{2}" y2="{2}"/><text x="80" y="{3}">{4}</text>'
    )
    below = []
    for number, (colour, dashed, words) in enumerate(figure.legend):
        y = charts.HEIGHT + 14 + 16 * number
        below.append(entry.format(colour, " validation" if dashed else "", y - 4, y, words))
    title = Markup('<text class="title" x="46" y="-8">{}</text>').format(figure.title)
    height = charts.HEIGHT + 24 + 16 * len(figure.legend) + 12
    frame = Markup(
        '<svg xmlns="http://www.w3.org/2000/svg" class="chart" viewBox="0 -24 {0} {1}" width="{2}" height="{3}">'
    ).format(charts.WIDTH, height, 2 * charts.WIDTH, 2 * height)
    inside = Markup(str(figure.svg).partition(">")[2].removesuffix("</svg>"))
    return str(frame + style + title + inside + Markup("").join(below) + Markup("</svg>\n"))
