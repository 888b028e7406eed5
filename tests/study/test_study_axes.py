"""Shipped axes train: a real update of every value, on a network of 16."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from small_studies import SMALL

from metro_t0.evaluation.records import read_run
from metro_t0.study.plan import arms
from metro_t0.study.study_file import Study, shipped_axes
from metro_t0.training.run import pretrain


@pytest.mark.parametrize("name", sorted(shipped_axes()))
def test_every_value_of_an_axis_trains(name: str, study_corpus: Path, tmp_path: Path) -> None:
    # Six layers, so that a sixth, a third and a half of them are three auxiliary models.
    settings = {**SMALL, "model.num_layers": 6, "training.validate_every": 1}
    study = Study.model_validate(
        {
            "name": "axes",
            "base": "tiny",
            "settings": settings,
            "axes": {name: shipped_axes()[name].model_dump()},
            "tokens": 1000,
        }
    )
    losses = {}
    for number, arm in enumerate(arms(study)):
        run = read_run(pretrain(arm.config, study_corpus, tmp_path / f"run-{number}"))
        losses[arm.name] = run.last("validation")["loss"]
        assert math.isfinite(losses[arm.name])
    # A value that trains as another does is no change of anything.
    same = 1 if name == "auxiliary-depth" else 0  # a sixth of six layers is the base's one
    assert len(set(losses.values())) == len(losses) - same, losses
