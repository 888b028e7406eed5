"""The demo as a user runs it, on a budget of a minute: every phase for real, and the page it ends with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The demo's folder and what it printed."""
    out = tmp_path_factory.mktemp("demo") / "out"
    command = [sys.executable, "-m", "metro_t0.cli.main", "demo", "--out", str(out), "--budget", "60s"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    return out, done.stdout


def test_path_of_the_report_comes_last(demo: tuple[Path, str]) -> None:
    out, shown = demo
    assert shown.strip().splitlines()[-1] == str(out / "report.html")


def test_training_learned_something(demo: tuple[Path, str]) -> None:
    out, _ = demo
    for run in ("pretrain", "finetune"):
        lines = (out / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        losses = [entry["loss"] for line in lines if (entry := json.loads(line))["kind"] == "validation"]
        assert losses[-1] < losses[0]


def test_every_task_stands_beside_chance_on_a_page_of_its_own(demo: tuple[Path, str]) -> None:
    out, _ = demo
    results = json.loads((out / "evaluation" / "results.json").read_text(encoding="utf-8"))
    page = (out / "report.html").read_text(encoding="utf-8")
    assert len(results["tasks"]) >= 10
    for task in results["tasks"]:
        assert task["interval"][0] <= task["mean"] <= task["interval"][1]
        assert task["task"].split(" (")[0] in page
    assert "src=" not in page and "http://" not in page.replace("http://www.w3.org", "")


def test_held_out_means_held_out(demo: tuple[Path, str]) -> None:
    out, _ = demo
    texts = {
        part: {
            json.loads(line)["text"]
            for path in (out / "tasks" / "rows").glob(f"*.{part}.jsonl")
            for line in path.read_text(encoding="utf-8").splitlines()
            if "text" in json.loads(line)
        }
        for part in ("train", "evaluation")
    }
    assert texts["train"] and texts["evaluation"] and not texts["train"] & texts["evaluation"]
