"""The optimizer: its schedule, and torch's fused AdamW behaving as the skip and the clipping rely on."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import nn

from metro_t0.config import OptimizerSettings
from metro_t0.training.optimizer import (
    apply_update,
    build_optimizer,
    learning_rate_at,
    set_learning_rate,
)

SETTINGS = OptimizerSettings(learning_rate=0.01, warmup_steps=10)


def parameters_with_gradients(seed: int, scale: float = 1.0) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(seed)
    parameters = [
        nn.Parameter(torch.randn(shape, generator=generator)) for shape in [(7, 5), (5,), (3, 4, 2)]
    ]
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    return parameters


def gradient_norm(parameters: list[nn.Parameter]) -> torch.Tensor:
    return nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])


def test_the_schedule_warms_up_and_decays_to_nothing() -> None:
    rates = [learning_rate_at(step, 100, 10, 1.0) for step in range(1, 102)]
    assert rates[:10] == pytest.approx([step / 10 for step in range(1, 11)])
    falls = [one - other for one, other in pairwise(rates[9:])]
    assert falls == pytest.approx([1 / 91] * 91)
    assert rates[100] == pytest.approx(0.0)
    assert learning_rate_at(1, 1, 0, 1.0) == 1.0


def test_adamw_is_the_recipes() -> None:
    parameters = parameters_with_gradients(1)
    expected = [parameter.detach().clone() for parameter in parameters]
    gradients = [parameter.grad.clone() for parameter in parameters if parameter.grad is not None]
    optimizer = build_optimizer(parameters, SETTINGS)
    apply_update(optimizer, gradient_norm(parameters), torch.tensor(False), clip_norm=0.0)
    # The first update in closed form: both moments' bias corrections leave g / (|g| + eps).
    for parameter, before, gradient in zip(parameters, expected, gradients, strict=True):
        after = before * (1 - 0.01 * 0.01) - 0.01 * gradient / (gradient.abs() + 1e-6)
        torch.testing.assert_close(parameter.detach(), after)


@pytest.mark.parametrize("scale", [0.01, 10.0])
def test_clipping_is_that_of_torch(scale: float) -> None:
    ours, theirs = parameters_with_gradients(2, scale), parameters_with_gradients(2, scale)
    optimizers = [build_optimizer(parameters, SETTINGS) for parameters in (ours, theirs)]
    for seed in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=torch.Generator().manual_seed(seed)) * scale
            other.grad = one.grad.clone()
        apply_update(optimizers[0], gradient_norm(ours), torch.tensor(False), clip_norm=1.0)
        nn.utils.clip_grad_norm_(theirs, 1.0)
        optimizers[1].step()
    torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7)


def test_a_skipped_update_changes_nothing_not_even_the_step_count() -> None:
    parameters = parameters_with_gradients(3)
    optimizer = build_optimizer(parameters, SETTINGS)
    apply_update(optimizer, gradient_norm(parameters), torch.tensor(False), clip_norm=1.0)
    before = [parameter.detach().clone() for parameter in parameters]
    state = {key: value.clone() for key, value in optimizer.state[parameters[0]].items()}
    assert parameters[0].grad is not None
    parameters[0].grad[0, 0] = float("nan")
    apply_update(optimizer, gradient_norm(parameters), torch.tensor(True), clip_norm=1.0)
    for parameter, value in zip(parameters, before, strict=True):
        assert torch.equal(parameter, value)
    for key, value in optimizer.state[parameters[0]].items():
        assert torch.equal(value, state[key]), key


def test_an_update_at_rate_zero_changes_no_weight() -> None:
    parameters = parameters_with_gradients(4)
    before = [parameter.detach().clone() for parameter in parameters]
    optimizer = build_optimizer(parameters, SETTINGS)
    set_learning_rate(optimizer, 0.0)
    apply_update(optimizer, gradient_norm(parameters), torch.tensor(False), clip_norm=1.0)
    for parameter, value in zip(parameters, before, strict=True):
        assert torch.equal(parameter, value)
