"""Files of predictions: back as they were, whole or not there, names that no two templates share."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.evaluation.predictions import (
    Prediction,
    TemplatePredictions,
    predictions_file,
    read_predictions,
    read_template_predictions,
    rescored,
    write_predictions,
)

ITEM = Prediction(
    3, "Is it?\n\u2028 ü", ["yes", "", "yes"], [-2.0, -4.5, -2.0], [2, 1, 2], 0, 1, [-1.0, -4.0, -1.0]
)


def test_predictions_come_back_as_they_were(tmp_path: Path) -> None:
    written = TemplatePredictions("RTE", "a/b: “c”?", [ITEM], {"no target": 2}, 1.5)
    path = write_predictions(tmp_path, written)
    assert read_template_predictions(path) == written
    assert read_predictions(tmp_path) == [written]
    assert path == predictions_file(tmp_path, "RTE", "a/b: “c”?")
    assert not list(tmp_path.rglob("*.writing"))


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    path = write_predictions(tmp_path, TemplatePredictions("RTE", "t", [ITEM] * 50))
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(ValueError, match=path.name):
        read_predictions(tmp_path)


@given(st.text(), st.text())
def test_no_two_names_share_a_file(one: str, other: str) -> None:
    paths = {predictions_file(Path("p"), "t", name) for name in {one, other}}
    assert len(paths) == len({one, other})
    assert all(len(path.name.encode()) < 100 and "/" not in path.name for path in paths)


def test_other_scores_choose_other_answers() -> None:
    item = Prediction(0, "p", ["a", "b b b b", "c"], [-2.0, -3.0, -2.5], [2, 5, 2], 0, 0, [-1.0, -2.5, -4.0])
    assert [rescored(item, name) for name in ("official", "length-normalised", "calibrated")] == [0, 1, 2]
    with pytest.raises(ValueError, match="known: official"):
        rescored(item, "contrastive")
    with pytest.raises(ValueError, match="calibrated"):
        rescored(Prediction(0, "p", ["a"], [-1.0], [2], 0, 0), "calibrated")
