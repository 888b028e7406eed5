"""Figures of a run that are made of many metrics: calibration of the detection head, and one line a layer.

lines = reliability_lines(run)                          # lines for charts.line_chart
steps, errors = calibration_error(run)                  # a curve over the validations

What the metrics are says ``objectives/calibration.py``.
"""

from __future__ import annotations

import re

import numpy as np

from metro_t0.evaluation.records import Record, RunRecord
from metro_t0.evaluation.report import charts

_BINS = 10
# A bin with a smaller share of the tokens says little of its own rate.
_SMALLEST_SHARE = 0.001
_LAYER = re.compile(r"activation_share_(\w+)_(\d+)")


def is_one_of_many(metric: str) -> bool:
    """Whether a metric is part of one of these figures, and gets none of its own."""
    bins = re.fullmatch(r"rtd_(bin_share|predicted|observed)_\d+", metric)
    return bins is not None or _LAYER.fullmatch(metric) is not None


def bins_of(line: Record) -> np.ndarray:
    """``[bins, 3]``: share of the tokens, mean probability, observed share; not a number in empty bins."""
    names = ("rtd_bin_share", "rtd_predicted", "rtd_observed")
    rows = [[line.get(f"{name}_{index}") for name in names] for index in range(_BINS)]
    return np.array(rows, dtype=np.float64)  # None becomes not a number


def calibration_error(run: RunRecord) -> tuple[np.ndarray, np.ndarray]:
    """Steps and expected calibration errors ``[validations]``: the mean over tokens of |predicted - observed|."""
    steps, errors = [], []
    for line in run.metrics["validation"]:
        share, predicted, observed = bins_of(line).T
        if np.nansum(share) > 0:
            steps.append(line["step"])
            errors.append(np.nansum(share * np.abs(predicted - observed)))
    return np.array(steps, dtype=np.float64), np.array(errors, dtype=np.float64)


def reliability_lines(run: RunRecord) -> list[charts.Line]:
    """Observed against predicted at the first, the middle and the last validation, and the diagonal; or nothing."""
    lines = [line for line in run.metrics["validation"] if np.nansum(bins_of(line)[:, 0]) > 0]
    if not lines:
        return []
    drawn = []
    for colour, place in enumerate(sorted({0, len(lines) // 2, len(lines) - 1})):
        share, predicted, observed = bins_of(lines[place]).T
        kept = share >= _SMALLEST_SHARE
        name = f"update {lines[place]['step']:,}"
        drawn.append(charts.Line(name, predicted[kept], observed[kept], colour, measured_now_and_then=True))
    most = max(float(max(line.x.max(initial=0.0), line.y.max(initial=0.0))) for line in drawn)
    end = min(1.0, np.ceil(10 * most) / 10) or 1.0
    diagonal = charts.Line("as it should be", np.array([0.0, end]), np.array([0.0, end]), colour=3)
    return [diagonal, *drawn]


def activation_lines(run: RunRecord) -> dict[str, list[charts.Line]]:
    """A line a layer, by stack, in the order in which the metrics were logged."""
    layers: dict[str, list[tuple[int, str]]] = {}
    for metric in run.metric_names():
        if found := _LAYER.fullmatch(metric):
            layers.setdefault(found[1], []).append((int(found[2]), metric))
    lines = {stack: _layer_lines(run, sorted(metrics)) for stack, metrics in layers.items()}
    return {stack: found for stack, found in lines.items() if found}


def _layer_lines(run: RunRecord, metrics: list[tuple[int, str]]) -> list[charts.Line]:
    last = max(len(metrics) - 1, 1)
    curves = {metric: run.curve("validation", metric) for _, metric in metrics}
    return [
        charts.Line(
            f"layer {layer}",
            *curves[metric],
            ramp=round(place / last * (charts.RAMP - 1)),
            label=str(layer),
            measured_now_and_then=True,
        )
        for place, (layer, metric) in enumerate(metrics)
        if np.isfinite(curves[metric][1]).any()
    ]
