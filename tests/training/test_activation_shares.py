"""Activation shares: those of a direct count, padding left out, and left out themselves where they cannot be had."""

from __future__ import annotations

import pytest
import torch
from small_runs import BagObjective, bag_model, small_config, small_network, token_rows

from metro_t0.objectives.build import build_objective
from metro_t0.training.activation_checkpointing import checkpoint_activations
from metro_t0.training.activation_shares import ActivationShares
from metro_t0.training.compilation import compile_layers
from metro_t0.training.distributed import Parallel, World
from metro_t0.training.validation import Validation


def shares_of(values: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in values.items() if name.startswith("activation_share")}


@pytest.mark.parametrize("recomputed", [False, True])
@pytest.mark.parametrize("micro_batch_tokens", [40, 400])
def test_they_are_a_direct_count_over_real_tokens(recomputed: bool, micro_batch_tokens: int) -> None:
    model = small_network(2).train()
    if recomputed:
        checkpoint_activations(model)
    objective = build_objective(small_config().objective, model.config, 1, 1)
    validation = Validation(
        objective, token_rows(12, 3), number=12, micro_batch_tokens=micro_batch_tokens, seed=1
    )
    parallel = Parallel(model, objective)
    found = shares_of(validation.run(parallel, "fp32"))
    assert list(found) == [f"activation_share_{stack}_0" for stack in ("encoder", "decoder", "auxiliary")]
    fired, seen = 0, 0
    kept: list[torch.Tensor] = []
    handle = (
        model.encoder.block[0]
        .layer[1]
        .DenseReluDense.wi.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    )
    with parallel.evaluating():
        for batch in validation.batches:
            shown = objective.inspect(model, batch)
            # What the auxiliary model sampled as padding is padding to the encoder.
            real = shown.corrupted.ne(model.config.pad_token_id)
            fired += int((kept.pop()[real] > 0).sum())
            seen += int(real.sum()) * model.config.d_ff
    handle.remove()
    assert found["activation_share_encoder_0"] == pytest.approx(fired / seen)
    assert not kept and found == shares_of(validation.run(parallel, "fp32"))


def test_the_last_auxiliary_layer_counts_masked_positions_and_no_others() -> None:
    """However many positions a batch has room for: each row alone, and all of them together."""
    model = small_network(2).train()
    objective = build_objective(small_config().objective, model.config, 1, 1)
    parallel = Parallel(model, objective)
    found = [
        Validation(objective, token_rows(12, 3), number=12, micro_batch_tokens=tokens, seed=1).run(
            parallel, "fp32"
        )
        for tokens in (20, 60, 1000)
    ]
    shares = [values["activation_share_auxiliary_0"] for values in found]
    assert shares == [pytest.approx(shares[0], rel=1e-9)] * 3


def test_foreign_networks_have_none() -> None:
    objective = BagObjective()
    validation = Validation(objective, token_rows(5, 1), number=5, micro_batch_tokens=100, seed=1)
    assert not shares_of(validation.run(Parallel(bag_model(), objective), "fp32"))


def test_compiled_layers_have_none() -> None:
    model = small_network(2).train()
    said: list[str] = []
    if not compile_layers(model, said.append):
        pytest.skip(said[0])
    assert ActivationShares(model).read(World()) == {}
