"""The demo's plan and command; the whole run is a slow test."""

from __future__ import annotations

from pathlib import Path

from typer.testing import CliRunner

from metro_t0.cli.main import app
from metro_t0.demo.pipeline import DEFAULT_BUDGET_SECONDS, plan_demo


def test_a_shorter_budget_makes_everything_smaller() -> None:
    full, quick = plan_demo(), plan_demo(60)
    assert full.budget_seconds == DEFAULT_BUDGET_SECONDS <= 8 * 60
    assert plan_demo(2 * DEFAULT_BUDGET_SECONDS).rows == full.rows
    assert quick.characters_per_library < full.characters_per_library
    assert quick.rows < full.rows and quick.evaluation_rows < full.evaluation_rows


def test_a_budget_that_is_too_short_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / "demo"), "--budget", "5s"])
    assert isinstance(result.exception, ValueError) and "too short" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path)])
    assert isinstance(result.exception, ValueError) and "already holds something" in str(result.exception)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
