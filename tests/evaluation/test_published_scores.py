"""The published tables hold together, and the reader finds their rows."""

from __future__ import annotations

import math

import pytest

from metro_t0.evaluation.published_scores import (
    SHOWN_AT_FIRST,
    PublishedScores,
    find_published,
    published_scores,
)

MODELS = published_scores()
TASKS = [
    "RTE",
    "CB",
    "ANLI R1",
    "ANLI R2",
    "ANLI R3",
    "WSC",
    "Winogrande",
    "COPA",
    "StoryCloze",
    "HellaSwag",
    "WiC",
]


def test_every_row_has_the_eleven_tasks_and_names_are_unique() -> None:
    assert len([model for model in MODELS if model.source == "paper"]) == 22
    assert len([model for model in MODELS if model.source == "model cards"]) == 9
    assert len({model.name for model in MODELS}) == len(MODELS)
    for model in MODELS:
        assert list(model.scores) == TASKS
        assert model.supervised <= set(TASKS)
        assert all(score is None or 0 <= score <= 100 for score in model.scores.values())


@pytest.mark.parametrize(
    "model", [model for model in MODELS if model.average is not None], ids=lambda m: m.name
)
def test_an_average_is_the_mean_of_its_eleven_scores(model: PublishedScores) -> None:
    scores = [score for score in model.scores.values() if score is not None]
    assert len(scores) == 11
    assert math.fsum(scores) / 11 == pytest.approx(model.average, abs=0.011)


def test_cards_of_the_larger_models_say_what_the_table_says() -> None:
    """So transcribed twice; the base models' cards are of other runs, and differ."""
    pairs = {
        "metro_t0_basepp": "METRO-T0 BASE++",
        "metro_t0p_basepp": "METRO-T0+ BASE++",
        "metro_t0pp_basepp": "METRO-T0++ BASE++",
        "metro_t0_largepp": "METRO-T0 LARGE++",
        "metro_t0p_largepp": "METRO-T0+ LARGE++",
        "metro_t0pp_largepp": "METRO-T0++ LARGE++",
    }
    for card, row in zip(find_published(list(pairs)), find_published(list(pairs.values())), strict=True):
        assert card.supervised == row.supervised and card.mixture == row.mixture
        for task, score in card.scores.items():
            assert score is None or score == pytest.approx(row.scores[task], abs=0.0101), (card.name, task)


def test_rows_are_found_by_name_and_a_wrong_name_is_told_its_neighbours() -> None:
    assert [model.name for model in find_published(SHOWN_AT_FIRST)] == list(SHOWN_AT_FIRST)
    with pytest.raises(
        ValueError, match=r"no published scores of 'METRO-T0 BSAE'; did you mean 'METRO-T0 BASE'"
    ):
        find_published(["METRO-T0 BSAE"])
