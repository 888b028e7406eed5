"""Sensitivities against products of weights and gradients, all in memory at once."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metro_t0.analysis import sensitivity as module
from metro_t0.analysis.parameters import Group, group_of
from metro_t0.analysis.sensitivity import SensitivityMeter
from metro_t0.analysis.statistics import gini, lorenz_curve, share_for_half
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from tiny_networks import random_ids, randomize, tiny_config


def measured(
    model: MetroT0ForConditionalGeneration, batches: int = 3
) -> tuple[SensitivityMeter, list[dict[str, np.ndarray]]]:
    """A meter that saw some batches, and each batch's products by parameter."""
    meter, products = SensitivityMeter(model), []
    for seed in range(batches):
        model.zero_grad()
        model(input_ids=random_ids([9, 5], seed), labels=random_ids([4, 6], seed + 50)).loss.backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        meter.add()
        for name, gradient in gradients.items():
            assert torch.equal(gradient, model.get_parameter(name).grad), "gradients stay"
        products.append(
            {
                name: (model.get_parameter(name).detach().double() * gradient.double()).numpy()
                for name, gradient in gradients.items()
            }
        )
    return meter, products


@pytest.mark.parametrize("at_once", [7, 1 << 22])
def test_sums_and_spreads_are_those_of_all_products(monkeypatch: pytest.MonkeyPatch, at_once: int) -> None:
    monkeypatch.setattr(module, "_AT_ONCE", at_once)
    model = randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()
    meter, products = measured(model)
    found, first_order = meter.summary(), meter.first_order()
    scores = {name: np.mean([abs(p[name]) for p in products], axis=0).ravel() for name in products[0]}
    everything = np.concatenate(list(scores.values()))
    assert found.parameters == len(everything) == sum(p.numel() for p in model.parameters())
    assert found.batches == 3
    assert found.mass == pytest.approx(everything.sum(), rel=1e-5)
    assert found.gini == pytest.approx(gini(everything), abs=1e-4)
    assert found.share_for_half == pytest.approx(share_for_half(everything), abs=1e-3)
    np.testing.assert_allclose(found.lorenz, lorenz_curve(everything, 51), atol=1e-3)
    for entry in found.groups:
        group = Group(entry.stack, entry.layer, entry.kind)
        own = np.concatenate([score for name, score in scores.items() if group_of(name) == group])
        signed = np.mean([sum(p[name].sum() for name in p if group_of(name) == group) for p in products])
        assert entry.parameters == len(own)
        assert entry.mass == pytest.approx(own.sum(), rel=1e-5)
        assert entry.gini == pytest.approx(gini(own), abs=1e-3)
        assert entry.share_for_half == pytest.approx(share_for_half(own), abs=1e-3 + 1 / len(own))
        assert first_order[group].mass == pytest.approx(own.sum(), rel=1e-5)
        assert first_order[group].change == pytest.approx(-signed, rel=1e-4, abs=1e-6)


def test_the_first_batches_alone() -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()
    meter, products = measured(model)
    of_two = meter.first_order(2)[Group("shared", None, "token embedding")]
    assert of_two.mass == pytest.approx(
        np.mean([abs(p["shared.weight"]).sum() for p in products[:2]]), rel=1e-5
    )


def test_first_order_is_the_loss_of_a_small_step_towards_zero() -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config()), scale=0.2).double().eval()
    batch = {"input_ids": random_ids([9, 5], 1), "labels": random_ids([4, 6], 2)}
    meter = SensitivityMeter(model)
    loss = model(**batch).loss
    loss.backward()
    meter.add()
    group = Group("decoder", 1, "feed-forward wi")
    feed_forward = model.decoder.block[1].layer[2].DenseReluDense.wi
    step = 1e-3
    with torch.no_grad():
        for parameter in feed_forward.parameters():
            parameter.mul_(1 - step)
        grown = float(model(**batch).loss - loss) / step
    assert meter.first_order()[group].change == pytest.approx(grown, rel=2e-2, abs=1e-4)


def test_parts_without_gradients_are_in_no_figure() -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config()))
    meter = SensitivityMeter(model)
    MetroT0ForConditionalGeneration.forward(
        model, input_ids=random_ids([9, 5], 1), labels=random_ids([4, 6], 2)
    ).loss.backward()
    meter.add()
    assert {entry.stack for entry in meter.summary().groups} == {"shared", "encoder", "decoder"}
    assert all(group.stack != "auxiliary" for group in meter.first_order())


def test_nothing_added_and_gradients_that_are_no_numbers() -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config()))
    meter = SensitivityMeter(model)
    with pytest.raises(ValueError, match="no gradient was added"):
        meter.summary()
    model(input_ids=random_ids([9, 5], 1), labels=random_ids([4, 6], 2)).loss.backward()
    model.encoder.block[1].layer[1].DenseReluDense.wo.bias.grad[3] = float("nan")
    meter.add()
    with pytest.raises(ValueError, match="the gradients of encoder 2: feed-forward wo are not finite"):
        meter.summary()
