"""Small figures as inline SVG for the report page: curves over training, and marks on an accuracy scale.

    svg = line_chart([Line("train", steps, losses, colour=0)], x_label="update step", unit="number", ...)

Colours are CSS classes, which the page's style sheet sets for light and dark: ``series-0`` ... ``series-4`` to tell
things apart, ``ramp-0`` ... ``ramp-7`` for things in an order. A kind of data is never told by colour alone: validation
is dashed with dots, and lines of an order carry a label at their end. Text from outside is escaped.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from markupsafe import Markup, escape

Unit = Literal["number", "percent"]

WIDTH, HEIGHT = 360, 210
RAMP = 8
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 10, 34
_MOST_POINTS = 300
_SMOOTH_FROM = 40
_LABEL_HEIGHT = 11.0
_MOST_LABELS = 13


@dataclass(frozen=True)
class Line:
    """One curve: finite or not, values are drawn where they are finite.

    Attributes:
        name: for the legend.
        x: ``[points]``, increasing.
        y: ``[points]``.
        colour: 0-4, a colour of the style sheet.
        measured_now_and_then: a validation curve: dashed, with a dot a measurement.
        exact: a curve without noise, drawn as it is however many points it has.
        ramp: 0-7, the place on the scale for things in an order; in place of the colour.
        label: a few characters, drawn at the curve's end.
    """

    name: str
    x: np.ndarray
    y: np.ndarray
    colour: int = 0
    measured_now_and_then: bool = False
    exact: bool = False
    ramp: int | None = None
    label: str = ""

    @property
    def paint(self) -> str:
        """The CSS class of its colour."""
        return f"series-{self.colour}" if self.ramp is None else f"ramp-{self.ramp}"


def format_value(value: float, unit: Unit = "number") -> str:
    """A number as a person reads it: three figures, thousands as k, percent from 0-1."""
    if not math.isfinite(value):
        return "not finite"
    if unit == "percent":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    size = abs(value)
    if size >= 1e6:
        return f"{value / 1e6:.3g}M"
    if size >= 1e4:
        return f"{value / 1e3:.3g}k"
    if size >= 100:
        return f"{value:,.0f}"
    if size == 0:
        return "0"
    if size < 1e-2:
        mantissa, exponent = f"{value:.1e}".split("e")
        return f"{mantissa.removesuffix('.0')}e{int(exponent)}"
    return f"{value:.3g}"


def nice_ticks(low: float, high: float, count: int = 4) -> list[float]:
    """About ``count`` round numbers from at most ``low`` to at least ``high``."""
    if high <= low:
        high = low + (abs(low) or 1.0)
    rough = (high - low) / count
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 2.5, 5, 10) if m * magnitude >= rough * 0.999)
    first = math.floor(low / step + 1e-9)
    last = math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def thin_out(x: np.ndarray, y: np.ndarray, most: int = _MOST_POINTS) -> tuple[np.ndarray, np.ndarray]:
    """Means of neighbouring points, so that a long run still makes a small page."""
    if len(x) <= most:
        return x, y
    parts = np.array_split(np.arange(len(x)), most)
    return np.array([x[part].mean() for part in parts]), np.array([y[part].mean() for part in parts])


def running_mean(y: np.ndarray) -> np.ndarray:
    """Centred mean over about a twentieth of the points."""
    reach = max(1, len(y) // 40)
    total = np.concatenate([[0.0], np.cumsum(y)])
    start = np.maximum(np.arange(len(y)) - reach, 0)
    stop = np.minimum(np.arange(len(y)) + reach + 1, len(y))
    return (total[stop] - total[start]) / (stop - start)


def is_smoothed(line: Line) -> bool:
    """Whether the curve is drawn as points in the background and a running mean in front."""
    return (
        not line.measured_now_and_then and not line.exact and int(np.isfinite(line.y).sum()) >= _SMOOTH_FROM
    )


def line_chart(
    lines: Sequence[Line],
    *,
    x_label: str,
    unit: Unit,
    from_zero: bool,
    description: str,
    x_ticks: Sequence[float] | None = None,
    x_end: float | None = None,
    diagonal: bool = False,
    logarithmic: bool = False,
) -> Markup:
    """Curves on shared axes, as one ``<svg>``.

    Args:
        lines: at least one finite point among them, above 0 where the axis is logarithmic.
        x_label: under the horizontal axis, with its unit.
        unit: of the vertical axis.
        from_zero: the vertical axis starts at 0, if it is not logarithmic.
        description: what one sees, for readers who cannot.
        x_ticks: the horizontal axis begins at the first of them; by default round numbers from 0.
        x_end: where it ends, by default at the last tick.
        diagonal: a dashed line from corner to corner, for what would be even.
        logarithmic: the vertical axis has powers of ten; values that have none are not drawn.
    """
    if logarithmic:
        from_zero = False
        lines = [replace(line, y=_logarithms(line.y)) for line in lines]
    finite = [(line, np.isfinite(line.y)) for line in lines]
    values = np.concatenate([line.y[mask] for line, mask in finite])
    steps = np.concatenate([line.x[mask] for line, mask in finite])
    assert len(values), "a chart needs a finite value"
    low, high = float(values.min()), float(values.max())
    y_ticks = nice_ticks(min(0.0, low) if from_zero else low, high)
    if logarithmic:
        y_ticks = [
            float(power) for power in range(math.floor(low), max(math.ceil(high), math.floor(low) + 1) + 1)
        ]
    x_low, x_high = float(steps.min()), float(steps.max())
    if x_ticks is None:
        x_ticks = [t for t in nice_ticks(min(x_low, 0.0), x_high) if t <= x_high * 1.02 or t == 0]
        x_low, x_high = min(x_low, 0.0), x_high or 1.0
    else:
        x_low, x_high = x_ticks[0], x_ticks[-1] if x_end is None else x_end

    def across(value: float) -> float:
        return _LEFT + (value - x_low) / (x_high - x_low) * (WIDTH - _LEFT - _RIGHT)

    def down(value: float) -> float:
        share = (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])
        return HEIGHT - _BOTTOM - share * (HEIGHT - _TOP - _BOTTOM)

    parts = [Markup('<g class="axis">')]
    for tick in y_ticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LEFT, WIDTH - _RIGHT, down(tick), down(tick)
            )
        )
        value = 10**tick if logarithmic else round(tick, 12)
        label = f"{100 * value:.3g} %" if unit == "percent" else format_value(value)
        parts.append(_text(_LEFT - 6, down(tick) + 4, label, "end"))
    for tick in x_ticks:
        parts.append(_text(across(tick), HEIGHT - _BOTTOM + 15, format_value(tick), "middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 3, x_label, "middle"))
    if diagonal:
        parts.append(_diagonal(_TOP))
    parts.append(Markup("</g>"))
    for line, mask in finite:
        if not mask.any():
            continue
        x, y = thin_out(line.x[mask], line.y[mask])
        points = [(across(a), down(b)) for a, b in zip(x, y, strict=True)]
        if line.measured_now_and_then:
            parts.append(_path(points, f"{line.paint} curve validation"))
            for a, b in points:
                parts.append(
                    Markup('<circle class="{} dot" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(
                        line.paint, a, b
                    )
                )
        elif is_smoothed(line):
            smooth = running_mean(y)
            parts.append(_path(points, f"{line.paint} curve raw"))
            parts.append(_path([(across(a), down(b)) for a, b in zip(x, smooth, strict=True)], _curve(line)))
        else:
            parts.append(_path(points, _curve(line)))
    ends = [(line.label, down(float(line.y[mask][-1]))) for line, mask in finite if line.label and mask.any()]
    if len(ends) <= _MOST_LABELS:
        parts += _labels(ends)
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, description, Markup("").join(parts)
    )


def _diagonal(top: float) -> Markup:
    return Markup('<line class="diagonal" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
        _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM, top
    )


def _logarithms(y: np.ndarray) -> np.ndarray:
    return np.log10(np.where(y > 0, y, np.nan))


def _curve(line: Line) -> str:
    return f"{line.paint} curve"


def _labels(ends: Sequence[tuple[str, float]]) -> list[Markup]:
    """Labels beside the curves' ends, as (label, height), moved apart where they would lie on each other."""
    placed: list[Markup] = []
    lowest = HEIGHT - _BOTTOM + 4.0 - _LABEL_HEIGHT * (len(ends) - 1)
    above = _TOP - _LABEL_HEIGHT
    for label, height in sorted(ends, key=lambda end: end[1]):
        # As near to the curve as those above it, and room for those below, allow.
        above = max(above + _LABEL_HEIGHT, min(height + 4.0, max(lowest, above + _LABEL_HEIGHT)))
        lowest += _LABEL_HEIGHT
        placed.append(_text(WIDTH - _RIGHT + 4, above, label, "start"))
    return placed


def _text(x: float, y: float, text: str, anchor: str) -> Markup:
    return Markup('<text x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(x, y, anchor, text)


def _path(points: Sequence[tuple[float, float]], style: str) -> Markup:
    if len(points) == 1:
        return Markup('<circle class="{} dot" cx="{:.1f}" cy="{:.1f}" r="2.6"/>').format(
            style.split(" ", maxsplit=1)[0], *points[0]
        )
    data = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
    return Markup('<path class="{}" d="{}"/>').format(style, data)


def scatter_chart(
    points: Sequence[tuple[float, float, str]], *, x_label: str, y_label: str, description: str
) -> Markup:
    """Points that a tooltip names, over a diagonal from corner to corner, as one ``<svg>``.

    Args:
        points: (x, y, name) each, at least one.
        x_label: under the horizontal axis.
        y_label: above the vertical axis.
        description: what one sees, for readers who cannot.
    """
    scales = []
    for values in ([x for x, _, _ in points], [y for _, y, _ in points]):
        scales.append(nice_ticks(min(values), max(values)))
    (x_ticks, y_ticks), top = scales, _TOP + 14

    def across(value: float) -> float:
        return _LEFT + (value - x_ticks[0]) / (x_ticks[-1] - x_ticks[0]) * (WIDTH - _LEFT - _RIGHT)

    def down(value: float) -> float:
        return HEIGHT - _BOTTOM - (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0]) * (HEIGHT - top - _BOTTOM)

    parts = [Markup('<g class="axis">')]
    for tick in y_ticks:
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{:.1f}" y2="{:.1f}"/>').format(
                _LEFT, WIDTH - _RIGHT, down(tick), down(tick)
            )
        )
        parts.append(_text(_LEFT - 6, down(tick) + 4, format_value(round(tick, 12)), "end"))
    for tick in x_ticks:
        parts.append(_text(across(tick), HEIGHT - _BOTTOM + 15, format_value(round(tick, 12)), "middle"))
    parts.append(_text((_LEFT + WIDTH - _RIGHT) / 2, HEIGHT - 3, x_label, "middle"))
    parts.append(_text(0, 11, y_label, "start"))
    parts += [_diagonal(top), Markup("</g>")]
    point = Markup(
        '<circle class="series-0 dot point" cx="{:.1f}" cy="{:.1f}" r="3.4"><title>{}</title></circle>'
    )
    parts += [point.format(across(x), down(y), name) for x, y, name in points]
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, description, Markup("").join(parts)
    )


def interval_strip(mean: float, interval: tuple[float, float], chance: float, *, description: str) -> Markup:
    """A score, its interval and the chance level on a scale from 0 to 100 %, as wide as its place."""
    low, high = interval
    return _strip(
        [
            Markup('<line class="interval" x1="{:.2f}%" x2="{:.2f}%" y1="50%" y2="50%"/>').format(
                100 * low, 100 * high
            ),
            _chance_mark(chance),
            Markup('<circle class="mean" cx="{:.2f}%" cy="50%" r="5"/>').format(100 * mean),
        ],
        description,
    )


def template_strip(accuracies: Sequence[tuple[str, float]], chance: float, *, description: str) -> Markup:
    """A dot a template over the box of their quartiles, from 0 to 100 %; a dot's tooltip names it.

    The box is the paper's figure's: first to third quartile with the median in it, and a line to the lowest and the
    highest. A single template is a dot alone.
    """
    values = [accuracy for _, accuracy in accuracies]
    marks = [_chance_mark(chance)]
    if len(values) > 1:
        lowest, first, median, third, highest = (
            float(q) for q in np.percentile(values, [0, 25, 50, 75, 100])
        )
        marks += [
            Markup('<line class="whisker" x1="{:.2f}%" x2="{:.2f}%" y1="50%" y2="50%"/>').format(
                100 * lowest, 100 * highest
            ),
            Markup('<rect class="box" x="{:.2f}%" width="{:.2f}%" y="16%" height="68%" rx="2"/>').format(
                100 * first, max(100 * (third - first), 0.3)
            ),
            Markup('<line class="median" x1="{0:.2f}%" x2="{0:.2f}%" y1="16%" y2="84%"/>').format(
                100 * median
            ),
        ]
    for index, (name, accuracy) in enumerate(accuracies):
        # Three heights in turn, so that equal accuracies do not hide each other.
        height = (50, 32, 68)[index % 3]
        marks.append(
            Markup(
                '<circle class="template" cx="{:.2f}%" cy="{}%" r="3.5"><title>{}: {:.1f} %</title></circle>'
            ).format(100 * accuracy, height, name, 100 * accuracy)
        )
    return _strip(marks, description)


def difference_strip(
    difference: float, interval: tuple[float, float], reach: float, *, description: str
) -> Markup:
    """A difference and its interval around a line at none, from ``-reach`` to ``reach``."""

    def place(value: float) -> float:
        return 50 + 50 * value / reach

    return _strip(
        [
            Markup('<line class="chance" x1="50%" x2="50%" y1="6%" y2="94%"/>'),
            Markup('<line class="interval" x1="{:.2f}%" x2="{:.2f}%" y1="50%" y2="50%"/>').format(
                place(interval[0]), place(interval[1])
            ),
            Markup('<circle class="mean" cx="{:.2f}%" cy="50%" r="5"/>').format(place(difference)),
        ],
        description,
    )


def _chance_mark(chance: float) -> Markup:
    return Markup('<line class="chance" x1="{0:.2f}%" x2="{0:.2f}%" y1="6%" y2="94%"/>').format(100 * chance)


def _strip(marks: Sequence[Markup], description: str) -> Markup:
    grid = [
        Markup('<line class="grid" x1="{0}%" x2="{0}%" y1="0" y2="100%"/>').format(position)
        for position in (0, 25, 50, 75, 100)
    ]
    return Markup('<svg class="strip" role="img" aria-label="{}">{}</svg>').format(
        escape(description), Markup("").join([*grid, *marks])
    )
