"""Which datasets a model was finetuned on: from its card, or from its published name."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from metro_t0.evaluation.supervision import trained_on


def test_a_runs_card_says_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    (run / "model").mkdir(parents=True)
    tasks = [
        {"name": "a", "dataset": "glue", "subset": "mrpc"},
        {"name": "b", "dataset": "imdb", "subset": None},
    ]
    (run / "data_card.json").write_text(json.dumps({"tasks": tasks}))
    assert trained_on(run) == trained_on(run / "model") == {("glue", "mrpc"), ("imdb", None)}
    (run / "other").mkdir()
    assert trained_on(run / "other") is None, "a neighbour's card is not a model's own"


def test_a_pretrained_model_was_finetuned_on_nothing_known(tmp_path: Path) -> None:
    (tmp_path / "data_card.json").write_text(json.dumps({"documents": 3, "tokens": 9}))
    assert trained_on(tmp_path) is None
    assert trained_on(tmp_path / "nowhere") is None


@pytest.mark.parametrize(
    ("name", "count", "wic"),
    [
        ("gonglinyuan/metro_t0_base", 38, False),
        ("gonglinyuan/metro_t0p_basepp", 48, False),
        ("models/metro_t0pp_largepp", 54, True),
    ],
)
def test_published_models_are_known_by_name(name: str, count: int, wic: bool) -> None:
    datasets = trained_on(name)
    assert datasets is not None and len(datasets) == count
    assert (("super_glue", "wic") in datasets) == wic
    assert ("super_glue", "rte") not in datasets


@pytest.mark.parametrize("text", ["{", "[]", '{"tasks": [{"name": "a"}]}', '{"tasks": 3}'])
def test_a_broken_card_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "data_card.json").write_text(text)
    with pytest.raises(ValueError, match=r"data_card\.json is not a data card that can be read"):
        trained_on(tmp_path)
