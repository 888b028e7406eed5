"""Ticks, numbers and curves of the report's figures."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.evaluation.report.charts import (
    Line,
    difference_strip,
    format_value,
    line_chart,
    nice_ticks,
    running_mean,
    template_strip,
    thin_out,
)


@given(st.floats(-1e6, 1e6), st.floats(1e-6, 1e6))
def test_ticks_are_round_and_cover_the_data(low: float, span: float) -> None:
    high = low + span
    ticks = nice_ticks(low, high)
    assert ticks[0] <= low + 1e-6 * span and ticks[-1] >= high - 1e-6 * span
    assert 2 <= len(ticks) <= 8
    steps = np.diff(ticks)
    assert np.allclose(steps, steps[0])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.361, "0.361"),
        (42.04, "42"),
        (6767.2, "6,767"),
        (1.25e6, "1.25M"),
        (7.5e-4, "7.5e-4"),
        (1e-3, "1e-3"),
    ],
)
def test_numbers_as_people_read_them(value: float, text: str) -> None:
    assert format_value(value) == text
    assert format_value(float("nan")) == "not finite"
    assert format_value(0.421, "percent") == "42.1\N{NO-BREAK SPACE}%"


def test_running_mean_and_thinning_keep_the_level() -> None:
    y = np.sin(np.arange(1000)) + 5
    assert running_mean(np.full(50, 3.0)) == pytest.approx(np.full(50, 3.0))
    assert abs(running_mean(y)[100:900] - 5).max() < 0.1
    x, thin = thin_out(np.arange(1000.0), y, most=100)
    assert len(x) == len(thin) == 100 and thin.mean() == pytest.approx(y.mean())


def test_a_curve_lies_in_its_frame_and_skips_what_is_not_finite() -> None:
    x, y = np.arange(1.0, 6.0), np.array([3.0, np.inf, 1.0, np.nan, 2.0])
    svg = line_chart(
        [Line("a", x, y)], x_label="update", unit="number", from_zero=False, description='a "b" <c>'
    )
    root = ElementTree.fromstring(str(svg))
    assert root.attrib["aria-label"] == 'a "b" <c>'
    (path,) = root.iter("path")
    points = [
        tuple(map(float, point.split())) for point in re.findall(r"[ML]([\d.]+ [\d.]+)", path.attrib["d"])
    ]
    assert len(points) == 3
    assert all(0 <= a <= 360 and 0 <= b <= 210 for a, b in points)
    heights = [b for _, b in points]
    assert heights[0] < heights[2] < heights[1], "larger values are higher up"


def test_a_template_is_named_by_its_dot() -> None:
    svg = template_strip([("<b>", 0.5), ("c", 0.7)], 0.5, description="d")
    titles = [element.text for element in ElementTree.fromstring(str(svg)).iter("title")]
    assert titles == ["<b>: 50.0 %", "c: 70.0 %"]


def test_the_box_goes_from_quartile_to_quartile_and_the_line_to_the_ends() -> None:
    values = [0.2, 0.3, 0.4, 0.5, 0.9]
    svg = template_strip([(str(v), v) for v in values], 0.25, description="d")
    marks = {element.attrib["class"]: element.attrib for element in ElementTree.fromstring(str(svg))}
    assert (marks["box"]["x"], marks["box"]["width"]) == ("30.00%", "20.00%")
    assert (marks["whisker"]["x1"], marks["whisker"]["x2"]) == ("20.00%", "90.00%")
    assert marks["median"]["x1"] == "40.00%" and marks["chance"]["x1"] == "25.00%"
    one = ElementTree.fromstring(str(template_strip([("a", 0.5)], 0.5, description="d")))
    assert not {"box", "whisker", "median"} & {element.attrib["class"] for element in one}


def test_a_difference_lies_around_the_middle() -> None:
    svg = difference_strip(-0.1, (-0.2, 0.05), 0.2, description="d")
    marks = {element.attrib["class"]: element.attrib for element in ElementTree.fromstring(str(svg))}
    assert marks["mean"]["cx"] == "25.00%" and marks["chance"]["x1"] == "50%"
    assert (marks["interval"]["x1"], marks["interval"]["x2"]) == ("0.00%", "62.50%")
