"""Losses, hits and samples from one pass over the logits, against torch's own functions."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as functional
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.objectives import scoring
from metro_t0.objectives.scoring import sample_rows, score_tokens

# Of the gradient, whose factors are rounded once to the logits' type.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-6, torch.bfloat16: 2**-7}


@settings(max_examples=60, deadline=None)
@given(
    number=st.integers(0, 13),
    vocabulary=st.integers(1, 60),
    dtype=st.sampled_from(list(TOLERANCE)),
    rows_at_once=st.sampled_from([1, 4, 100]),
    scale=st.sampled_from([0.1, 1.0, 30.0]),
    seed=st.integers(0, 999),
)
def test_losses_hits_and_gradients_are_those_of_torch(
    number: int, vocabulary: int, dtype: torch.dtype, rows_at_once: int, scale: float, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = (torch.randn(number, vocabulary, generator=generator) * scale).to(dtype).requires_grad_()
    targets = torch.randint(vocabulary, (number,), generator=generator)
    weights = torch.randn(number, generator=generator).to(torch.promote_types(dtype, torch.float32))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scoring, "_CHUNK_BYTES", rows_at_once * 4 * vocabulary)
        scores = score_tokens(logits * 1.0, targets)  # a product's output, which may be overwritten
    precise = logits.detach().to(weights.dtype).requires_grad_()
    losses = functional.cross_entropy(precise, targets, reduction="none")
    assert scores.losses.dtype == weights.dtype and scores.samples is None
    bound = 1e-12 if dtype == torch.float64 else 2e-6
    torch.testing.assert_close(scores.losses, losses, rtol=bound, atol=bound * scale)
    best = logits.gather(1, targets.unsqueeze(1)).squeeze(1) == logits.amax(dim=1)
    assert torch.equal(scores.hits, best)
    (ours,) = torch.autograd.grad((scores.losses * weights).sum(), logits)
    (expected,) = torch.autograd.grad((losses * weights).sum(), precise)
    assert ours.dtype == dtype
    bound = TOLERANCE[dtype]
    # As an error against a row's weight: it is what probabilities and their difference to 1 are multiplied by.
    assert ((ours - expected).abs() <= bound * weights.abs().unsqueeze(1) + 1e-30).all()


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("rows_at_once", [1, 7, 500])
def test_samples_are_those_of_whole_rows(
    dtype: torch.dtype, rows_at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(1)
    logits = (torch.randn(400, 97, generator=generator) * 2).to(dtype)
    draws = torch.rand(400, generator=generator)
    targets = torch.randint(97, (400,), generator=generator)
    monkeypatch.setattr(scoring, "_CHUNK_BYTES", rows_at_once * 4 * 97)
    expected = sample_rows(logits.clone(), draws)
    scores = score_tokens(logits.clone(), targets, draws=draws)
    assert scores.samples is not None and torch.equal(scores.samples, expected)
    assert len(expected.unique()) > 60
    assert torch.equal(scores.losses, score_tokens(logits.clone(), targets).losses)


def test_only_losses_carry_a_gradient() -> None:
    logits = torch.randn(5, 7, requires_grad=True)
    scores = score_tokens(logits * 1.0, torch.arange(5), draws=torch.rand(5))
    assert scores.losses.requires_grad and scores.samples is not None
    assert not scores.hits.requires_grad and not scores.samples.requires_grad


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_a_tie_is_a_hit(dtype: torch.dtype) -> None:
    logits = torch.tensor([[1.0, 3.0, 3.0], [3.0, 1.0, 3.0], [0.0, 0.0, 0.0], [0.0, 2.0, 1.0]], dtype=dtype)
    scores = score_tokens(logits, torch.tensor([1, 2, 2, 2]))
    assert scores.hits.tolist() == [True, True, True, False]
    assert scores.losses[2].item() == pytest.approx(math.log(3), rel=1e-6)


def test_large_logits_stay_finite() -> None:
    scores = score_tokens(torch.tensor([[1e4, -1e4], [-3e38, 3e38]]), torch.tensor([1, 1]))
    assert scores.losses.tolist() == [2e4, 0.0]


def test_no_tokens() -> None:
    logits = torch.randn(0, 9, requires_grad=True)
    scores = score_tokens(logits * 1.0, torch.zeros(0, dtype=torch.int64), draws=torch.zeros(0))
    assert scores.samples is not None
    assert scores.losses.shape == scores.hits.shape == scores.samples.shape == (0,)
    (gradient,) = torch.autograd.grad(scores.losses.sum(), logits)
    assert gradient.shape == (0, 9)
