"""Dropout from 15 bits an element: its share, its scale, one mask for both passes."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.modeling.dropout import drop_signs, dropout

DTYPES = [torch.float32, torch.bfloat16, torch.float64]


def assert_share(dropped: int, number: int, rate: float) -> None:
    """Five standard deviations of a binomial, and what 15 bits can be off."""
    bound = 5 * math.sqrt(number * rate * (1 - rate)) + number * 2**-16
    assert abs(dropped - number * rate) <= bound


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_share_scale_and_the_same_mask_backwards(dtype: torch.dtype, rate: float) -> None:
    torch.manual_seed(0)
    number = 200_001
    hidden = (torch.rand(number, dtype=dtype) + 0.5).requires_grad_()
    output = dropout(hidden, rate, training=True)
    assert output.dtype == dtype
    kept = output != 0
    assert_share(number - int(kept.sum()), number, rate)
    scale = 1.0 / (1.0 - rate)
    assert torch.equal(output, torch.where(kept, hidden * scale, 0.0))
    weights = torch.randn(number, dtype=dtype)
    (gradient,) = torch.autograd.grad(output, hidden, weights)
    assert torch.equal(gradient, torch.where(kept, weights * scale, 0.0))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_neighbours_are_dropped_independently(dtype: torch.dtype) -> None:
    """Four elements share a draw of 64 bits."""
    torch.manual_seed(0)
    dropped = dropout(torch.ones(100_000, 4, dtype=dtype), 0.5, training=True) == 0
    for one in range(4):
        assert_share(int(dropped[:, one].sum()), 100_000, 0.5)
        for other in range(one):
            assert_share(int((dropped[:, one] & dropped[:, other]).sum()), 100_000, 0.25)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_seed_decides(dtype: torch.dtype) -> None:
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(dropout(torch.ones(50, 7, dtype=dtype), 0.5, training=True))
    assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])


def test_types_drop_the_same_elements() -> None:
    masks = []
    for dtype in DTYPES:
        torch.manual_seed(1)
        masks.append(dropout(torch.ones(1001, dtype=dtype), 0.3, training=True) == 0)
    assert torch.equal(masks[0], masks[1]) and torch.equal(masks[0], masks[2])


def test_without_dropout_nothing_is_made_or_drawn() -> None:
    hidden = torch.randn(3, 5)
    state = torch.get_rng_state()
    assert dropout(hidden, 0.3, training=False) is hidden
    assert dropout(hidden, 0.0, training=True) is hidden
    assert torch.equal(torch.get_rng_state(), state)


@settings(max_examples=40, deadline=None)
@given(
    shape=st.lists(st.integers(0, 7), min_size=1, max_size=3),
    dtype=st.sampled_from(DTYPES),
    seed=st.integers(0, 99),
)
def test_any_shape_and_layout(shape: list[int], dtype: torch.dtype, seed: int) -> None:
    """Elements that lie otherwise in memory are dropped at the same places; a gradient may lie in any way too."""
    plain = (torch.arange(math.prod(shape), dtype=dtype) + 1).reshape(shape)
    outputs = []
    for hidden in (plain.clone(), plain.transpose(0, -1).contiguous().transpose(0, -1)):
        hidden.requires_grad_()
        torch.manual_seed(seed)
        output = dropout(hidden, 0.5, training=True)
        assert output.shape == plain.shape
        (gradient,) = torch.autograd.grad(output.sum(), hidden)
        assert torch.equal(gradient, (output != 0).to(dtype) * 2)
        outputs.append(output)
    assert torch.equal(*outputs)


def test_gradients_of_a_transposed_input() -> None:
    hidden = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)

    def output(hidden: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return dropout(hidden.t(), 0.4, training=True)

    assert torch.autograd.gradcheck(output, (hidden,))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("rate", [0.1, 0.5])
def test_signs_mark_what_is_dropped_and_keep_the_numbers(dtype: torch.dtype, rate: float) -> None:
    torch.manual_seed(0)
    probabilities = torch.rand(300, 333, dtype=dtype)
    probabilities[::7] = 0.0
    before = probabilities.clone()
    assert drop_signs(probabilities, rate) is probabilities
    assert torch.equal(probabilities.abs(), before)
    assert_share(int(probabilities.signbit().sum()), 300 * 333, rate)
