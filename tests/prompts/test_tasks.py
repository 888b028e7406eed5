"""Tasks: their rows, their templates, and what they say when those do not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from metro_t0.prompts.sources import LocalFile
from metro_t0.prompts.tasks import Task, choose_templates, open_templates

ROWS = [{"sentence": f"boat {row}", "label": row % 2} for row in range(4)]


@pytest.fixture
def task(tmp_path: Path, write_templates: Callable[..., Path], write_json_lines: Any) -> Task:
    templates = write_templates(
        "t.yaml",
        good={"jinja": "{{ text }}? ||| {{ answer_choices[label] }}", "answer_choices": "no ||| yes"},
        draws={"jinja": "{{ ['a', 'b', 'c', 'd', 'e', 'f'] | choice }} {{ text }} ||| x"},
    )
    source = LocalFile(write_json_lines(tmp_path / "rows.jsonl", ROWS))
    return Task(
        "boats",
        "boats",
        None,
        choose_templates(open_templates(templates), "boats"),
        validation=source,
        rename={"sentence": "text"},
    )


def test_rows_are_renamed_and_limited(task: Task) -> None:
    assert list(task.rows("validation", 2)) == [
        {"text": "boat 0", "label": 0},
        {"text": "boat 1", "label": 1},
    ]
    assert len(list(task.evaluation_rows())) == 4
    assert task.source("evaluation") is task.validation
    with pytest.raises(ValueError, match="task 'boats' has no 'train:' rows"):
        list(task.rows())


def test_column_to_rename_must_be_there(task: Task) -> None:
    wrong = Task("boats", "boats", None, task.templates, train=task.validation, rename={"words": "text"})
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 1: has no column 'words'.*: label, sentence"):
        list(wrong.rows())


def test_rendering_names_source_row_and_template(task: Task) -> None:
    draws, good = task.templates
    rendered = task.render(good, {"text": "boat", "label": 1}, 0, "evaluation")
    assert (rendered.input, rendered.target, rendered.answer_choices) == ("boat?", "yes", ["no", "yes"])
    with pytest.raises(
        ValueError, match=r"rows\.jsonl, row 3: template 'good' of boats uses 'label'.*its columns: text"
    ):
        task.render(good, {"text": "boat"}, 2, "evaluation")
    inputs = [task.render(draws, {"text": "boat"}, index, "validation").input for index in range(30)]
    assert inputs == [task.render(draws, {"text": "boat"}, index, "validation").input for index in range(30)]
    assert len(set(inputs)) == 6


def test_choice_of_templates(tmp_path: Path, write_templates: Callable[..., Path]) -> None:
    original = {"jinja": "a ||| b", "metadata": {"original_task": True}}
    path = write_templates("folder/boats/red/templates.yaml", one=original, two=("c ||| d", None))
    for available in (open_templates(path), open_templates(tmp_path / "folder")):
        names = [template.name for template in choose_templates(available, "boats/red")]
        assert names == ["one", "two"]
        assert [t.name for t in choose_templates(available, "boats/red", "original-task")] == ["one"]
        assert [t.name for t in choose_templates(available, "boats/red", ["two", "two"])] == ["two"]
        with pytest.raises(ValueError, match=r"holds no template 'tow'.*did you mean 'two'"):
            choose_templates(available, "boats/red", ["one", "tow"])
    with pytest.raises(
        ValueError, match=r"holds no templates for dataset 'boat/red'.*did you mean 'boats/red'"
    ):
        choose_templates(open_templates(tmp_path / "folder"), "boat/red")
    shutil.copy(path, tmp_path / "other.yaml")
    (tmp_path / "other.yaml").write_text(
        path.read_text().replace("original_task: true", "original_task: null")
    )
    with pytest.raises(ValueError, match="marks no template"):
        choose_templates(open_templates(tmp_path / "other.yaml"), "boats", "original-task")
