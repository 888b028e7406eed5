"""The mixture commands as they are typed: what they print and their exit codes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest


def run(*words: str, folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "METRO_T0_TEMPLATES"}
    return subprocess.run(
        [sys.executable, "-m", "metro_t0.cli.main", "mixture", *words],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**kept, "COLUMNS": "160", **environment},
        check=False,
    )


@pytest.fixture
def boats(tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"text": f"boat {n}", "label": n % 2}) + "\n" for n in range(10)), encoding="utf-8"
    )
    (tmp_path / "t.yaml").write_text(
        "templates:\n"
        "  a: {name: good, answer_choices: 'no ||| yes', jinja: '{{ text }}? ||| {{ answer_choices[label] }}'}\n"
        "  b: {name: bad, jinja: '{{ words }} ||| yes'}\n",
        encoding="utf-8",
    )
    (tmp_path / "mix.yaml").write_text(
        "templates: t.yaml\ncap: 8\n"
        "tasks: [{dataset: boats, kind: harbour, train: rows.jsonl, weight: 2, use: [good]}]\n",
        encoding="utf-8",
    )
    return tmp_path


def test_show_prints_the_plan(boats: Path) -> None:
    plan = json.loads(run("show", "mix.yaml", "--json", folder=boats).stdout)
    assert (plan["datasets"], plan["templates"], plan["rows_per_epoch"]) == (1, 1, 16)
    assert plan["kinds"] == {"harbour": 1.0}
    assert plan["tasks"][0]["rows"] == 10
    shown = run("show", "mix.yaml", "--cap", "none", folder=boats)
    assert shown.returncode == 0
    assert "harbour" in shown.stdout
    assert "boats (weight 2)" in shown.stdout
    assert "20" in shown.stdout


def test_show_of_a_published_mixture(real_data: Path, tmp_path: Path) -> None:
    templates = str(real_data / "promptsource_templates")
    plan = json.loads(run("show", "t0++", "--json", folder=tmp_path, METRO_T0_TEMPLATES=templates).stdout)
    assert (plan["datasets"], plan["templates"]) == (54, 464)
    root = run(
        "show", "t0", "--templates", templates, "--data-root", str(real_data / "tasks"), folder=tmp_path
    )
    assert root.returncode == 0
    assert "missing, and left out: glue/qqp, " in root.stdout


def test_without_templates_one_line_says_how_to_bring_them(tmp_path: Path) -> None:
    result = run("show", "t0", folder=tmp_path)
    assert result.returncode == 2
    assert result.stderr.count("\n") == 1
    assert (
        "pip download promptsource==0.1.0 --no-deps --no-binary :all: --ignore-requires-python"
        in result.stderr
    )


def test_check_shows_samples_and_points_at_what_is_broken(boats: Path) -> None:
    good = run("check", "mix.yaml", folder=boats)
    assert good.returncode == 0
    assert "boat 0?" in good.stdout
    (boats / "all.yaml").write_text(
        "templates: t.yaml\ntasks: [{dataset: boats, train: rows.jsonl}]\n", encoding="utf-8"
    )
    bad = run("check", "all.yaml", folder=boats)
    assert bad.returncode == 2
    assert "t.yaml:3: boats: " in bad.stdout
    assert "1 templates give examples, 1 problems" in bad.stdout
    problems = json.loads(run("check", "all.yaml", "--json", folder=boats).stdout)["problems"]
    assert [problem["template"] for problem in problems] == ["bad"]


def test_online_names_each_dataset_that_cannot_be_had(real_data: Path, tmp_path: Path) -> None:
    """A port of this machine where nothing listens stands in for a Hub that cannot be reached."""
    templates = str(real_data / "promptsource_templates")
    result = run(
        "check", "t0", "--online", "--templates", templates, folder=tmp_path, HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert result.returncode == 2
    assert "imdb: the Hub (http://127.0.0.1:9) cannot be reached" in result.stdout
    assert "samsum: no place on the Hub: a loading script only" in result.stdout
    assert "0 of 38 datasets are as the templates need them" in result.stdout
