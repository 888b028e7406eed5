"""The Markdown table says what was measured, what was not, and lets no name break it."""

from __future__ import annotations

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from evaluation_folders import MMLU_TASKS, T0_TASKS, write_evaluation

from metro_t0.evaluation.report.markdown import results_markdown


def results_of(folder: Path) -> dict[str, Any]:
    results: dict[str, Any] = json.loads((folder / "results.json").read_text())
    return results


def table_of(text: str, head: str) -> list[list[str]]:
    """The cells of the table whose first cell is ``head``, without its rule."""
    lines = text.splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith(f"| {head} |"))
    rows = list(itertools.takewhile(lambda line: line.startswith("|"), lines[start:]))
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", row)[1:-1]] for row in [rows[0], *rows[2:]]]


def test_missing_failed_partial_and_supervised_rows_are_told(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, T0_TASKS, suite="t0", missing=["StoryCloze"], failing=["WiC", "COPA"])
    results = results_of(folder)
    text = results_markdown(results)
    overall = results["overall"]
    assert text.startswith(f"# t0: {100 * overall['mean']:.1f} % over 8 of 11 rows (95 % interval ")
    head, *rows = table_of(text, "task")
    assert "length-normalised" in head
    by_name = {row[0].split(" *")[0]: dict(zip(head, row, strict=True)) for row in rows}
    assert list(by_name) == [*(task.name for task in T0_TASKS), "**mean over 8 of 11 rows**"]
    assert by_name["StoryCloze"]["accuracy"] == "–"
    assert by_name["StoryCloze"]["against chance"].startswith("missing: no data of StoryCloze")
    assert by_name["COPA"]["against chance"] == "failed: the answer is not among the choices"
    assert by_name["HellaSwag"]["rows"] == "200 of 10,042"
    assert "*(supervised)*" in text and "*supervised*: the model was finetuned" in text
    for task in results["tasks"]:
        row = by_name[task["task"]]
        assert row["accuracy"] == f"{100 * task['mean']:.1f}"
        assert row["templates"] == str(len(task["templates"]))
        assert row["95 % interval"] == "{:.1f} to {:.1f}".format(*(100 * end for end in task["interval"]))
    assert "In bfloat16: 3 of 400 predictions differ from float32." in text
    assert table_of(text, "task")[0] and "| summarise |" in text and "| 4.0 | 31.2 | 28.1 |" in text


def test_no_name_breaks_the_table(tmp_path: Path) -> None:
    results = results_of(write_evaluation(tmp_path))
    results["tasks"][0]["task"] = "a | b\n<script> *c* [d](e)"
    text = results_markdown(results)
    assert "| a \\| b &lt;script&gt; \\*c\\* \\[d\\](e)" in text
    assert "<script" not in text and "<img" not in text


def test_fields_give_the_micro_mean_and_nothing_scored_is_said(tmp_path: Path) -> None:
    results = results_of(write_evaluation(tmp_path / "mmlu", MMLU_TASKS, suite="mmlu"))
    text = results_markdown(results)
    assert f"Every question counting once: {100 * results['overall']['micro']:.1f} %" in text
    assert "over 9 rows" in text.splitlines()[0]
    nothing = {"suite": "t0", "overall": None, "tasks": [], "missing": [{"task": "RTE", "reason": "no data"}]}
    text = results_markdown(nothing)
    assert text.startswith("# t0: no task could be scored") and "| RTE | – |" in text


@pytest.mark.parametrize("rows", [1, 1234])
def test_counts_of_rows(rows: int) -> None:
    task = {
        "task": "x",
        "mean": 0.5,
        "interval": [0.4, 0.6],
        "chance": 0.5,
        "rows": rows,
        "verdict": "within noise",
    }
    results = {"suite": "s", "overall": None, "tasks": [{**task, "templates": [{}]}]}
    assert f"| {rows:,} | 1 |" in results_markdown(results)
