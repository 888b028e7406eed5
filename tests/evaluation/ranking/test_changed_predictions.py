"""Rounding beside float32: the predictions that differ are counted, and the model goes on rounded."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import torch
from foreign_models import save_foreign_model
from small_models import WORDS, make_model, make_tokenizer

from metro_t0.evaluation.loading import load_model
from metro_t0.evaluation.quantization import int8_is_supported
from metro_t0.evaluation.ranking.precision import changed_predictions
from metro_t0.evaluation.ranking.rank import rank

DRAW = random.Random(0)
PROMPTS = [" ".join(DRAW.choices(WORDS, k=12)) for _ in range(300)]
# Answers of one length and many of them: close calls, of which rounding decides some.
CHOICES = [DRAW.sample(WORDS, 25) if index % 6 else ["yes"] for index in range(300)]


def test_what_differs_is_what_two_models_say(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    make_model(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    precise = rank(model, tokenizer, PROMPTS, CHOICES)
    drawn, changed = changed_predictions(model, tokenizer, PROMPTS, CHOICES, sample=256)
    assert model.dtype == torch.bfloat16
    rounded = rank(load_model(tmp_path, "bf16")[0], tokenizer, PROMPTS, CHOICES)
    assert drawn == 250, "rows of one choice are left out"
    assert changed == sum(a.prediction != b.prediction for a, b in zip(precise, rounded, strict=True)) > 0
    for one, other in zip(precise, rounded, strict=True):
        assert other.log_likelihoods == pytest.approx(one.log_likelihoods, rel=0.1, abs=0.3)
    # Sums of float32 log-probabilities are not multiples of a bfloat16 step.
    scores = torch.tensor([result.log_likelihoods[0] for result in rounded])
    assert not torch.equal(scores, scores.bfloat16().float())


@pytest.mark.skipif(not int8_is_supported(), reason="torch without FBGEMM")
def test_weights_of_8_bits(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    make_model(tokenizer).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, _ = load_model(tmp_path)
    precise = rank(model, tokenizer, PROMPTS, CHOICES)
    drawn, changed = changed_predictions(model, tokenizer, PROMPTS, CHOICES, precision="int8")
    rounded = rank(load_model(tmp_path, "int8")[0], tokenizer, PROMPTS, CHOICES)
    assert drawn == 250
    assert changed == sum(a.prediction != b.prediction for a, b in zip(precise, rounded, strict=True))
    assert 0 < changed < 125
    assert [result.log_likelihoods for result in rank(model, tokenizer, PROMPTS, CHOICES)] == [
        result.log_likelihoods for result in rounded
    ]


def test_the_sample_is_drawn_by_its_seed(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    counts = [
        changed_predictions(make_model(tokenizer), tokenizer, PROMPTS, CHOICES, sample=20, seed=seed)
        for seed in (1, 1)
    ]
    assert counts[0] == counts[1] and counts[0][0] == 20
    model = make_model(tokenizer)
    assert changed_predictions(model, tokenizer, ["which"], [["yes"]]) == (0, 0)
    with pytest.raises(ValueError, match="with float32, but the model is in torch"):
        changed_predictions(model, tokenizer, PROMPTS, CHOICES)
    with pytest.raises(ValueError, match="at least 1, not 0"):
        changed_predictions(make_model(tokenizer), tokenizer, PROMPTS, CHOICES, sample=0)


def test_other_models(tmp_path: Path) -> None:
    model, tokenizer = load_model(save_foreign_model("t5", tmp_path))
    drawn, changed = changed_predictions(model, tokenizer, PROMPTS, CHOICES, sample=30)
    assert drawn == 30 and 0 <= changed <= 30 and model.dtype == torch.bfloat16
