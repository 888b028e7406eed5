"""Gold against predicted, for tasks whose answers are labels."""

from __future__ import annotations

import numpy as np

from metro_t0.evaluation.confusion import ConfusionCounter
from metro_t0.evaluation.predictions import Prediction, TemplatePredictions


def template(
    task: str, name: str, choices: list[list[str]], golds: list[int], chosen: list[int]
) -> TemplatePredictions:
    items = [
        Prediction(row, "p", answers, [0.0] * len(answers), [1] * len(answers), prediction, gold)
        for row, (answers, gold, prediction) in enumerate(zip(choices, golds, chosen, strict=True))
    ]
    return TemplatePredictions(task, name, items)


def test_counts_are_summed_over_templates_by_place() -> None:
    counter = ConfusionCounter()
    counter.add(template("cb", "a", [["yes", "no", "maybe"]] * 4, [0, 0, 1, 2], [0, 1, 1, 0]))
    counter.add(template("cb", "b", [["true", "false", "neither"]] * 3, [0, 2, 2], [0, 2, 2]))
    found = counter.confusion("cb")
    assert found is not None
    assert (found.labels, found.templates) == (["yes", "no", "maybe"], 2)
    assert np.array_equal(found.counts, [[2, 1, 0], [0, 1, 0], [1, 0, 2]])


def test_answers_that_are_no_labels_have_no_counts() -> None:
    counter = ConfusionCounter()
    counter.add(template("copa", "a", [["x", "y"], ["v", "w"]], [0, 1], [0, 1]))
    counter.add(template("mixed", "a", [["x", "y"]], [0], [0]))
    counter.add(template("mixed", "b", [["x", "y", "z"]], [0], [0]))
    counter.add(template("mixed", "c", [["x", "y"]], [0], [0]))
    counter.add(template("many", "a", [[str(n) for n in range(500)]], [0], [499]))
    counter.add(template("empty", "a", [], [], []))
    assert counter.names() == []
    assert counter.confusion("copa") is counter.confusion("mixed") is counter.confusion("empty") is None


def test_tasks_of_a_group_are_counted_together() -> None:
    counter = ConfusionCounter()
    for task in ("anatomy", "astronomy"):
        counter.add(template(task, "a", [["A", "B"]] * 2, [0, 1], [0, 0]), group="STEM")
    assert counter.names() == ["STEM"]
    found = counter.confusion("STEM")
    assert found is not None and np.array_equal(found.counts, [[2, 0], [2, 0]])
