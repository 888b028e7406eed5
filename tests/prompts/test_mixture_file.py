"""Mixture files with includes, weights, caps and datasets that are not there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metro_t0.prompts.mixture import load_mixture
from metro_t0.prompts.mixture_plan import plan_mixture

ANSWER = ("{{ text }} Good? ||| {{ answer_choices[label] }}", "no ||| yes")


@pytest.fixture
def write_mixture(
    tmp_path: Path, write_templates: Callable[..., Path], write_json_lines: Any, boat_rows: Any
) -> Callable[..., Path]:
    """Writes a mixture beside ``boats.jsonl`` of 40 rows and ``t.yaml`` of two templates."""
    write_templates("t.yaml", question=ANSWER, other=ANSWER)
    write_json_lines(tmp_path / "boats.jsonl", boat_rows(40))

    def write(path: str = "mix.yaml", task: dict[str, Any] | None = None, **changes: Any) -> Path:
        entry = {"dataset": "boats", "train": "boats.jsonl", "templates": "t.yaml", **(task or {})}
        (tmp_path / path).write_text(yaml.safe_dump({"tasks": [entry], **changes}), encoding="utf-8")
        return tmp_path / path

    return write


def test_mixtures_are_included_with_a_weight(write_mixture: Callable[..., Path]) -> None:
    write_mixture("inner.yaml", {"weight": 2}, check_choices=False, cap=10)
    path = write_mixture(
        "outer.yaml", {"name": "more boats"}, include=[{"mixture": "inner.yaml", "weight": 0.5}], cap=20
    )
    mixture = load_mixture(path)
    assert [(task.name, task.weight) for task in mixture.tasks] == [("boats", 1.0), ("more boats", 1.0)]
    # The including file's own settings go before those of what it includes.
    assert (mixture.cap, mixture.check_choices) == (20, False)
    assert [len(task.templates) for task in mixture.tasks] == [2, 2]


@pytest.mark.parametrize(
    ("rule", "in_file", "cap"),
    [
        (None, {}, 500_000),
        ("metro", {"cap": 3}, 500_000),
        ("8", {}, 8),
        ("none", {}, None),
        (None, {"cap": None}, None),
    ],
)
def test_rules_of_the_cap(
    write_mixture: Callable[..., Path], rule: str | None, in_file: dict[str, Any], cap: int | None
) -> None:
    assert load_mixture(write_mixture(**in_file), cap=rule).cap == cap


@pytest.mark.parametrize(("size", "cap"), [(500_000, None), (500_001, 500_000), (None, None)])
def test_t0_caps_only_large_datasets(
    write_mixture: Callable[..., Path], size: int | None, cap: int | None
) -> None:
    mixture = load_mixture(write_mixture(task={"train_size": size}), cap="t0")
    assert mixture.cap is None
    assert mixture.tasks[0].cap == cap


def test_an_epoch_is_weight_times_window(write_mixture: Callable[..., Path], small_tokenizer: Any) -> None:
    path = write_mixture(task={"weight": 1.5, "cap": 20}, cap="none", validation_fraction=0)
    mixture = load_mixture(path)
    plan = plan_mixture(mixture, looked=True)
    data = mixture.build(small_tokenizer, path.parent / "out")
    assert plan.rows_per_epoch == 2 * 15 == len(data.epoch_indices(0, 0))
    entry = data.card["templates"][0]
    assert (entry["cap"], entry["weight"]) == (10, 1.5)


def test_missing_datasets_are_named_or_left_out(
    tmp_path: Path,
    write_mixture: Callable[..., Path],
    write_json_lines: Any,
    boat_rows: Any,
    small_tokenizer: Any,
) -> None:
    write_json_lines(tmp_path / "root/boats/default/train_a.jsonl", boat_rows(3))
    write_json_lines(tmp_path / "root/boats/default/train_b.jsonl", boat_rows(4))
    write_json_lines(tmp_path / "root/boats/default/test.jsonl", boat_rows(9))
    write_json_lines(tmp_path / "root/ships/small/validation.jsonl", boat_rows(9))
    tasks = [
        {"dataset": name, "templates": "t.yaml", "hub": None} for name in ("boats", "ships/small", "rafts")
    ]
    path = write_mixture(tasks=tasks)
    with pytest.raises(ValueError, match="2 of its 3 datasets are not there") as error:
        load_mixture(path, data_root=tmp_path / "root")
    assert f"ships/small (only validation in {tmp_path / 'root/ships/small'})" in str(error.value)
    assert f"rafts (nothing in {tmp_path / 'root/rafts/default'})" in str(error.value)
    mixture = load_mixture(path, data_root=tmp_path / "root", allow_missing=True)
    assert mixture.missing == ("ships/small", "rafts")
    # Both train splits, and nothing of test.
    assert mixture.tasks[0].source("train").count() == 7
    assert mixture.build(small_tokenizer, tmp_path / "out").card["missing"] == ["ships/small", "rafts"]


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        ({}, {"include": ["mix.yaml"]}, "include"),
        ({}, {"include": "t0"}, "'include:' must be a list"),
        ({}, {"include": ["nowhere.yaml"]}, "nowhere.yaml: cannot be read"),
        ({"weight": 0}, {}, "task 1: 'weight:' must be a number above 0"),
        ({"cap": 1}, {}, "'cap: 1' leaves no example for each of its 2 templates"),
        ({"cap": "few"}, {}, "'cap:' must be a whole number above 0"),
        ({"relabel": {"label": "x"}}, {}, "'relabel:' must be a mapping"),
        ({"train": None, "hub": {"id": "a/b", "train": "test"}}, {}, "it does not begin with train"),
        ({"train": None, "hub": {"subset": "b"}}, {}, "'hub:' must hold 'id:'"),
        ({}, {"cap": "some"}, "metro, t0, or null"),
    ],
)
def test_faults_are_named(
    write_mixture: Callable[..., Path], task: dict[str, Any], changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as error:
        load_mixture(write_mixture(task=task, **changes))
    assert "\n" not in str(error.value)
