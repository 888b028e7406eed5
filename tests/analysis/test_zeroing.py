"""Groups are zero for a while and whole again, bit for bit; which are chosen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.analysis.parameters import Group, parameter_groups
from metro_t0.analysis.zeroing import chosen_groups, zeroed
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from tiny_networks import random_ids, randomize, tiny_config


def test_parameters_are_zero_inside_and_the_same_bits_outside() -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()
    with torch.no_grad():
        model.shared.weight[3, 3] = -0.0
        model.shared.weight[4, 4] = 1e-42
    before = {name: value.clone() for name, value in model.state_dict().items()}
    batch = {"input_ids": random_ids([9], 1), "labels": random_ids([4], 2)}
    loss = model(**batch).loss
    for parameters in parameter_groups(model).values():
        with zeroed(parameters):
            assert all(not bool(parameter.any()) for parameter in parameters)
            assert model(**batch).loss != loss
    with pytest.raises(ZeroDivisionError), zeroed(list(model.parameters())):
        _ = 1 / 0
    for name, value in model.state_dict().items():
        assert torch.equal(value.view(torch.int32), before[name].view(torch.int32))
    assert torch.equal(model(**batch).loss, loss)


@given(st.integers(1, 24), st.integers(1, 12), st.integers(1, 6))
def test_layers_are_chosen_evenly_with_the_first_and_the_last(encoder: int, decoder: int, most: int) -> None:
    outside = [Group("shared", None, "token embedding"), Group("encoder", None, "LayerNorm")]
    inside = [
        Group(stack, layer, kind)
        for stack, depth in (("encoder", encoder), ("decoder", decoder))
        for layer in range(depth)
        for kind in ("feed-forward wi", "LayerNorm")
    ]
    chosen = chosen_groups([*outside, *inside], most)
    assert chosen[:2] == outside
    for stack, depth in (("encoder", encoder), ("decoder", decoder)):
        layers = [group.layer for group in chosen if group.stack == stack and group.kind == "feed-forward wi"]
        assert layers == sorted(set(layers))
        assert len(layers) == min(most, depth)
        assert layers[0] == 0
        assert most == 1 or layers[-1] == depth - 1
