"""What of the predictions travels in a page: in proportion, within a budget, and as nothing but data."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.evaluation.predictions import Prediction, TemplatePredictions
from metro_t0.evaluation.report.prediction_sample import PredictionSample, proportional_order


def predictions(
    count: int, right: float, *, task: str = "task", template: str = "t", prompt: str = "p"
) -> TemplatePredictions:
    rng = np.random.default_rng(0)
    items = [
        Prediction(row, f"{prompt} {row}", ["a", "b"], [-1.0, -2.0], [2, 2], int(rng.random() > right), 0)
        for row in range(count)
    ]
    return TemplatePredictions(task, template, items)


def read(sample: PredictionSample) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(sample.json_text())
    return content


@given(st.integers(1, 300), st.floats(0, 1), st.integers(0, 5))
def test_every_beginning_holds_right_and_wrong_in_proportion(count: int, right: float, seed: int) -> None:
    items = predictions(count, right).items
    order = proportional_order(items, seed)
    assert sorted(order) == list(range(count))
    hits = np.array([items[place].prediction == items[place].gold for place in order])
    expected = hits.mean() * np.arange(1, count + 1)
    assert np.abs(np.cumsum(hits) - expected).max() <= 1


def test_the_order_is_drawn_with_the_seed() -> None:
    items = predictions(200, 0.5).items
    assert proportional_order(items, 1) == proportional_order(items, 1) != proportional_order(items, 2)


def test_templates_share_the_budget_equally() -> None:
    sample = PredictionSample(budget_bytes=20_000)
    sizes = {"few": 20, "many": 5000, "more": 3000}
    for name, count in sizes.items():
        sample.add("model", predictions(count, 0.4, template=name))
    content = read(sample)
    assert content["total"] == sample.total == 8020
    assert len(content["items"]) == sample.kept
    counts = [sum(item[1] == place for item in content["items"]) for place in range(3)]
    assert counts[0] == 20 and counts[1] == counts[2] > 50
    assert 15_000 < len(sample.json_text()) < 21_000
    right = np.mean([item[7] == item[8] for item in content["items"] if item[1] == 1])
    assert right == pytest.approx(0.4, abs=0.03)


def test_of_further_models_the_same_rows_are_taken() -> None:
    sample = PredictionSample(budget_bytes=3000)
    sample.add("first", predictions(200, 0.9))
    sample.add("second", predictions(150, 0.1))
    content = read(sample)
    rows = [{item[2] for item in content["items"] if item[0] == model} for model in (0, 1)]
    assert content["templates"] == [["task", "t"]] and len(rows[0]) > 10
    assert len(rows[0] & rows[1]) >= 0.6 * len(rows[0])
    assert all(row < 150 for row in rows[1])


def test_an_item_is_what_the_page_shows() -> None:
    sample = PredictionSample(budget_bytes=10**6)
    scores = [float("-inf"), -1.23456]
    item = Prediction(7, "x" * 50_000, ["", "b"], scores, [1, 2], 1, 0, truncated=True)
    sample.add("model", TemplatePredictions("task", "template", [item]))
    content = read(sample)
    assert content["models"] == ["model"] and content["templates"] == [["task", "template"]]
    assert content["items"] == [[0, 0, 7, "x" * 4000, 46_000, ["", "b"], [None, -1.2346], 1, 0, 1]]


def test_nothing_in_it_can_end_a_script_element() -> None:
    hostile = "</script><!-- <script> & \u2028\u2029 ]]> \ud800"
    sample = PredictionSample(budget_bytes=10**6)
    sample.add(hostile, predictions(2, 0.5, task=hostile, template=hostile, prompt=hostile))
    text = sample.json_text()
    assert text.isascii() and not set(text) & set("<>&\n")
    content = read(sample)
    assert content["models"] == [hostile] and content["items"][0][3].startswith(hostile)


def test_no_prediction_is_no_sample() -> None:
    sample = PredictionSample(budget_bytes=100)
    assert read(sample)["items"] == [] and sample.kept == 0
