"""Small templates, rows and a small real vocabulary for the tests of prompts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from small_vocabulary import WORDS, SmallTokenizer


@pytest.fixture(scope="session")
def small_tokenizer() -> SmallTokenizer:
    return SmallTokenizer()


WriteTemplates = Callable[..., Path]


@pytest.fixture
def write_templates(tmp_path: Path) -> WriteTemplates:
    """Writes a templates file: name -> (jinja, answer choices) or a whole entry; gives its path."""

    def write(path: str, **templates: Any) -> Path:
        entries = {}
        for number, (name, given) in enumerate(templates.items()):
            entry = (
                dict(given) if isinstance(given, Mapping) else {"jinja": given[0], "answer_choices": given[1]}
            )
            entries[f"id-{number}"] = {"name": name.replace("_", " "), **entry}
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            yaml.safe_dump({"dataset": "boats", "templates": entries}, allow_unicode=True), "utf-8"
        )
        return target

    return write


def _write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def write_json_lines() -> Callable[..., Path]:
    return _write_json_lines


def _boat_rows(number: int) -> list[dict[str, Any]]:
    return [
        {"text": f"boat {row} " + " ".join(WORDS[row % 30 : row % 30 + 5]), "label": row % 2}
        for row in range(number)
    ]


@pytest.fixture
def boat_rows() -> Callable[[int], list[dict[str, Any]]]:
    """Makes rows with a text of their own and a label that takes turns."""
    return _boat_rows
