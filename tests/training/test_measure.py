"""What is measured at the start leaves no trace in the model."""

from __future__ import annotations

import time

import pytest
import torch
from small_runs import BagObjective, bag_model

from metro_t0.config import OptimizerSettings, TrainingSettings
from metro_t0.training.measure import Trial, decide, peak_flops
from metro_t0.training.training_data import TrainingData

OPEN = OptimizerSettings(learning_rate=0.05, warmup_steps=None, warmup_fraction=0.2, clip_norm=1.0)


def trial(data: TrainingData, model: torch.nn.Module, **settings: object) -> Trial:
    training = TrainingSettings(batch_tokens=200, micro_batch_tokens=100, **settings)
    return Trial(model, BagObjective(), data, training, OPEN, [], time.monotonic())


def test_everything_open_is_decided_and_no_weight_moves(bag_data: TrainingData) -> None:
    model = bag_model()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    threads = torch.get_num_threads()
    try:
        decided = decide(trial(bag_data, model, budget_seconds=1.0))
    finally:
        torch.set_num_threads(threads)
    settings, optimizer, measured = decided.settings, decided.optimizer, decided.measured
    assert settings.precision in {"fp32", "bf16"} and isinstance(settings.threads, int)
    assert settings.steps is not None and settings.steps > 10
    assert settings.validate_every == settings.save_every == settings.steps // 10
    assert settings.max_nonfinite == (10 if settings.precision == "bf16" else 0)
    assert optimizer.warmup_steps == round(0.2 * settings.steps)
    assert {"precision", "steps"} <= set(measured)
    for parameter, value in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, value) and parameter.grad is None


def test_what_is_given_is_not_measured(bag_data: TrainingData) -> None:
    threads = torch.get_num_threads()
    given = {"steps": 50, "precision": "fp32", "threads": threads, "validate_every": 7}
    decided = decide(trial(bag_data, bag_model(), **given))
    settings, optimizer = decided.settings, decided.optimizer
    assert decided.measured == {}
    assert (settings.steps, settings.validate_every, settings.save_every) == (50, 7, 7)
    assert optimizer.warmup_steps == 10


@pytest.mark.parametrize("tokens", [100, 5_000, 3_000_000])
def test_a_budget_of_tokens_is_the_nearest_number_of_steps(bag_data: TrainingData, tokens: int) -> None:
    threads = torch.get_num_threads()
    given = {"budget_tokens": tokens, "precision": "fp32", "threads": threads}
    steps = decide(trial(bag_data, bag_model(), **given)).settings.steps
    assert steps is not None
    sampler = bag_data.sampler(TrainingSettings(batch_tokens=200, micro_batch_tokens=100, steps=1))
    read = sum(sampler.next_step().tokens for _ in range(steps))
    assert abs(read - tokens) <= max(110, tokens / 1000)


def test_a_cpus_peak_is_what_a_matrix_product_reaches() -> None:
    peak, how = peak_flops(torch.device("cpu"), "fp32")
    assert 1e8 < peak < 1e15
    assert how.startswith("a product of 1024 x 1024 matrices in fp32 runs at ")
