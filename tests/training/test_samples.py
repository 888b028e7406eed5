"""Samples: which points of a run are kept, what a line holds, and that it is the same rows every time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import small_config
from transformers import PreTrainedModel

from metro_t0.data.prepare import PreparedCorpus
from metro_t0.data.rows import TokenRows
from metro_t0.objectives.build import build_objective
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.training.distributed import Parallel
from metro_t0.training.samples import LENGTH, ROWS, Samples, points_passed
from metro_t0.training.starting_point import new_pretraining_model


@given(steps=st.integers(1, 5000), every=st.integers(1, 400))
def test_at_most_six_points_of_a_run_are_kept_its_ends_among_them(steps: int, every: int) -> None:
    validations = [step for step in range(1, steps + 1) if step == steps or step % every == 0]
    passed, kept = 0, []
    for step in [0, *validations]:
        if points_passed(step, steps) > passed:
            passed = points_passed(step, steps)
            kept.append(step)
    assert kept[0] == 0 and kept[-1] == steps and len(kept) <= 6
    if every * 20 <= steps:
        assert len(kept) == 6


@pytest.fixture(scope="module")
def held_out(corpus: Path) -> TokenRows:
    return TokenRows(PreparedCorpus.load(corpus).validation, ("input_ids",))


@pytest.fixture(scope="module")
def tokenizer(corpus: Path) -> MetroT0Tokenizer:
    return MetroT0Tokenizer.from_pretrained(str(corpus / "tokenizer"))


def network(seed: int, tokenizer: MetroT0Tokenizer) -> PreTrainedModel:
    return new_pretraining_model(small_config(f"training.seed={seed}"), tokenizer)


def test_a_row_holds_what_was_done_to_each_token(held_out: TokenRows, tokenizer: MetroT0Tokenizer) -> None:
    model = network(3, tokenizer)
    objective = build_objective(small_config().objective, model.config, 1, 1)
    samples, parallel = Samples(objective, held_out, tokenizer), Parallel(model.train(), objective)
    rows = samples.take(parallel, "fp32")
    assert model.training and len(rows) == min(ROWS, len(held_out))
    for place, row in enumerate(rows):
        ids = held_out[place]["input_ids"][:LENGTH].tolist()
        assert row["original"] == tokenizer.convert_ids_to_tokens(ids)
        assert {len(values) for values in row.values()} == {len(ids)}
        for masked, original, replaced, restored, detection in zip(
            row["masked"], row["original"], row["replaced"], row["restored"], row["detection"], strict=True
        ):
            assert (restored is not None) == masked and 0.0 <= detection <= 1.0
            assert replaced is None or (masked and replaced != original)
        assert sum(row["masked"]) == pytest.approx(0.15 * len(ids), abs=2)
    assert any(replaced for row in rows for replaced in row["replaced"])
    assert json.loads(json.dumps(rows, allow_nan=False)) == rows
    torch.manual_seed(123)
    assert samples.take(parallel, "fp32") == rows, "the same rows with the same draws"
    other = Samples(objective, held_out, tokenizer).take(Parallel(network(4, tokenizer), objective), "fp32")
    assert [row["masked"] for row in other] == [row["masked"] for row in rows] and other != rows


def test_a_model_that_has_diverged_can_still_be_shown(
    held_out: TokenRows, tokenizer: MetroT0Tokenizer
) -> None:
    model = network(3, tokenizer)
    objective = build_objective(small_config().objective, model.config, 1, 1)
    with torch.no_grad():
        model.rtd_head.out.bias.fill_(torch.nan)
    (row, *_) = Samples(objective, held_out, tokenizer).take(Parallel(model, objective), "fp32")
    assert set(row["detection"]) == {None}
    json.dumps(row, allow_nan=False)
