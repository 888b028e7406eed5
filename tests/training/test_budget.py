"""Budgets in words."""

from __future__ import annotations

import pytest

from metro_t0.training.budget import Budget, budget_overrides, parse_budget, parse_seconds


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("90s", Budget(seconds=90)),
        ("20m", Budget(seconds=1200)),
        ("1.5 min", Budget(seconds=90)),
        ("8h", Budget(seconds=28800)),
        ("2d", Budget(seconds=172800)),
        ("500M-tokens", Budget(tokens=500_000_000)),
        ("1.5b tokens", Budget(tokens=1_500_000_000)),
        ("20K-tokens", Budget(tokens=20_000)),
        ("512tokens", Budget(tokens=512)),
        ("2000", Budget(steps=2000)),
        (" 2000-steps ", Budget(steps=2000)),
        ("1 step", Budget(steps=1)),
    ],
)
def test_reads_what_people_write(text: str, budget: Budget) -> None:
    assert parse_budget(text) == budget


@pytest.mark.parametrize("text", ["", "soon", "-5m", "5m30s", "2M", "500M", "1.5", "3 T-tokens", "20 M", "m"])
def test_refuses_what_could_mean_anything(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no budget: write a time \(90s, 20m, 8h, 2d\), tokens"):
        parse_budget(text)


@pytest.mark.parametrize("text", ["0", "0s", "0.0m", "0-tokens", "0.0001K-tokens"])
def test_refuses_nothing(text: str) -> None:
    with pytest.raises(ValueError, match=f"a budget of {text} holds nothing"):
        parse_budget(text)


def test_a_bare_number_is_seconds_where_only_time_makes_sense() -> None:
    assert parse_seconds("90") == parse_seconds("90s") == parse_seconds("1.5m") == 90
    for text in ("2000-steps", "5M-tokens", "soon", "2M", ""):
        with pytest.raises(ValueError, match="is no length of time"):
            parse_seconds(text)


def test_a_budget_becomes_one_setting_ahead_of_the_others() -> None:
    assert budget_overrides("20m", ["training.seed=3"]) == [
        "training.budget_seconds=1200.0",
        "training.seed=3",
    ]
    assert budget_overrides("5M-tokens") == ["training.budget_tokens=5000000"]
    assert budget_overrides("7") == ["training.steps=7"]
    assert budget_overrides(None, ["training.steps=3"]) == ["training.steps=3"]


def test_two_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match=r"--budget and training.steps both say how long to train"):
        budget_overrides("20m", ["training.steps=3"])
