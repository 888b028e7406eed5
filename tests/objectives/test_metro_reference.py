"""METRO's losses against the hand-written reference, and its gradients against the reference's finite differences."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective, MetroOutput
from network_reference import Reference, Settings
from tiny_networks import PAD, TextBatch, parameters_of, random_text, randomize, tiny_config

# (lm_positions, rtd_positions) of each official value of masked_positions_only.
POSITIONS = {"none": ("all", "all"), "lm": ("masked", "all"), "both": ("masked", "masked")}
VARIANTS = [(positions, gated) for positions in POSITIONS for gated in (False, True)]


def objective_of(options: Settings) -> MetroObjective:
    lm_positions, rtd_positions = POSITIONS[options.positions]
    return MetroObjective(
        lm_positions=lm_positions,
        rtd_positions=rtd_positions,
        gate_lm_by_rtd=options.gated,
        lm_weight=options.lm_weight,
        rtd_weight=options.rtd_weight,
        decoder_target="masked" if options.short_target else "all",
        pad_token_id=PAD,
    )


def compare(model: MetroT0ForPreTraining, text: TextBatch, options: Settings) -> MetroOutput:
    output = model(**text.inputs(), objective=objective_of(options))
    arrays = (part.numpy() for part in (text.original, text.masked, text.mask, text.corrupted))
    expected = Reference(parameters_of(model), model.config).losses(*arrays, options)
    assert output.auxiliary_loss.item() == pytest.approx(expected.auxiliary, rel=1e-5)
    assert output.rtd_loss.item() == pytest.approx(expected.rtd, rel=1e-5)
    assert output.lm_loss.item() == pytest.approx(expected.lm, rel=1e-5)
    assert output.loss.item() == pytest.approx(expected.objective, rel=1e-5)
    return output


def built(seed: int = 0, **changes: object) -> MetroT0ForPreTraining:
    return randomize(MetroT0ForPreTraining(tiny_config(**changes)), seed).double()


@pytest.mark.parametrize("sharing", ["none", "token", "token_pos", "token_pos_norm"])
@pytest.mark.parametrize("head", ["none", "simple", "roberta"])
@pytest.mark.parametrize("location", ["encoder", "decoder"])
def test_losses_of_every_variant(location: str, head: str, sharing: str) -> None:
    model = built(auxiliary_sharing=sharing, rtd_head=head, rtd_location=location)
    text = random_text([11, 4, 16], seed=1)
    for positions, gated in VARIANTS:
        if head == "none":
            if not gated:
                compare(model, text, Settings(positions, rtd_weight=0.0, lm_weight=0.7))
        else:
            compare(model, text, Settings(positions, gated, lm_weight=0.7, rtd_weight=3.0))


@pytest.mark.parametrize("gated", [False, True])
@pytest.mark.parametrize(
    ("location", "positions"), [("encoder", "lm"), ("encoder", "both"), ("decoder", "both")]
)
def test_a_decoder_that_writes_masked_tokens_only(location: str, positions: str, gated: bool) -> None:
    model = built(rtd_location=location)
    for seed in range(3):
        compare(model, random_text([11, 4, 16], seed), Settings(positions, gated, short_target=True))


def test_a_padding_token_among_the_samples() -> None:
    """The main encoder takes it for padding, the detection label says replaced, and the decoder must still write it."""
    model = built()
    text = random_text([11, 6], seed=2, with_padding=True)
    assert (text.corrupted.eq(PAD) & text.original.ne(PAD)).sum() == 1
    for positions, gated in VARIANTS:
        compare(model, text, Settings(positions, gated))


def test_everything_masked_and_nothing_replaced() -> None:
    model = built()
    compare(model, random_text([9, 5], share=1.0), Settings())
    untouched = random_text([9, 5], keep=1.0)
    assert torch.equal(untouched.corrupted, untouched.original)
    output = compare(model, untouched, Settings(gated=True))
    assert output.totals["rtd_recall"].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("changes", "options"),
    [
        ({}, Settings("lm", gated=True)),
        ({"auxiliary_sharing": "none", "rtd_head": "simple"}, Settings("none", rtd_weight=5.0)),
        (
            {"auxiliary_sharing": "token_pos", "rtd_location": "decoder"},
            Settings("both", gated=True, short_target=True),
        ),
    ],
    ids=["paper", "separate", "short"],
)
def test_gradients_against_finite_differences(changes: dict[str, object], options: Settings) -> None:
    """One random direction through every single parameter tensor; the gate lets no gradient through."""
    model = built(seed=3, num_layers=1, num_decoder_layers=1, **changes)
    text = random_text([7, 4], seed=5)
    arrays = [part.numpy() for part in (text.original, text.masked, text.mask, text.corrupted)]
    model(**text.inputs(), objective=objective_of(options)).loss.backward()
    parameters = parameters_of(model)
    gate = Reference(parameters, model.config).losses(*arrays, options).gate
    rng = np.random.default_rng(0)
    step = 1e-6
    for name, parameter in model.named_parameters():
        direction = rng.standard_normal(parameter.shape)
        values = []
        for sign in (1.0, -1.0):
            moved = {**parameters, name: parameters[name] + sign * step * direction}
            values.append(Reference(moved, model.config).losses(*arrays, options, gate).objective)
        expected = (values[0] - values[1]) / (2 * step)
        ours = float((parameter.grad.numpy() * direction).sum())
        assert ours == pytest.approx(expected, rel=1e-4, abs=1e-4), name
