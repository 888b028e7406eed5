"""``metro-t0 report``: runs and evaluations mixed, comparisons for people and for machines."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from evaluation_folders import PlannedTask, write_evaluation, write_run

TASKS = (PlannedTask("RTE", 0.6, ["yes", "no"], 3, 80), PlannedTask("CB", 0.5, ["Yes", "No"], 2, 40))


def report(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "metro_t0.cli.main", "report", *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two evaluations of the same rows, one of other tasks, and a run."""
    folder = tmp_path_factory.mktemp("folders")
    write_evaluation(folder / "a", TASKS)
    write_evaluation(folder / "b", TASKS, seed=2, skill=0.2)
    write_evaluation(folder / "other", (PlannedTask("own", 0.5, ["x", "y"]),), suite="mine")
    write_run(folder / "run", objective="prompted", steps=50)
    return folder


def test_two_evaluations_are_compared_for_people_and_for_machines(folders: Path, tmp_path: Path) -> None:
    done = report(folders / "a", folders / "b")
    assert done.returncode == 0, done.stderr
    assert "b against a" in done.stdout and "mean over 2" in done.stdout
    assert "points above a (95 % interval +" in done.stdout
    assert done.stdout.splitlines()[-1] == str(folders / "b" / "comparison.html")
    assert "points above a" in (folders / "b" / "comparison.html").read_text()
    done = report(folders / "a", folders / "b", "--json", "--out", tmp_path / "page.html")
    found = json.loads(done.stdout)
    assert found["report"] == str(tmp_path / "page.html") and found["spread"] == []
    (comparison,) = found["comparisons"]
    assert (comparison["first"], comparison["second"], comparison["notes"]) == ("a", "b", [])
    assert [task["task"] for task in comparison["tasks"]] == ["RTE", "CB"]
    overall = comparison["overall"]
    assert overall["moved"] and overall["interval"][0] < overall["difference"] < overall["interval"][1]
    assert overall["difference"] == pytest.approx(overall["second"] - overall["first"])


def test_runs_and_evaluations_are_told_apart_by_their_files(folders: Path, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    done = report(folders / "run", folders / "a", "--evaluation", folders / "b", "--out", page)
    assert done.returncode == 0, done.stderr
    text = page.read_text()
    assert "Prompt-finetuning" in text and "Side by side" in text
    done = report(folders / "a", "--out", page, "--published", "T0 3B (Sanh)")
    assert done.returncode == 0 and done.stdout.strip() == str(page)
    assert 'data-published="T0 3B (Sanh)" checked' in page.read_text()
    assert 'data-published="METRO-T0 BASE">' in page.read_text()


def test_three_have_a_spread_and_other_tasks_are_said(folders: Path, tmp_path: Path) -> None:
    done = report(folders / "a", folders / "b", folders / "other", "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "The suites differ" in done.stdout
    assert "no predictions of a task in common" in done.stdout
    assert "no predictions of a task in common" in (tmp_path / "page.html").read_text()
    three = [folders / "a", folders / "b", folders / "a"]
    found = json.loads(report(*three, "--json", "--out", tmp_path / "page.html").stdout)
    assert [spread["task"] for spread in found["spread"]] == ["RTE", "CB", None]
    assert found["comparisons"][1]["overall"]["difference"] == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["a", "--json"], "give two or more folders"),
        (["a", "--published", "METRO T0 base"], "no published scores of 'METRO T0 base'; did you mean"),
        (["a", "nowhere"], "no run at"),
        (["run", "--evaluation", "run"], "holds no results.json"),
    ],
)
def test_mistakes_are_one_line(folders: Path, tmp_path: Path, words: list[str], message: str) -> None:
    placed = [
        str(folders / word) if (folders / word).exists() or word == "nowhere" else word for word in words
    ]
    done = report(*placed, "--out", tmp_path / "page.html")
    assert done.returncode == 2 and message in done.stderr, done.stderr
    assert len(done.stderr.splitlines()) == 1 and not (tmp_path / "page.html").exists()
