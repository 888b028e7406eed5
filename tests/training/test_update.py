"""One update: the same however its rows are cut, of whichever objective."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import BagObjective, bag_model, bag_settings, small_config

from metro_t0.config import OptimizerSettings
from metro_t0.data.prepare import PreparedCorpus
from metro_t0.data.rows import TokenRows
from metro_t0.objectives.base import Objective
from metro_t0.objectives.build import build_objective
from metro_t0.tokenization.inspection import open_tokenizer
from metro_t0.training.distributed import Parallel
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.starting_point import new_pretraining_model
from metro_t0.training.training_data import TrainingData
from metro_t0.training.update import StepTally, Updater, draw_seed

SETTINGS = OptimizerSettings(learning_rate=0.01, warmup_steps=0)


def updater(model: torch.nn.Module, objective: Objective) -> Updater:
    optimizer = build_optimizer(model.parameters(), SETTINGS)
    return Updater(Parallel(model, objective), optimizer, precision="fp32", seed=1, clip_norm=1.0)


def one_update(
    corpus: Path, preset: str, micro_batch_tokens: int
) -> tuple[int, StepTally, list[torch.Tensor]]:
    """Number of micro-batches, tally and gradients of the first update of a small network."""
    config = small_config(
        "training.batch_tokens=2000", f"training.micro_batch_tokens={micro_batch_tokens}", preset=preset
    )
    prepared = PreparedCorpus.load(corpus)
    tokenizer = open_tokenizer(prepared.tokenizer)
    rows = TokenRows(prepared.train, ("input_ids",))
    data = TrainingData(rows, rows)
    model = new_pretraining_model(config, tokenizer)
    objective = build_objective(config.objective, model.config, 1)
    step = data.sampler(config.training).next_step()
    batches = [data.collate(objective, micro) for micro in step.micro_batches]
    tally = updater(model, objective).run(1, batches, 0.01)
    return len(batches), tally, [p.grad for p in model.parameters() if p.grad is not None]


@pytest.mark.parametrize("preset", ["tiny", "tiny-t5"])
def test_accumulation_makes_the_update_of_the_whole_batch(corpus: Path, preset: str) -> None:
    few, whole, whole_gradients = one_update(corpus, preset, 100_000)
    many, cut, cut_gradients = one_update(corpus, preset, 600)
    assert few == 1 and many >= 4
    torch.testing.assert_close(cut.loss, whole.loss, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(cut.totals, whole.totals, rtol=1e-5, atol=1e-4)
    assert not whole.nonfinite.any()
    for one, other in zip(cut_gradients, whole_gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("broken", ["loss", "gradient"])
def test_an_update_that_is_not_finite_leaves_the_weights(bag_data: TrainingData, broken: str) -> None:
    model = bag_model()
    objective = BagObjective({2: broken})
    update = updater(model, objective)
    sampler = bag_data.sampler(bag_settings())
    tallies, weights = [], []
    for _ in range(3):
        step = sampler.next_step()
        batches = [bag_data.collate(objective, micro) for micro in step.micro_batches]
        tallies.append(update.run(step.step, batches, 0.01))
        weights.append([parameter.detach().clone() for parameter in model.parameters()])
    assert [bool(tally.nonfinite.any()) for tally in tallies] == [False, True, False]
    flagged = [name for name, flag in zip(update.watched, tallies[1].nonfinite.tolist(), strict=True) if flag]
    assert flagged == (["gradient"] if broken == "gradient" else ["class_loss", "loss", "gradient"])
    assert all(map(torch.equal, weights[0], weights[1]))
    assert not all(map(torch.equal, weights[1], weights[2]))


def test_seeds_differ_by_every_part_of_the_key() -> None:
    seeds = {draw_seed(seed, step, index) for seed in range(3) for step in range(20) for index in range(5)}
    assert len(seeds) == 300
    assert all(0 <= seed < 2**63 for seed in seeds)
