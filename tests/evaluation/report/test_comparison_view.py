"""Differences as people read them."""

from __future__ import annotations

import pytest

from metro_t0.evaluation.compare import ComparedEvaluations, Comparison, Difference, TaskDifference
from metro_t0.evaluation.report.comparison_view import comparison_statement, comparison_view, points_text


@pytest.mark.parametrize(
    ("difference", "text"),
    [(0.059, "+5.9"), (-0.0041, "−0.4"), (0.0, "0.0"), (-0.0004, "0.0"), (1.0, "+100.0")],
)
def test_points(difference: float, text: str) -> None:
    assert points_text(difference) == text


def test_a_statement_says_which_is_higher_only_if_the_rows_bear_it() -> None:
    assert (
        comparison_statement("a", "b", Difference(0.5, 0.45, -0.05, (-0.08, -0.02), 100))
        == "b is 5.0 points below a (95 % interval −8.0 to −2.0)"
    )
    assert comparison_statement("a", "b", Difference(0.5, 0.51, 0.01, (-0.01, 0.03), 100)).startswith(
        "b and a are not to be told apart: +1.0 points"
    )


def test_moved_tasks_are_named_by_direction_and_the_scale_holds_every_interval() -> None:
    tasks = [
        TaskDifference(0.5, 0.6, 0.1, (0.05, 0.14), 100, task="up", templates=2),
        TaskDifference(0.5, 0.4, -0.1, (-0.23, -0.02), 100, task="down", templates=1),
        TaskDifference(0.5, 0.5, 0.0, (-0.05, 0.05), 100, task="still", templates=1),
    ]
    overall = Difference(0.5, 0.5, 0.0, (-0.03, 0.03), 300)
    compared = ComparedEvaluations(
        ["a", "b", "c"], [Comparison(tasks, overall, []), Comparison([], None, ["x"])], []
    )
    pair, empty = comparison_view(compared)["pairs"]
    assert (pair["up"], pair["down"]) == (["up"], ["down"])
    assert [row["moved"] for row in pair["rows"]] == ["up", "down", "within noise"]
    assert 0.23 <= pair["reach"] <= 0.31
    assert empty["overall"] is None and empty["notes"] == ["x"] and empty["statement"] == ""
