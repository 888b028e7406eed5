"""Three hundred updates in bfloat16 end where those in float32 end; weights and optimizer stay float32."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pydoc_data.topics import topics

import pytest
import torch

from metro_t0.config import load_pretrain_config
from metro_t0.data.prepare import PreparedCorpus, prepare
from metro_t0.data.rows import TokenRows
from metro_t0.objectives.build import build_objective
from metro_t0.tokenization.inspection import open_tokenizer
from metro_t0.training.distributed import Parallel
from metro_t0.training.optimizer import build_optimizer, learning_rate_at
from metro_t0.training.starting_point import new_pretraining_model
from metro_t0.training.training_data import TrainingData
from metro_t0.training.update import Precision, Updater
from metro_t0.training.validation import Validation

STEPS = 300
OVERRIDES = [f"training.steps={STEPS}", "training.batch_tokens=512", "training.micro_batch_tokens=512"]


@pytest.fixture(scope="module")
def python_topics(tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    """All topics of the language reference in blocks of up to 128 of 1000 pieces."""
    folder = tmp_path_factory.mktemp("topics")
    source = folder / "topics.jsonl"
    lines = [json.dumps({"text": topics[name]}) + "\n" for name in sorted(topics)]
    source.write_text("".join(lines), encoding="utf-8")
    return prepare(
        [source], folder / "prepared", vocab_size=1000, validation_fraction=0.1, max_length=128, processes=1
    )


def trained(preset: str, corpus: PreparedCorpus, precision: Precision) -> Mapping[str, float | None]:
    """Validation after the preset's own schedule, shortened: always on the same blocks with the same masks."""
    config = load_pretrain_config(preset, overrides=OVERRIDES)
    settings, optimizer_settings = config.training, config.optimizer
    assert optimizer_settings.warmup_fraction is not None
    data = TrainingData(TokenRows(corpus.train, ("input_ids",)), TokenRows(corpus.validation, ("input_ids",)))
    model = new_pretraining_model(config, open_tokenizer(corpus.tokenizer)).train()
    objective = build_objective(config.objective, model.config, settings.seed, length_multiple=1)
    optimizer = build_optimizer(model.parameters(), optimizer_settings)
    parallel = Parallel(model, objective)
    updater = Updater(
        parallel,
        optimizer,
        precision=precision,
        seed=settings.seed,
        clip_norm=optimizer_settings.clip_norm,
    )
    sampler = data.sampler(settings)
    warmup_steps = int(STEPS * optimizer_settings.warmup_fraction)
    for step in range(1, STEPS + 1):
        batches = [data.collate(objective, micro) for micro in sampler.next_step().micro_batches]
        rate = learning_rate_at(step, STEPS, warmup_steps, optimizer_settings.learning_rate)
        tally = updater.run(step, batches, rate)
        assert not tally.nonfinite.any()
    for parameter in model.parameters():
        state = optimizer.state[parameter]
        kept = [parameter, parameter.grad, state["exp_avg"], state["exp_avg_sq"]]
        assert [tensor.dtype for tensor in kept] == [torch.float32] * 4
    validation = Validation(
        objective, data.validation, number=64, micro_batch_tokens=2048, seed=settings.seed
    )
    return validation.run(parallel, precision)


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "tiny-t5"])
def test_bfloat16_ends_where_float32_ends(preset: str, python_topics: PreparedCorpus) -> None:
    single, half = (trained(preset, python_topics, precision) for precision in ("fp32", "bf16"))
    # A share of nothing (of the tokens that detection calls replaced, say) is no number.
    for name in [name for name, value in single.items() if value is not None and half[name] is not None]:
        print(f"{preset} {name}: fp32 {single[name]:.4f}, bf16 {half[name]:.4f}")
    for name in single:
        if name.endswith("loss"):
            assert half[name] == pytest.approx(single[name], rel=0.02), name
    assert half["loss"] != single["loss"], "bfloat16 leaves a trace"
    # Something was learned to compare: an even guess among 1512 tokens costs 7.3.
    assert single["lm_loss"] < 6.0
