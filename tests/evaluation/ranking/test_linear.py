"""The quicker linear layer gives what torch's gives, and leaves alone what is not its own."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from metro_t0.evaluation.ranking.linear import quick_linear


@pytest.mark.parametrize("shape", [(1, 5), (3, 5), (2, 7, 5), (2, 3, 1, 5), (0, 5)])
@pytest.mark.parametrize("with_bias", [True, False])
@torch.no_grad()
def test_equals_the_exact_product(shape: tuple[int, ...], with_bias: bool) -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(5, 11, bias=with_bias)
    states = torch.randn(shape)
    exact = layer.double()(states.double())
    layer.float()
    with quick_linear():
        torch.testing.assert_close(layer(states).double(), exact, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(
            layer(states.transpose(0, -2)).double(), exact.transpose(0, -2), rtol=1e-5, atol=1e-6
        )
        assert F.linear(states.bfloat16(), layer.weight.bfloat16()).dtype == torch.bfloat16
        assert layer.double()(states.double()).dtype == torch.float64


def test_gradients_go_torchs_way() -> None:
    layer, states = torch.nn.Linear(5, 11), torch.randn(3, 5)
    with quick_linear():
        layer(states).sum().backward()
    assert layer.weight.grad is not None
    torch.testing.assert_close(layer.weight.grad, states.sum(0).expand(11, 5))


def test_only_inside_the_block() -> None:
    layer, states = torch.nn.Linear(64, 64), torch.randn(256, 64)
    with torch.no_grad():
        before = layer(states)
        with quick_linear():
            layer(states)
        assert torch.equal(layer(states), before)
