"""Mixture files, and what building makes of them: every id, every count, every refusal."""

from __future__ import annotations

import io
import json
import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from rich.console import Console

from metro_t0.prompts.mixture import Mixture, PromptedData, load_mixture

QUESTION = "{{ text }} Is this good? ||| {{ answer_choices[label] }}"


@pytest.fixture
def mixture_file(
    tmp_path: Path, write_templates: Callable[..., Path], write_json_lines: Any, boat_rows: Any
) -> Callable[..., Path]:
    """A mixture of one task with 40 rows and two templates; keywords change the file, a mapping the task."""
    write_templates(
        "t.yaml", question=(QUESTION, "no ||| yes"), open=("Say: {{ label }} ||| {{ text }}", None)
    )
    write_json_lines(tmp_path / "boats.jsonl", boat_rows(40))

    def write(task: dict[str, Any] | None = None, **changes: Any) -> Path:
        entry = {"dataset": "boats", "train": "boats.jsonl", "templates": "t.yaml", **(task or {})}
        path = tmp_path / "mix.yaml"
        path.write_text(yaml.safe_dump({"tasks": [entry], **changes}), encoding="utf-8")
        return path

    return write


def test_mixture_file_is_read(
    tmp_path: Path, mixture_file: Callable[..., Path], write_json_lines: Any
) -> None:
    write_json_lines(tmp_path / "root" / "boats" / "red" / "test.jsonl", [{"text": "a", "label": 0}])
    path = mixture_file(
        {
            "dataset": "boats/red",
            "evaluation": {"split": "test"},
            "validation": {"hub": {"id": "some/where", "subset": "small", "split": "dev"}},
            "use": ["question"],
        },
        name="mine",
        cap=None,
        data_root="root",
        check_choices=False,
        validation_fraction=0.2,
    )
    mixture = load_mixture(path)
    assert (mixture.name, mixture.cap, mixture.check_choices, mixture.validation_fraction) == (
        "mine",
        None,
        False,
        0.2,
    )
    (task,) = mixture.tasks
    assert (task.name, task.dataset, task.subset) == ("boats/red", "boats", "red")
    assert [template.name for template in task.templates] == ["question"]
    assert list(task.evaluation_rows()) == [{"text": "a", "label": 0}]
    assert task.source("evaluation").split == "test"
    assert str(task.validation) == "some/where/small (dev)"
    defaults = load_mixture(mixture_file())
    assert (defaults.name, defaults.cap, defaults.check_choices) == ("mix", 500_000, True)
    both = load_mixture(mixture_file({"dataset": "boats", "subset": "red", "name": "other"}))
    assert (both.tasks[0].name, both.tasks[0].dataset, both.tasks[0].subset) == ("other", "boats", "red")


def test_templates_and_data_root_can_be_given_from_outside(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    write_templates: Callable[..., Path],
    write_json_lines: Any,
) -> None:
    write_templates("folder/boats/templates.yaml", only=("{{ text }} ||| {{ label }}", None))
    write_json_lines(
        tmp_path / "elsewhere" / "boats" / "default" / "train.jsonl", [{"text": "a", "label": 0}]
    )
    path = mixture_file({"templates": None, "train": {"split": "train"}})
    mixture = load_mixture(path, templates=tmp_path / "folder", data_root=tmp_path / "elsewhere")
    assert [template.name for template in mixture.tasks[0].templates] == ["only"]
    assert list(mixture.tasks[0].rows()) == [{"text": "a", "label": 0}]


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ({}, {"tasts": []}, "unknown key 'tasts' \\(did you mean 'tasks'\\?\\)"),
        ({"tempaltes": "t.yaml"}, {}, "task 1: unknown key 'tempaltes' \\(did you mean 'templates'\\?\\)"),
        ({"zzz": 1}, {}, "unknown key 'zzz' \\(known: name, dataset"),
        ({}, {"tasks": []}, "has no 'tasks:' list"),
        ({}, {"tasks": [3]}, "task 1: is not a mapping"),
        ({"dataset": None}, {}, "task 1: has no 'dataset:'"),
        ({"train": None}, {}, "names no rows"),
        ({"train": "none.jsonl"}, {}, r"'train:': .*none\.jsonl: no such file"),
        ({"train": 3}, {}, "'train:': must be a file"),
        ({"train": {"split": "train"}}, {}, "there is no 'data_root:'"),
        ({"train": {"split": "train"}}, {"data_root": "nowhere"}, "no split 'train' there"),
        ({"train": {"hub": "x"}}, {}, "'hub:' must hold 'id:'"),
        (
            {"train": {"hub": {"id": "x", "splt": "y"}}},
            {},
            "unknown key 'splt' \\(did you mean 'split'\\?\\)",
        ),
        ({"train": {"hubb": {"id": "x"}}}, {}, "unknown key 'hubb' \\(did you mean 'hub'\\?\\)"),
        ({"templates": None}, {}, "no 'templates:' for 'boats'"),
        ({"templates": "nowhere"}, {}, "nowhere: cannot be read"),
        ({"templates": 5}, {}, "'templates:' must be a path"),
        ({"use": "questoin"}, {}, "holds no template 'questoin' \\(did you mean 'question'\\?\\)"),
        ({"use": []}, {}, "'use:' must be all"),
        ({"rename": ["a"]}, {}, "'rename:' must be a mapping"),
        ({}, {"cap": 0}, "'cap:' must be a whole number above 0"),
        ({}, {"cap": 1}, "'cap: 1' leaves no example for each of the 2 templates"),
        ({}, {"check_choices": "no"}, "'check_choices:' must be true or false"),
        ({}, {"validation_fraction": 1}, "'validation_fraction:' must be"),
    ],
)
def test_faults_of_the_file_are_named(
    mixture_file: Callable[..., Path], task: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message) as error:
        load_mixture(mixture_file(task, **changes))
    assert "\n" not in str(error.value)


def test_other_faults_of_the_file(tmp_path: Path, mixture_file: Callable[..., Path]) -> None:
    path = mixture_file()
    entry = yaml.safe_load(path.read_text())["tasks"][0]
    path.write_text(yaml.safe_dump({"tasks": [entry, entry]}))
    with pytest.raises(ValueError, match="task 2: another task is called 'boats'"):
        load_mixture(path)
    path.write_text("tasks: [\nname: {")
    with pytest.raises(ValueError, match=r"mix\.yaml, line 2: is not valid YAML"):
        load_mixture(path)
    path.write_text("just text")
    with pytest.raises(ValueError, match="is not a mapping"):
        load_mixture(path)
    path.write_bytes(b"name: \xff")
    with pytest.raises(ValueError, match="is not UTF-8"):
        load_mixture(path)
    with pytest.raises(ValueError, match="cannot be read"):
        load_mixture(tmp_path / "nowhere.yaml")


def test_ids_are_those_of_the_format(
    tmp_path: Path, mixture_file: Callable[..., Path], small_tokenizer: Any
) -> None:
    data = load_mixture(mixture_file({"use": "question"})).build(small_tokenizer, tmp_path / "out")
    assert len(data.train) == 39
    assert len(data.validation) == 1
    row = data.train[7]
    assert row["input_ids"][0] == small_tokenizer.bos_token_id
    assert row["input_ids"][-1] == row["labels"][-1] == small_tokenizer.eos_token_id
    (text,) = small_tokenizer.encode_texts(["Is this good?"])
    assert row["input_ids"][-1 - len(text) : -1] == text
    answers = {small_tokenizer.decode(labels) for labels in data.train["labels"]}
    assert answers == {"no", "yes"}
    assert data.train.features["input_ids"].feature.dtype == "uint16"
    assert data.card["vocabulary_size"] == len(small_tokenizer)
    assert [data.lengths("train")[7].tolist()] == [[len(row["input_ids"]), len(row["labels"])]]


def test_whitespace_is_made_one_space(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    write_templates: Callable[..., Path],
    small_tokenizer: Any,
) -> None:
    write_templates("t.yaml", wide=("the\n\n river {{ label }}\t is wide ||| a \n small boat", None))
    data = load_mixture(mixture_file()).build(small_tokenizer, tmp_path / "out")
    (expected,) = small_tokenizer.encode_texts(["a small boat"])
    assert data.train[0]["labels"] == [*expected, 2]
    (expected,) = small_tokenizer.encode_texts(["the river 1 is wide"])
    assert data.train[1]["input_ids"] == [0, *expected, 2]


def test_long_texts_are_cut_counted_and_said(
    tmp_path: Path, mixture_file: Callable[..., Path], small_tokenizer: Any
) -> None:
    said = io.StringIO()
    data = load_mixture(mixture_file(validation_fraction=0)).build(
        small_tokenizer,
        tmp_path / "out",
        max_input_length=12,
        max_target_length=8,
        console=Console(file=said, width=200),
    )
    whole = load_mixture(mixture_file(validation_fraction=0)).build(small_tokenizer, tmp_path / "whole")
    totals, lengths = data.card["totals"]["train"], whole.lengths("train")
    inputs, targets = totals["truncated_inputs"], totals["truncated_targets"]
    assert 0 < inputs == (lengths[:, 0] > 12).sum()
    assert 0 < targets == (lengths[:, 1] > 8).sum()
    assert data.lengths("train").max(axis=0).tolist() == [12, 8]
    for cut, full in zip(data.train, whole.train, strict=True):
        if len(full["input_ids"]) > 12:
            assert cut["input_ids"] == [*full["input_ids"][:11], 2]
        if len(full["labels"]) > 8:
            assert cut["labels"] == [*full["labels"][:7], 2]
    line = f"80 examples to train on; {inputs} inputs cut to 12 tokens; {targets} targets cut to 8 tokens"
    assert line in said.getvalue()
    assert totals["input_tokens"] == data.lengths("train")[:, 0].sum()
    assert totals["target_tokens"] == data.lengths("train")[:, 1].sum()


def test_drops_are_counted_with_their_reasons(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    write_templates: Callable[..., Path],
    write_json_lines: Any,
    small_tokenizer: Any,
) -> None:
    write_templates("t.yaml", t=("{{ a }} ||| {{ b }}{% if more %} ||| c{% endif %}", "{{ c }} ||| no"))
    rows = [
        {"a": "the river", "b": "yes", "c": "yes", "more": False},
        {"a": "the boat", "b": "", "c": "yes", "more": False},
        {"a": " ", "b": "yes", "c": "yes", "more": False},
        {"a": "the stone", "b": "good", "c": "yes", "more": False},
        {"a": "the hand", "b": "yes", "c": "yes", "more": True},
        {"a": "the boat", "b": "\u200b", "c": "\u200b", "more": False},
    ]
    write_json_lines(tmp_path / "boats.jsonl", rows)
    data = load_mixture(mixture_file(validation_fraction=0)).build(small_tokenizer, tmp_path / "out")
    assert data.card["templates"][0]["train"]["dropped"] == {
        "no target": 1,
        "empty": 1,
        "target not among the choices": 1,
        "more than one |||": 1,
        "nothing left of the target after tokenizing": 1,
    }
    assert data.card["totals"]["train"]["examples"] == len(data.train) == 1
    loose = load_mixture(mixture_file(validation_fraction=0, check_choices=False))
    assert len(loose.build(small_tokenizer, tmp_path / "loose").train) == 2


@pytest.mark.parametrize(
    ("jinja", "choices", "message"),
    [
        ("{{ text }}", None, "'bad' of task 'boats' renders no target: .*all 40 rows of .*boats.jsonl"),
        ("{{ text }} ||| {% if label == 5 %}x{% endif %}", None, "renders no target"),
        ("||| {{ text }}", None, "renders no input"),
        ("{{ text }} ||| a ||| b", None, "renders more than one"),
        (QUESTION + "!", "no ||| yes", "answers 'no!', which is not among its choices.*check_choices: false"),
        ("{{ words }} ||| yes", None, r"row 1: template 'bad' of boats uses 'words'.*columns: label, text"),
        ("{{ text ||| yes", None, "line 1 of its jinja is not valid"),
        ("{{ text / 2 }} ||| yes", None, r"row 1: template 'bad' of boats cannot be rendered"),
    ],
)
def test_templates_that_give_nothing_are_errors(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    write_templates: Callable[..., Path],
    small_tokenizer: Any,
    jinja: str,
    choices: str | None,
    message: str,
) -> None:
    write_templates("t.yaml", question=(QUESTION, "no ||| yes"), bad=(jinja, choices))
    mixture = load_mixture(mixture_file())
    with pytest.raises(ValueError, match=message) as error:
        mixture.build(small_tokenizer, tmp_path / "out")
    assert "\n" not in str(error.value)
    assert {path.name for path in tmp_path.iterdir()} == {"boats.jsonl", "mix.yaml", "t.yaml"}


def test_a_template_may_serve_few_rows(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    write_templates: Callable[..., Path],
    small_tokenizer: Any,
) -> None:
    write_templates("t.yaml", rare=("{% if text.startswith('boat 37') %}{{ text }} ||| yes{% endif %}", None))
    data = load_mixture(mixture_file(validation_fraction=0)).build(small_tokenizer, tmp_path / "out")
    assert len(data.train) == 1
    assert data.card["totals"]["train"]["dropped"] == {"empty": 39}


def test_held_out_rows_are_rows_not_examples(
    tmp_path: Path, mixture_file: Callable[..., Path], small_tokenizer: Any
) -> None:
    data = load_mixture(mixture_file(validation_fraction=0.2)).build(small_tokenizer, tmp_path / "out")
    assert data.card["tasks"][0]["rows"] == {"train": 32, "validation": 8}
    assert len(data.train) == 64
    assert len(data.validation) == 16

    assert data.card["templates"][0]["name"] == "open"
    trained, held_out = (
        # This template's target is the row's own text, "boat NUMBER ...".
        {small_tokenizer.decode(row["labels"]) for row in part if row["template"] == 0}
        for part in (data.train, data.validation)
    )
    assert (len(trained), len(held_out)) == (32, 8)
    assert not trained & held_out


def test_validation_rows_of_the_task(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    small_tokenizer: Any,
    write_json_lines: Any,
    boat_rows: Any,
) -> None:
    write_json_lines(tmp_path / "dev.jsonl", boat_rows(1200))
    path = mixture_file({"validation": "dev.jsonl", "use": "question"})
    data = load_mixture(path).build(small_tokenizer, tmp_path / "out")
    assert data.card["tasks"][0]["rows"] == {"train": 40, "validation": 1000}
    assert (len(data.train), len(data.validation)) == (40, 1000)
    assert data.card["tasks"][0]["sources"]["validation"]["source"].endswith("dev.jsonl")


def test_building_repeats_byte_for_byte(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    write_templates: Callable[..., Path],
    small_tokenizer: Any,
) -> None:
    write_templates("t.yaml", draws=("{{ ['the', 'a', 'her'] | choice }} {{ text }} ||| {{ label }}", None))
    mixture = load_mixture(mixture_file())
    for name, seed in (("one", 3), ("two", 3), ("three", 4)):
        mixture.build(small_tokenizer, tmp_path / name, seed=seed)
    files = ("card.json", "card.md", "examples.jsonl", "train/data-00000-of-00001.arrow")
    one, two, three = (
        [(tmp_path / n / file).read_bytes() for file in files] for n in ("one", "two", "three")
    )
    assert one == two
    assert one[2] != three[2]
    assert one[3] != three[3]


def test_what_is_there_is_not_overwritten(
    tmp_path: Path, mixture_file: Callable[..., Path], small_tokenizer: Any
) -> None:
    mixture = load_mixture(mixture_file())
    (tmp_path / "out").mkdir()
    mixture.build(small_tokenizer, tmp_path / "out")
    before = (tmp_path / "out" / "card.json").read_bytes()
    with pytest.raises(ValueError, match="out already holds something"):
        mixture.build(small_tokenizer, tmp_path / "out")
    assert (tmp_path / "out" / "card.json").read_bytes() == before
    with pytest.raises(ValueError, match="at least 3"):
        mixture.build(small_tokenizer, tmp_path / "new", max_input_length=2)


def test_empty_files_and_tasks_without_train_rows(
    tmp_path: Path, mixture_file: Callable[..., Path], small_tokenizer: Any
) -> None:
    (tmp_path / "none.jsonl").write_bytes(b"\n")
    with pytest.raises(ValueError, match=r"task 'boats': .*none\.jsonl holds no rows"):
        load_mixture(mixture_file({"train": "none.jsonl"})).build(small_tokenizer, tmp_path / "out")
    with pytest.raises(ValueError, match="task 'boats' has no 'train:' rows"):
        load_mixture(mixture_file({"train": None, "validation": "boats.jsonl"})).check()


def test_a_broken_row_late_in_a_file_leaves_nothing_behind(
    tmp_path: Path, mixture_file: Callable[..., Path], small_tokenizer: Any
) -> None:
    with (tmp_path / "boats.jsonl").open("a") as file:
        file.write('{"text": "no label"}\n')
    with pytest.raises(ValueError, match=r"boats\.jsonl, row 41: template 'open' of boats uses 'label'"):
        load_mixture(mixture_file(validation_fraction=0)).build(small_tokenizer, tmp_path / "deep" / "out")
    assert not (tmp_path / "deep").exists()


def _build_forever(mixture: Mixture, tokenizer: Any, out: Path) -> None:
    mixture.build(tokenizer, out)


def test_killed_build_leaves_no_output_and_can_be_repeated(
    tmp_path: Path,
    mixture_file: Callable[..., Path],
    small_tokenizer: Any,
    write_json_lines: Any,
    boat_rows: Any,
) -> None:
    write_json_lines(tmp_path / "boats.jsonl", boat_rows(20_000))
    mixture = load_mixture(mixture_file())
    out = tmp_path / "built" / "out"
    process = multiprocessing.get_context("fork").Process(
        target=_build_forever, args=(mixture, small_tokenizer, out)
    )
    process.start()
    assert process.pid is not None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        written = [path.stat().st_size for path in (tmp_path / "built").rglob("train.arrow")]
        if written and written[0] > 1000:
            break
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert not out.exists()
    small = load_mixture(mixture_file({"use": "question"}))
    write_json_lines(tmp_path / "boats.jsonl", boat_rows(40))
    assert len(small.build(small_tokenizer, out).train) == 39


def test_loading_refuses_what_is_no_built_mixture(
    tmp_path: Path, mixture_file: Callable[..., Path], small_tokenizer: Any
) -> None:
    with pytest.raises(ValueError, match="is not a built mixture"):
        PromptedData.load(tmp_path)
    data = load_mixture(mixture_file()).build(small_tokenizer, tmp_path / "out")
    card = json.loads((data.path / "card.json").read_text())
    (data.path / "card.json").write_text(json.dumps({**card, "format_version": 99}))
    with pytest.raises(ValueError, match="format version 99"):
        PromptedData.load(data.path)
