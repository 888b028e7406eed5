"""The suites t0 and mmlu, and a user's own: whose rows are there, and what is said of those that are not."""

from __future__ import annotations

import csv
import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml

from metro_t0.evaluation.suite_file import load_suite, published_suite

TEMPLATE = {
    "name": "plain",
    "answer_choices": "yes ||| no",
    "jinja": "{{ text }}? ||| {{ answer_choices[label] }}",
}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)


def write_templates(folder: Path, *keys: str, template: dict[str, Any] = TEMPLATE) -> Path:
    for key in keys:
        (folder / key).mkdir(parents=True)
        content = {"dataset": key.split("/")[0], "templates": {"1": template}}
        (folder / key / "templates.yaml").write_text(yaml.safe_dump(content))
    return folder


def write_suite(path: Path, *tasks: dict[str, Any], **rest: Any) -> Path:
    path.write_text(yaml.safe_dump({"tasks": list(tasks)} | rest))
    return path


def test_t0_names_the_official_pairs() -> None:
    path = published_suite("t0")
    assert path is not None
    tasks = yaml.safe_load(path.read_text(encoding="utf-8"))["tasks"]
    counts = {task["name"]: len(task["use"]) for task in tasks}
    assert counts == {
        "RTE": 10,
        "CB": 15,
        "ANLI R1": 15,
        "ANLI R2": 15,
        "ANLI R3": 15,
        "WSC": 10,
        "Winogrande": 5,
        "COPA": 8,
        "StoryCloze": 5,
        "HellaSwag": 4,
        "WiC": 10,
    }
    assert sum(counts.values()) == 112
    assert [t["evaluation"]["split"] for t in tasks if t["dataset"] == "anli"] == [
        "dev_r1",
        "dev_r2",
        "dev_r3",
    ]
    assert {t["evaluation"]["split"] for t in tasks if t["dataset"] != "anli"} == {"validation"}


def test_mmlu_names_57_subjects_in_four_groups() -> None:
    path = published_suite("mmlu")
    assert path is not None
    tasks = yaml.safe_load(path.read_text(encoding="utf-8"))["tasks"]
    assert len({task["subset"] for task in tasks}) == 57
    assert sum(task["evaluation_size"] for task in tasks) == 1531
    assert Counter(t["group"] for t in tasks) == {
        "STEM": 19,
        "humanities": 13,
        "social sciences": 12,
        "other": 13,
    }
    assert {(t["templates_of"], *t["use"]) for t in tasks} == {("ai2_arc/ARC-Challenge", "heres_a_problem")}


def test_t0_on_real_rows(real_data: Path) -> None:
    suite = load_suite("t0", templates=real_data / "promptsource_templates", data_root=real_data / "tasks")
    assert len(suite.order) == 11 and set(suite.missing) == set(suite.order) - {t.name for t in suite.tasks}
    assert len(suite.tasks) >= 8
    for task in suite.tasks:
        row = next(task.evaluation_rows())
        for template in task.templates:
            rendered = task.render(template, row, 0, "evaluation")
            assert rendered.answer_choices and rendered.target in rendered.answer_choices, template


def test_mmlu_on_real_rows(real_data: Path) -> None:
    place = {"templates": real_data / "promptsource_templates", "data_root": real_data / "tasks"}
    suite = load_suite("mmlu", **place)
    assert len(suite.tasks) == 57 and not suite.missing
    assert sum(task.source("evaluation").count() for task in suite.tasks) == 1531
    task = suite.tasks[0]
    row = next(task.evaluation_rows())
    rendered = task.render(task.templates[0], row, 0, "evaluation")
    assert rendered.answer_choices == ["A", "B", "C", "D"] and rendered.target == row["answerKey"]
    assert all(text in rendered.input for text in row["choices"]["text"])
    assert "dev" in str(task.source("shots"))
    assert "test" in str(load_suite("mmlu", split="test", **place).tasks[0].source("evaluation"))


def test_what_is_not_there_is_missing_with_its_reason(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_rows(data / "here" / "default" / "dev.jsonl.gz", [{"text": "a", "label": 0}])
    write_rows(data / "other_split" / "default" / "train.jsonl.gz", [{"text": "a", "label": 0}])
    write_rows(data / "no_template" / "default" / "dev.jsonl.gz", [{"text": "a", "label": 0}])
    names = ("other_split", "here", "nowhere", "no_template")
    suite = load_suite(
        write_suite(tmp_path / "s.yaml", *({"dataset": n, "evaluation": {"split": "dev"}} for n in names)),
        templates=write_templates(tmp_path / "templates", *names[:3]),
        data_root=data,
    )
    assert [task.name for task in suite.tasks] == ["here"] and suite.order == names
    assert "no split 'dev' there (splits: train)" in suite.missing["other_split"]
    assert "no split 'dev' there" in suite.missing["nowhere"]
    assert "no templates for dataset 'no_template'" in suite.missing["no_template"]
    with pytest.raises(ValueError, match=r"no task can be scored: .*no split 'other' there"):
        load_suite(tmp_path / "s.yaml", templates=tmp_path / "templates", data_root=data, split="other")


def test_without_a_data_root_rows_come_from_the_hub(tmp_path: Path) -> None:
    templates = write_templates(tmp_path / "templates", "a", "b")
    suite = load_suite(
        write_suite(
            tmp_path / "s.yaml",
            {
                "dataset": "a",
                "evaluation": {"split": "dev_r1"},
                "hub": {"id": "owner/a", "rename": {"x": "text"}},
            },
            {"dataset": "b", "evaluation": {"split": "dev"}, "hub": None, "hub_source": "only by request"},
        ),
        templates=templates,
    )
    assert str(suite.tasks[0].source("evaluation")) == "owner/a (dev_r1)"
    assert suite.tasks[0].rename == {"x": "text"}
    assert suite.missing == {"b": "only by request"}
    entry = {"dataset": "a", "evaluation": {"split": "dev"}}
    with pytest.raises(ValueError, match="names a split only, and there is no 'data_root:'"):
        load_suite(write_suite(tmp_path / "t.yaml", entry), templates=templates)


STORY = {
    "InputStoryid": "s1",
    **{f"InputSentence{n}": f"Sentence {n}." for n in range(1, 5)},
    "RandomFifthSentenceQuiz1": "It ends well.",
    "RandomFifthSentenceQuiz2": "It does not.",
    "AnswerRightEnding": "2",
}


def test_story_cloze_is_the_users_own_file(tmp_path: Path) -> None:
    with (tmp_path / "cloze.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(STORY))
        writer.writeheader()
        writer.writerow(STORY)
    template = {
        "name": "Answer Given options",
        "answer_choices": "{{ sentence_quiz1 }} ||| {{ sentence_quiz2 }}",
        "jinja": "{{ input_sentence_4 }} ||| {{ answer_choices[answer_right_ending - 1] }}",
    }
    named = [template, *({"name": n, "jinja": "a ||| b"} for n in story_cloze_templates()[1:])]
    (tmp_path / "templates" / "story_cloze" / "2016").mkdir(parents=True)
    (tmp_path / "templates" / "story_cloze" / "2016" / "templates.yaml").write_text(
        yaml.safe_dump({"dataset": "story_cloze", "templates": {str(n): t for n, t in enumerate(named)}})
    )
    (tmp_path / "data").mkdir()
    place = {"templates": tmp_path / "templates", "data_root": tmp_path / "data"}
    suite = load_suite("t0", story_cloze=tmp_path / "cloze.csv", **place)
    (task,) = suite.tasks
    rendered = task.render(task.templates[0], next(task.evaluation_rows()), 0, "evaluation")
    assert (rendered.input, rendered.target) == ("Sentence 4.", "It does not.")
    with pytest.raises(ValueError, match=r"StoryCloze: .*--story-cloze FILE"):
        load_suite("t0", **place)
    with pytest.raises(ValueError, match="no such file"):
        load_suite("t0", story_cloze=tmp_path / "none.csv", **place)


def story_cloze_templates() -> list[str]:
    path = published_suite("t0")
    assert path is not None
    tasks = yaml.safe_load(path.read_text(encoding="utf-8"))["tasks"]
    return next(task["use"] for task in tasks if task["name"] == "StoryCloze")


def test_columns_are_made_of_others(tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_rows(
        data / "quiz" / "default" / "dev.jsonl.gz", [{"question": "q", "answers": ["x", "y"], "right": 1}]
    )
    template = {
        "name": "quiz",
        "answer_choices": "A ||| B",
        "jinja": "{{ question }} {{ choices.text | join(' or ') }} ||| {{ answer_choices[label] }}",
    }
    templates = write_templates(tmp_path / "templates", "quiz", template=template)
    entry = {
        "dataset": "quiz",
        "evaluation": {"split": "dev"},
        "columns": {"choices": "{'text': answers}", "label": "1 - right"},
    }
    (task,) = load_suite(write_suite(tmp_path / "s.yaml", entry), templates=templates, data_root=data).tasks
    rendered = task.render(task.templates[0], next(task.evaluation_rows()), 0, "evaluation")
    assert (rendered.input, rendered.target) == ("q x or y", "A")
    entry["columns"] = {"label": "['a'][right]"}
    (task,) = load_suite(write_suite(tmp_path / "s.yaml", entry), templates=templates, data_root=data).tasks
    with pytest.raises(ValueError, match=r"row 1: column 'label' cannot be made by .*no element 1"):
        next(task.evaluation_rows())
    entry["columns"] = {"label": "nothing.of(that"}
    with pytest.raises(ValueError, match="'columns:': 'label' is not a valid expression"):
        load_suite(write_suite(tmp_path / "s.yaml", entry), templates=templates, data_root=data)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"dataset": "a", "evaluation": {"split": "dev"}, "shots": 3}, "'shots:': must be a file or"),
        ({"dataset": "a", "evaluation": {"split": "dev"}, "shot": {"split": "dev"}}, "did you mean 'shots'"),
        ({"dataset": "a", "evaluation": {"split": "dev"}, "columns": ["x"]}, "'columns:' must be a mapping"),
        (
            {"dataset": "a", "evaluation": {"split": "dev"}, "evaluation_size": -1},
            "'evaluation_size:' must be",
        ),
        ({"dataset": "a", "evaluation": "no.jsonl"}, "no such file"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, entry: dict[str, Any], message: str) -> None:
    write_rows(tmp_path / "data" / "a" / "default" / "dev.jsonl.gz", [{"text": "a", "label": 0}])
    suite = write_suite(tmp_path / "s.yaml", entry)
    with pytest.raises(ValueError, match=message):
        load_suite(suite, templates=write_templates(tmp_path / "t", "a"), data_root=tmp_path / "data")


def test_other_mistakes(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no suite 'to': give t0 or mmlu, or a file"):
        load_suite("to")
    (tmp_path / "rows.jsonl").write_text('{"text": "a", "label": 0}\n')
    templates = write_templates(tmp_path / "t", "a")
    own = write_suite(tmp_path / "own.yaml", {"dataset": "a", "evaluation": "rows.jsonl"})
    with pytest.raises(ValueError, match="names its rows, not a split of them: leave --split out"):
        load_suite(own, templates=templates, split="test")
    both = write_suite(tmp_path / "both.yaml", include=["own.yaml"])
    assert [task.name for task in load_suite(both, templates=templates).tasks] == ["a"]
