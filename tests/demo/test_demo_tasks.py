"""The demo's tasks: balanced, deterministic, and what is evaluated is held out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from metro_t0.data.pydocs import PydocEntry, iterate_pydocs
from metro_t0.demo.families import KINDS, LIBRARIES, RESULTS
from metro_t0.demo.tasks import HELD_OUT, TRAINED, TaskFiles, write_tasks
from metro_t0.prompts.mixture import load_mixture

Row = dict[str, Any]
ROWS, EVALUATION_ROWS = 120, 40


@pytest.fixture(scope="module")
def entries() -> list[PydocEntry]:
    return list(iterate_pydocs(characters_per_library=300_000))


@pytest.fixture(scope="module")
def files(entries: list[PydocEntry], tmp_path_factory: pytest.TempPathFactory) -> TaskFiles:
    out = tmp_path_factory.mktemp("demo") / "tasks"
    return write_tasks(entries, out, rows=ROWS, evaluation_rows=EVALUATION_ROWS)


def _rows(files: TaskFiles, family: str, side: str) -> list[Row]:
    path = files.mixture.parent / "rows" / f"{family}.{side}.jsonl"
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_there_are_enough_families_and_templates(files: TaskFiles) -> None:
    assert len(TRAINED) >= 6 and len(HELD_OUT) >= 3
    mixture, suite = load_mixture(files.mixture), load_mixture(files.suite)
    assert [task.dataset + "/" + str(task.subset) for task in mixture.tasks] == [
        f"pydocs/{family.name}" for family in TRAINED
    ]
    assert all(3 <= len(task.templates) <= 5 for task in mixture.tasks)
    assert len(suite.tasks) >= len(HELD_OUT) + 3


def test_nothing_that_is_evaluated_was_trained(files: TaskFiles) -> None:
    mixture, suite = load_mixture(files.mixture), load_mixture(files.suite)
    trained = {template.jinja for task in mixture.tasks for template in task.templates}
    evaluated = {template.jinja for task in suite.tasks for template in task.templates}
    assert not trained & evaluated
    assert not {str(task.subset) for task in mixture.tasks} & {family.name for family in HELD_OUT}
    seen = {
        str(row[column])
        for family in TRAINED
        if family.name != "order"  # half of its texts are shuffled
        for row in _rows(files, family.name, "train")
        for column in ("text", "body", "summary")
        if column in row
    }
    for family in (*TRAINED, *HELD_OUT):
        for row in _rows(files, family.name, "evaluation"):
            asked = {str(row[column]) for column in ("text", "body", "summary") if column in row}
            if family.name == "next_sentence":
                asked = {row["text"]}
            assert not asked & seen, family.name


@pytest.mark.parametrize("side", ["train", "evaluation"])
def test_labels_are_balanced(files: TaskFiles, side: str) -> None:
    classes = {"library": len(LIBRARIES), "kind": len(KINDS), "result": len(RESULTS)}
    for family in TRAINED if side == "train" else (*TRAINED, *HELD_OUT):
        if family.name == "summary":
            continue
        rows = _rows(files, family.name, side)
        labels = Counter(row["label"] for row in rows)
        number = len(rows[0]["choices"]) if "choices" in rows[0] else classes.get(family.name, 2)
        assert set(labels) == set(range(number)), family.name
        assert max(labels.values()) - min(labels.values()) <= 0.2 * sum(labels.values()), family.name


def test_choices_are_distinct_and_hold_the_answer(files: TaskFiles) -> None:
    for task in load_mixture(files.suite).tasks:
        rows = list(task.evaluation_rows())
        assert 24 <= len(rows) <= EVALUATION_ROWS, task.name
        for index, row in enumerate(rows):
            for template in task.templates:
                rendered = task.render(template, row, index, "evaluation")
                assert rendered.input and rendered.answer_choices
                assert rendered.num_parts == 2
                assert len(set(rendered.answer_choices)) == len(rendered.answer_choices) >= 2
                assert rendered.target in rendered.answer_choices


def test_every_training_template_gives_an_example_of_every_row(files: TaskFiles) -> None:
    for task in load_mixture(files.mixture).tasks:
        for index, row in enumerate(task.rows("train", 20)):
            for template in task.templates:
                rendered = task.render(template, row, index, "train")
                assert rendered.input and rendered.target and rendered.num_parts == 2
                choices = rendered.answer_choices
                assert choices is None or rendered.target in choices


def test_labels_say_what_the_texts_say(files: TaskFiles) -> None:
    for row in _rows(files, "mention", "train"):
        assert (row["word"] in row["text"].lower()) == bool(row["label"])
    for row in _rows(files, "from_library", "evaluation"):
        assert row["library"] in LIBRARIES
    for row in _rows(files, "name", "train"):
        lengths = [len(choice) for choice in row["choices"]]
        assert max(lengths) <= 4 * min(lengths)


def test_same_seed_same_files(entries: list[PydocEntry], files: TaskFiles, tmp_path: Path) -> None:
    again = write_tasks(entries, tmp_path / "again", rows=ROWS, evaluation_rows=EVALUATION_ROWS)
    other = write_tasks(entries, tmp_path / "other", rows=ROWS, evaluation_rows=EVALUATION_ROWS, seed=1)

    def content(of: TaskFiles) -> dict[str, bytes]:
        folder = of.mixture.parent
        return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}

    assert content(again) == content(files)
    assert content(other)["rows/name.train.jsonl"] != content(files)["rows/name.train.jsonl"]
    assert again.rows == files.rows


def test_too_few_docstrings_are_said_and_nothing_is_left(tmp_path: Path) -> None:
    entry = PydocEntry("python", "a", "f", "function", "Reads the table number one from a file.", None)
    with pytest.raises(ValueError, match="too few docstrings"):
        write_tasks([entry], tmp_path / "tasks")
    assert list(tmp_path.iterdir()) == []


def test_an_existing_folder_is_refused(entries: list[PydocEntry], tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("mine")
    with pytest.raises(ValueError, match="already holds something"):
        write_tasks(entries[:10], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
