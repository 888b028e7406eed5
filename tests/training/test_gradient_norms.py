"""Gradient norms: the total is torch's to the bit, the parts are plain sums', what is shared counts once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from small_runs import bag_model, small_network
from torch import nn

from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.training.gradient_norms import GradientNorms, part_of
from tiny_networks import tiny_config

PARTS = ["embeddings", "encoder", "decoder", "auxiliary", "detection_head"]


def with_gradients(model: nn.Module, seed: int, scale: float = 1.0) -> nn.Module:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    return model


@given(seed=st.integers(0, 99), scale=st.sampled_from([1e-6, 1.0, 1e4]))
def test_the_total_is_torchs_and_the_parts_add_up_to_it(seed: int, scale: float) -> None:
    model = with_gradients(small_network(1), seed, scale)
    norms = GradientNorms(model.named_parameters())()
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    assert torch.equal(norms.total, nn.utils.get_total_norm(gradients, foreach=True))
    assert list(norms.parts) == PARTS
    torch.testing.assert_close(torch.stack([*norms.parts.values()]).norm(), norms.total)
    for part, norm in norms.parts.items():
        members = [p.grad for name, p in model.named_parameters() if part_of(name) == part]
        plain = sum(float(g.double().square().sum()) for g in members if g is not None) ** 0.5
        assert float(norm) == pytest.approx(plain, rel=1e-5)


@pytest.mark.parametrize("sharing", ["token_pos_norm", "none"])
def test_what_is_shared_counts_once_among_the_embeddings(sharing: str) -> None:
    model = MetroT0ForPreTraining(tiny_config(auxiliary_sharing=sharing))
    names = {name: part_of(name) for name, _ in model.named_parameters()}
    assert [name for name, part in names.items() if part == "embeddings"] == [
        "shared.weight",
        "encoder.pos_embed.weight",
        "encoder.first_layer_norm.weight",
        "encoder.first_layer_norm.bias",
        "decoder.pos_embed.weight",
        "decoder.first_layer_norm.weight",
        "decoder.first_layer_norm.bias",
    ]
    own = {name for name in names if name.startswith("auxiliary.encoder.") and "block" not in name}
    assert bool(own) == (sharing == "none") and all(names[name] == "auxiliary" for name in own)
    assert "other" not in names.values()


def test_a_part_without_gradients_has_norm_zero() -> None:
    model = with_gradients(small_network(1), 1)
    for parameter in model.rtd_head.parameters():
        parameter.grad = None
    norms = GradientNorms(model.named_parameters())()
    assert list(norms.parts) == PARTS and norms.parts["detection_head"] == 0.0
    for parameter in model.parameters():
        parameter.grad = None
    assert GradientNorms(model.named_parameters())().total == 0.0


def test_any_network_has_parts() -> None:
    model = with_gradients(bag_model(), 2)
    norms = GradientNorms(model.named_parameters())()
    assert torch.equal(norms.parts["other"], norms.total) and len(norms.parts) == 1
