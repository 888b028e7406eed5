"""docs/results/study.md says what its commands print, and the tables beside it are those that the records give."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import pytest
from typer.main import get_command

from metro_t0.cli.main import app
from metro_t0.config import load_pretrain_config
from metro_t0.study.study_file import load_study
from run_command import command

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "results" / "study.md"
FOLDER = PAGE.parent / "study"
STUDIES = [file.parent.name for file in sorted(FOLDER.glob("*/study.json"))]
FIGURE = re.compile(r"(?<![\d.])\d+\.\d+(?![\d.])")


def shown_commands(language: str) -> list[list[str]]:
    """Words of the commands in the page's blocks of one language."""
    found = re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    return [shlex.split(line.removeprefix("$ ")) for line in "".join(found).splitlines()]


def test_the_records_give_the_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copied = tmp_path / FOLDER.relative_to(ROOT)
    shutil.copytree(FOLDER, copied, ignore=shutil.ignore_patterns("table.md"))
    monkeypatch.chdir(tmp_path)
    for words in shown_commands("bash"):
        assert command(*words[1:]) == 0
        assert "guess is right in" in capsys.readouterr().out
    for study in STUDIES:
        made = (copied / study / "table.md").read_text(encoding="utf-8")
        assert made == (FOLDER / study / "table.md").read_text(encoding="utf-8")


def test_every_figure_is_printed_by_a_command() -> None:
    """A figure is a number with a decimal point, and stands in a table."""
    printed = set()
    for study in STUDIES:
        printed |= set(FIGURE.findall((FOLDER / study / "table.md").read_text(encoding="utf-8")))
    prose = re.sub(r"```.*?```", "", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert set(FIGURE.findall(prose)) - printed == set()


def test_the_commands_are_understood() -> None:
    studies = [words for words in shown_commands("console") if words[:2] == ["metro-t0", "ablate"]]
    assert {words[words.index("--preset") + 1] for words in studies} == set(STUDIES)
    [verb] = [one for name, one in get_command(app).commands.items() if name == "ablate"]  # type: ignore[attr-defined]
    options = {option for parameter in verb.params for option in parameter.opts}
    for words in studies:
        load_study(words[words.index("--preset") + 1])
        load_pretrain_config("tiny", overrides=[word for word in words if word.startswith("training.")])
        assert {word for word in words if word.startswith("--")} <= options
