"""Tasks: their rows, their templates, and what they say when those do not fit."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from metro_t0.prompts.sources import LocalFile
from metro_t0.prompts.tasks import Task, TaskFacts, choose_templates, open_templates

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


def test_caps_are_shared_by_the_templates(task: Task) -> None:
    assert (task.template_cap(None), task.template_cap(9)) == (None, 4)
    assert replace(task, cap=7).template_cap(100) == 3


def test_classes_are_relabelled(task: Task) -> None:
    turned = replace(task, relabel={"label": (1, 0)})
    assert [row["label"] for row in turned.rows("validation")] == [1, 0, 1, 0]
    with pytest.raises(ValueError, match=r"rows\.jsonl, row 2: 1 in column 'label' is none of its 1 classes"):
        list(replace(task, relabel={"label": (0,)}).rows("validation"))


@pytest.mark.parametrize(
    ("stated", "names", "message"),
    [
        ({}, ["bad", "good"], None),
        ({"label": ("bad", "good")}, ["bad", "good"], None),
        (
            {"label": ("bad", "good")},
            ["good", "bad"],
            r"are good, bad, and the mixture's file says bad, good",
        ),
        (
            {},
            ["bad", "fair", "good"],
            r"has 3 classes \(bad, fair, good\), and .*t\.yaml:\d+: .*2 answer choices \(no, yes\)",
        ),
    ],
)
def test_class_names_are_held_against_facts_and_choices(
    task: Task, stated: dict[str, tuple[str, ...]], names: list[str], message: str | None
) -> None:
    task = replace(task, facts=TaskFacts(labels=stated))
    if message is None:
        task.check_class_names(task.source("validation"), {"label": names})
        return
    with pytest.raises(ValueError, match=message):
        task.check_class_names(task.source("validation"), {"label": names})
