"""``metro-t0 mixture build`` as it is typed: output, messages, exit codes, and finetuning on what it makes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from metro_t0.prompts.prompted_data import PromptedData
from metro_t0.tokenization.training import train_tokenizer


def metro_t0(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "metro_t0.cli.main", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, stdin=subprocess.DEVNULL)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with ``mix.yaml`` of a task of 200 rows and one template, and a ``tokenizer``."""
    rows = [{"text": f"boat number {row} is wide and cold", "label": row % 2} for row in range(200)]
    (tmp_path / "boats.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    template = {"jinja": "{{ text }} Good? ||| {{ answer_choices[label] }}", "answer_choices": "no ||| yes"}
    (tmp_path / "t.yaml").write_text(json.dumps({"dataset": "boats", "templates": {"question": template}}))
    task = {"dataset": "boats", "train": "boats.jsonl", "templates": "t.yaml"}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"tasks": [task]}))
    train_tokenizer([row["text"] for row in rows] + ["Good? no yes"] * 50, 80, tmp_path / "tokenizer")
    return tmp_path


def test_a_mixture_is_built_and_said(folder: Path) -> None:
    settings = ["--tokenizer", "tokenizer", "--out", "out", "--processes", "2", "--cap", "50"]
    found = metro_t0("mixture", "build", "mix.yaml", *settings, folder=folder)
    assert found.returncode == 0, found.stderr
    assert "198 examples to train on" in found.stderr
    assert "boats" in found.stdout
    card = json.loads((folder / "out" / "card.json").read_text())
    assert card["checksums"]["train"] in found.stdout
    assert card["cap"] == 50
    assert len(PromptedData.load(folder / "out").epoch_indices(0, 0)) == 50

    again = metro_t0("mixture", "build", "mix.yaml", *settings[:2], "--out", "two", "--json", folder=folder)
    assert json.loads(again.stdout)["checksums"] == card["checksums"]
    assert json.loads(again.stdout)["path"] == "two"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--tokenizer", "nowhere"], "the tokenizer folder nowhere does not exist"),
        (
            ["--cap", "many"],
            "'cap:' must be a whole number above 0, metro, t0, or null (none) for no cap, not 'many'",
        ),
    ],
)
def test_mistakes_are_one_line(folder: Path, changes: list[str], message: str) -> None:
    settings = ["--tokenizer", "tokenizer", "--out", "out", *changes]
    found = metro_t0("mixture", "build", "mix.yaml", *settings, folder=folder)
    assert found.returncode == 2
    assert message in found.stderr
    assert found.stderr.count("\n") == 1
    assert not (folder / "out").exists()
