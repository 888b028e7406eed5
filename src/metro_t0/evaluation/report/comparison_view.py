"""What the report page shows of evaluations side by side: differences with their intervals, and the spread.

view = comparison_view(compare_all(records, labels))        # a dictionary for the page's template
"""

from __future__ import annotations

from typing import Any

from metro_t0.evaluation.compare import ComparedEvaluations, Comparison, Difference, TaskDifference
from metro_t0.evaluation.report import charts

_LEAST_REACH = 0.05


def comparison_view(compared: ComparedEvaluations) -> dict[str, Any]:
    """Evaluations side by side, for the page."""
    first, *others = compared.labels
    return {
        "first": first,
        "pairs": [
            _pair_view(first, label, comparison)
            for label, comparison in zip(others, compared.comparisons, strict=True)
        ],
        "labels": compared.labels,
        "spread": compared.spread,
    }


def points_text(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: ``+5.9``, ``−0.4``."""
    text = f"{100 * difference:+.1f}"
    return "0.0" if text in ("+0.0", "-0.0") else text.replace("-", "\N{MINUS SIGN}")


def comparison_statement(first: str, second: str, overall: Difference) -> str:
    """One sentence: how far apart two evaluations are, and whether that is more than their rows could have given."""
    low, high = (points_text(end) for end in overall.interval)
    interval = f"(95 % interval {low} to {high})"
    if not overall.moved:
        difference = points_text(overall.difference)
        return f"{second} and {first} are not to be told apart: {difference} points {interval}"
    where = "above" if overall.difference > 0 else "below"
    return f"{second} is {abs(100 * overall.difference):.1f} points {where} {first} {interval}"


def _pair_view(first: str, second: str, comparison: Comparison) -> dict[str, Any]:
    differences = [*comparison.tasks, *([comparison.overall] if comparison.overall else [])]
    ends = [abs(end) for difference in differences for end in difference.interval]
    reach = min(1.0, charts.nice_ticks(0, max([_LEAST_REACH, *ends]))[-1])
    return {
        "first": first,
        "second": second,
        "statement": comparison_statement(first, second, comparison.overall) if comparison.overall else "",
        "notes": comparison.notes,
        "reach": reach,
        "rows": [_row_view(task.task, task, reach) for task in comparison.tasks],
        "overall": _row_view("mean", comparison.overall, reach) if comparison.overall else None,
        "up": [task.task for task in comparison.tasks if task.moved and task.difference > 0],
        "down": [task.task for task in comparison.tasks if task.moved and task.difference < 0],
    }


def _row_view(name: str, difference: Difference, reach: float) -> dict[str, Any]:
    low, high = (points_text(end) for end in difference.interval)
    change = points_text(difference.difference)
    moved = ("up" if difference.difference > 0 else "down") if difference.moved else "within noise"
    return {
        "name": name,
        "rows": difference.rows,
        "templates": difference.templates if isinstance(difference, TaskDifference) else None,
        "first": difference.first,
        "second": difference.second,
        "difference": difference.difference,
        "interval_text": f"{low} to {high}",
        "moved": moved,
        "strip": charts.difference_strip(
            difference.difference,
            difference.interval,
            reach,
            description=f"{name}: {change} points, 95 % interval {low} to {high}",
        ),
    }
