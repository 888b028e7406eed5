"""A study under torchrun: each process makes whole runs, and none is made twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from small_studies import TOO_HIGH, without_clock, write_study

sys.path.append(str(Path(__file__).parents[1] / "distributed"))

from launch import metro_t0

from metro_t0.study.preparation import StudySettings
from metro_t0.study.runner import run_study
from metro_t0.study.study_file import load_study


def records(out: Path) -> dict[str, Any]:
    found = [json.loads(file.read_text()) for file in (out / "records").glob("*.json")]
    return {record["name"]: without_clock(record) for record in found}


@pytest.mark.slow
def test_processes_of_torchrun_share_the_runs(study_corpus: Path, tmp_path: Path) -> None:
    file = write_study(tmp_path / "study", axes={"rtd-gate": None, "rate": TOO_HIGH}, seeds=[1, 2])
    words = ["ablate", "--study", str(file), "--data", str(study_corpus), "--out", str(tmp_path / "out")]
    ended = metro_t0(2, *words, folder=tmp_path)
    assert ended.returncode == 1, ended.stderr  # two runs diverge
    made = records(tmp_path / "out")
    assert len(made) == 6
    assert sum(record["status"] == "diverged" for record in made.values()) == 2
    run_study(load_study(file), study_corpus, tmp_path / "alone", StudySettings())
    assert made == records(tmp_path / "alone")
    # Each process said of its own runs that it makes them, and of no other's.
    begun = [line for line in ended.stderr.splitlines() if "/seed-" in line and "tokens" in line]
    assert len(begun) == len(set(begun)) == 6, begun
