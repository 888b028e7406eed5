"""The nine published models: what is said of them agrees with the presets, the paper and the model cards."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from metro_t0.config import load_preset
from metro_t0.evaluation.published_models import PublishedModel, published_models
from metro_t0.evaluation.published_scores import find_published
from metro_t0.prompts.published import published_file
from metro_t0.training.plan.networks import count_parameters, network_config, pieces_of

MODELS = {model.hub_id.removeprefix("gonglinyuan/"): model for model in published_models()}


def test_nine_models_of_three_sizes_and_three_mixtures() -> None:
    pairs = [(model.size, model.mixture) for model in MODELS.values()]
    assert pairs == [(s, m) for s in ("base", "base++", "large++") for m in ("T0", "T0+", "T0++")]
    assert list(MODELS)[2:4] == ["metro_t0pp_base", "metro_t0_basepp"]
    assert all(published_file(model.mixture.lower()) for model in MODELS.values())


@pytest.mark.parametrize("name", ["metro_t0_base", "metro_t0_basepp", "metro_t0_largepp"])
def test_shapes_are_the_presets(name: str) -> None:
    model = MODELS[name]
    shape = network_config(load_preset(model.size), pieces_of(model.size))
    assert (shape.vocab_size, shape.num_layers, shape.d_model) == (
        model.vocabulary,
        model.layers,
        model.width,
    )
    assert count_parameters(shape, metro=False).total == model.parameters


def mean(model: PublishedModel) -> float:
    scores = [score for score in model.scores.values() if score is not None]
    assert len(scores) == 11
    return sum(scores) / 11


def test_scores_are_the_cards_and_whole_where_the_paper_agrees() -> None:
    assert MODELS["metro_t0_base"].scores["RTE"] == 61.62, "the card's, not the paper's 65.18"
    base = MODELS["metro_t0p_base"]
    assert base.average is None and base.from_paper == ()
    assert [task for task, score in base.scores.items() if score is None] == ["HellaSwag", "WiC"]
    filled = MODELS["metro_t0p_basepp"]
    assert filled.from_paper == ("HellaSwag", "WiC") and filled.scores["RTE"] == 71.444
    assert filled.scores["WiC"] == find_published(["METRO-T0+ BASE++"])[0].scores["WiC"]
    assert filled.supervised == {"StoryCloze", "HellaSwag"}
    assert MODELS["metro_t0pp_largepp"].from_paper == ()
    for model in MODELS.values():
        if model.average is not None:
            assert mean(model) == pytest.approx(model.average, abs=0.011), model.hub_id
    assert sum(model.average is None for model in MODELS.values()) == 2


def run(*words: str) -> str:
    command = [sys.executable, "-m", "metro_t0.cli.main", "models", *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_the_command_prints_whole_names_and_scores_on_80_columns() -> None:
    shown = run()
    assert all(model.hub_id in shown for model in MODELS.values()) and "…" not in shown
    assert max(map(len, shown.splitlines())) <= 80
    lines = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    assert lines["average"] == ["49.77", "–", "–", "54.15", "58.67", "62.78", "57.97", "65.23", "69.80"]
    assert lines["COPA"][0] == "66.25" and lines["HellaSwag"][1:3] == ["–", "–"]


def test_the_command_prints_json() -> None:
    found = json.loads(run("--json"))
    assert [model["hub_id"] for model in found] == [model.hub_id for model in MODELS.values()]
    assert found[4]["scores"] == MODELS["metro_t0p_basepp"].scores and found[0]["parameters"] == 225_618_432
