"""One's own row beside the published ones."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_folders import DEMO_TASKS, T0_TASKS, write_evaluation

from metro_t0.evaluation.records import read_evaluation
from metro_t0.evaluation.report.published_view import published_view


def test_averages_are_over_all_and_over_the_rows_one_has(tmp_path: Path) -> None:
    records = [
        read_evaluation(write_evaluation(tmp_path / "a", T0_TASKS, missing=["RTE"])),
        read_evaluation(write_evaluation(tmp_path / "b", T0_TASKS, failing=["WiC"], seed=2)),
        read_evaluation(write_evaluation(tmp_path / "other", DEMO_TASKS)),
    ]
    view = published_view(records, ["a", "b", "other"], ["T0 3B (Sanh)"])
    assert view is not None and not view["complete"]
    assert [row["name"] for row in view["own"]] == ["a", "b"], "other tasks have no place in it"
    assert view["common"] == [column for column in view["columns"] if column not in ("RTE", "WiC")]
    first = records[0].results
    scores = {task["task"]: 100 * task["mean"] for task in first["tasks"]}
    assert view["own"][0]["average"] is None, "no mean of eleven from ten"
    assert view["own"][0]["common_average"] == pytest.approx(sum(scores[c] for c in view["common"]) / 9)
    assert view["own"][0]["cells"][0]["score"] is None
    published = {row["name"]: row for row in view["published"]}
    assert len(published) == 31
    assert [name for name, row in published.items() if row["ticked"]] == ["T0 3B (Sanh)"]
    assert published["METRO-T0 BASE++"]["average"] == 54.15, "as printed"
    assert published["GPT-3 13B"]["common_average"] == pytest.approx((50.02 * 11 - 62.8) / 9, abs=0.02)
    assert published["metro_t0p_base"]["common_average"] is None, "its HellaSwag is not known"
    supervised = [cell["supervised"] for cell in published["T0+ 11B (Sanh)"]["cells"]]
    assert [c for c, marked in zip(view["columns"], supervised, strict=True) if marked] == [
        "StoryCloze",
        "HellaSwag",
    ]


def test_other_suites_have_no_such_table(tmp_path: Path) -> None:
    record = read_evaluation(write_evaluation(tmp_path, DEMO_TASKS))
    assert published_view([record], ["a"], []) is None
    with pytest.raises(ValueError, match="no published scores of 'GPT-4'"):
        published_view([record], ["a"], ["GPT-4"])
