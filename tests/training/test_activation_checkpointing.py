"""Recomputing layers changes no gradient and no loss, dropout included, and keeps less."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small_runs import losses, small_config

from metro_t0.config import MetroSettings
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from metro_t0.training.activation_checkpointing import checkpoint_activations
from metro_t0.training.run import pretrain
from metro_t0.training.update import autocast
from tiny_networks import random_text, tiny_config


def gradients_and_bytes_kept(recompute: bool, precision: str) -> tuple[dict[str, torch.Tensor], int]:
    """Of one forward and backward pass of one network: gradients, and what autograd saved in the forward pass."""
    torch.manual_seed(0)
    config = tiny_config(dropout_rate=0.2, auxiliary_dropout_rate=0.2, num_layers=4, num_decoder_layers=4)
    model = MetroT0ForPreTraining(config).train()
    if recompute:
        checkpoint_activations(model)
    text = random_text([24, 17, 24, 9])
    torch.manual_seed(1)
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        autocast(torch.device("cpu"), precision),  # type: ignore[arg-type]
    ):
        output = model(**text.inputs(), objective=MetroObjective())
    output.loss.backward()
    named = model.named_parameters()
    gradients = {name: parameter.grad for name, parameter in named if parameter.grad is not None}
    return gradients, sum(kept.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_are_the_same(precision: str) -> None:
    plain, kept = gradients_and_bytes_kept(False, precision)
    recomputed, kept_less = gradients_and_bytes_kept(True, precision)
    assert plain.keys() == recomputed.keys() and len(plain) > 100
    for name, gradient in plain.items():
        assert torch.equal(gradient, recomputed[name]), name
    assert kept_less < kept / 2


def test_a_run_has_the_same_losses(corpus: Path, tmp_path: Path) -> None:
    steps = ["training.steps=6", "training.validate_every=3", "model.dropout_rate=0.1"]
    plain = pretrain(small_config(*steps), corpus, tmp_path / "plain")
    config = small_config(*steps, "training.activation_checkpointing=true")
    assert isinstance(config.objective, MetroSettings)
    recomputed = pretrain(config, corpus, tmp_path / "recomputed")
    for kind in ("train", "validation"):
        assert losses(recomputed, kind) == losses(plain, kind)
