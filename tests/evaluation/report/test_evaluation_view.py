"""What an evaluation's part of the page holds, before it is drawn."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import HOSTILE, MMLU_TASKS, T0_TASKS, write_evaluation

from metro_t0.evaluation.records import read_evaluation
from metro_t0.evaluation.report.evaluation_view import count_text, evaluation_view, rows_text
from metro_t0.evaluation.report.prediction_sample import PredictionSample


def view_of(folder: Path) -> tuple[dict[str, Any], PredictionSample]:
    sample = PredictionSample(budget_bytes=10**6)
    return evaluation_view(read_evaluation(folder), "label", sample), sample


def test_rows_stand_in_the_table_s_order_with_what_is_missing(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, T0_TASKS, missing=["RTE"], failing=["WSC"])
    view, sample = view_of(folder)
    assert [row["name"] for row in view["rows"]] == [task.name for task in T0_TASKS]
    absent = {row["name"]: row["absent"] for row in view["rows"] if row["absent"]}
    assert absent == {"RTE": "missing", "WSC": "failed"}
    assert view["overall"]["count"] == "9 of 11 rows" and not view["overall"]["complete"]
    assert view["supervised"] == [], "WSC, which is, has no score"
    assert sample.total == sum(task.rows * task.templates for task in T0_TASKS if task.name not in absent)
    labels = {matrix["name"]: matrix["labels"] for matrix in view["confusions"]}
    assert list(labels) == ["CB", "ANLI R1", "ANLI R2", "ANLI R3", "WiC"], "COPA's answers are no labels"
    assert labels["CB"] == ["Yes", "No", "Maybe"]


def test_confusions_add_up_to_the_accuracies(tmp_path: Path) -> None:
    view, _ = view_of(write_evaluation(tmp_path, T0_TASKS[:2]))
    for matrix, task in zip(view["confusions"], view["tasks"], strict=True):
        right = sum(cell["count"] for row in matrix["rows"] for cell in row["cells"] if cell["right"])
        total = sum(row["total"] for row in matrix["rows"])
        assert right / total == pytest.approx(task["mean"])
        assert sum(matrix["predicted"]) == total == task["rows"] * len(task["templates"])


def test_fields_are_plain_means_of_their_subjects(tmp_path: Path) -> None:
    view, _ = view_of(write_evaluation(tmp_path, MMLU_TASKS, suite="mmlu"))
    means = {task["name"]: task["mean"] for task in view["tasks"]}
    by_name = {group["name"]: group for group in view["groups"]}
    assert set(by_name) == {"STEM", "humanities", "social sciences", "other"}
    stem = [means[name] for name in ("abstract_algebra", "anatomy", "astronomy")]
    assert by_name["STEM"]["mean"] == pytest.approx(sum(stem) / 3)
    assert [task["mean"] for task in by_name["STEM"]["tasks"]] == sorted(stem, reverse=True)
    assert [g["mean"] for g in view["groups"]] == sorted((g["mean"] for g in view["groups"]), reverse=True)
    assert {matrix["name"] for matrix in view["confusions"]} == set(by_name)
    assert not view["wordings"], "one template a subject has no spread to show"


def test_counts_in_words() -> None:
    assert rows_text({"rows": 1000, "expected_rows": 10042}) == "1,000 of 10,042 rows"
    assert rows_text({"rows": 10042, "expected_rows": 10042}) == rows_text({"rows": 10042}) == "10,042 rows"
    assert rows_text({"rows": 1}) == "1 row"
    assert count_text({"tasks": [{}] * 11, "overall": {"expected_tasks": 11}}) == "11 rows"
    assert count_text({"tasks": [{}], "failures": [{"task": "a", "reason": "b"}]}) == "1 of 2 rows"


def test_an_evaluation_without_a_score_or_predictions_can_be_shown(tmp_path: Path) -> None:
    results = {"format_version": 2, "suite": HOSTILE, "overall": None, "tasks": []}
    results["missing"] = [{"task": "RTE", "reason": "no data"}]
    (tmp_path / "results.json").write_text(json.dumps(results))
    view, sample = view_of(tmp_path)
    assert view["overall"] is None and [row["name"] for row in view["rows"]] == ["RTE"]
    assert sample.total == 0 and view["confusions"] == []


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({"format_version": 3}))
    with pytest.raises(ValueError, match="has format version 3; this metro-t0 reads 1 and 2"):
        read_evaluation(tmp_path)
