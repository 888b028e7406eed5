"""Every parameter is in one group, once."""

from __future__ import annotations

import pytest
from torch import nn

from metro_t0.analysis.parameters import KINDS, Group, group_of, parameter_groups
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from tiny_networks import tiny_config


@pytest.mark.parametrize("sharing", ["none", "token", "token_pos_norm"])
def test_groups_hold_every_parameter_once(sharing: str) -> None:
    model = MetroT0ForPreTraining(tiny_config(auxiliary_sharing=sharing))
    groups = parameter_groups(model)
    held = [id(parameter) for parameters in groups.values() for parameter in parameters]
    assert sorted(held) == sorted(map(id, model.parameters()))
    assert {group.kind for group in groups} == set(KINDS) - {"output projection"}
    assert len(groups[Group("shared", None, "token embedding")]) == 1


@pytest.mark.parametrize(
    ("name", "group", "words"),
    [
        ("shared.weight", Group("shared", None, "token embedding"), "shared: token embedding"),
        (
            "decoder.block.2.layer.1.EncDecAttention.o.bias",
            Group("decoder", 2, "cross-attention o"),
            "decoder 3: cross-attention o",
        ),
        ("encoder.first_layer_norm.bias", Group("encoder", None, "LayerNorm"), "encoder: LayerNorm"),
        ("encoder.block.0.layer.1.layer_norm.bias", Group("encoder", 0, "LayerNorm"), "encoder 1: LayerNorm"),
        (
            "auxiliary.encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
            Group("auxiliary", 1, "relative bias"),
            "auxiliary 2: relative bias",
        ),
        ("auxiliary.head.layer_norm.weight", Group("auxiliary", None, "head"), "auxiliary: head"),
        ("rtd_head.dense.weight", Group("detection", None, "head"), "detection: head"),
        ("lm_head.weight", Group("shared", None, "output projection"), "shared: output projection"),
    ],
)
def test_a_parameters_group_by_its_name(name: str, group: Group, words: str) -> None:
    assert group_of(name) == group
    assert str(group) == words


def test_a_strangers_network_is_refused() -> None:
    with pytest.raises(ValueError, match=r"parameter 'weight' is of no kind"):
        parameter_groups(nn.Linear(2, 2))
