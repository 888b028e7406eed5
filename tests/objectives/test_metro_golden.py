"""Losses, logits, every gradient and every count as the official pretraining code has them, from its checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metro_t0.interop.fairseq import rename
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective, MetroOutput

HEADED = [
    f"{build}-{positions}-{gate}"
    for build in ("roberta-token_pos_norm", "simple-token")
    for positions in ("none", "lm", "both")
    for gate in ("plain", "weighted")
]
VARIANTS = [*HEADED, *(f"none-none-{positions}-plain" for positions in ("none", "lm", "both"))]
POSITIONS = {"none": ("all", "all"), "lm": ("masked", "all"), "both": ("masked", "masked")}


@dataclass
class Case:
    """One variant: the model, the objective, the official tensors and logged sums."""

    model: MetroT0ForPreTraining
    objective: MetroObjective
    tensors: dict[str, torch.Tensor]
    logged: dict[str, float]

    def run(self) -> MetroOutput:
        return self.model(
            original_ids=self.tensors["original"],
            masked_ids=self.tensors["masked_input"],
            mask=self.tensors["mask"].bool(),
            replaced_ids=self.tensors["replaced_input"],
            objective=self.objective,
        )


@pytest.fixture(params=VARIANTS)
def case(golden: Path, request: pytest.FixtureRequest) -> Case:
    build, positions, gate = request.param.rsplit("-", 2)
    folder = golden / "pretrain_tiny"
    lm_positions, rtd_positions = POSITIONS[positions]
    model = MetroT0ForPreTraining.from_fairseq(folder / f"{build}.pt").eval()
    objective = MetroObjective(
        lm_positions=lm_positions,
        rtd_positions=rtd_positions,
        gate_lm_by_rtd=gate == "weighted",
        rtd_weight=0.0 if model.rtd_head is None else 50.0,
    )
    logged = json.loads((folder / "losses.json").read_text())[request.param]
    return Case(model, objective, load_file(folder / f"{request.param}.safetensors"), logged)


def test_losses_gradients_and_the_loss_after_a_step(case: Case) -> None:
    output, logged = case.run(), case.logged
    assert output.loss.item() == pytest.approx(logged["objective"], rel=1e-4)
    parts = {
        "auxiliary": (output.auxiliary_loss, "generator_loss", "generator_sample_size"),
        "lm": (output.lm_loss, "discriminator_loss", "sample_size"),
        "rtd": (output.rtd_loss, "rtd_loss", "rtd_sample_size"),
    }
    for name, (part, total, count) in parts.items():
        assert part.item() == pytest.approx(logged[total] / logged[count], rel=1e-4), name

    output.loss.backward()
    ours = dict(case.model.named_parameters(remove_duplicate=False))
    compared = set()
    for official, expected in case.tensors.items():
        if official.startswith("grad."):
            parameter = ours[rename(official.removeprefix("grad."))]
            compared.add(parameter)
            scale = expected.abs().max().item()
            difference = (parameter.grad - expected).abs()
            assert (difference <= 1e-3 * expected.abs() + 1e-5 * scale + 1e-7).all(), official
    assert compared == set(case.model.parameters())

    with torch.no_grad():
        for parameter in compared:
            parameter -= 0.01 * parameter.grad
        assert case.run().loss.item() == pytest.approx(logged["objective_after_sgd"], rel=1e-4)


@torch.no_grad()
def test_logits(case: Case) -> None:
    model, tensors = case.model, case.tensors
    original, corrupted = tensors["original"], tensors["replaced_input"]
    mask, real = tensors["mask"].bool(), original.ne(model.config.pad_token_id)
    start = torch.full((len(original), 1), model.config.mask_token_id)
    decoder_ids = torch.cat([start, original[:, :-1]], dim=1)
    assert torch.equal(decoder_ids[real], tensors["decoder_input"][real])

    auxiliary = model.auxiliary.encoder(tensors["masked_input"], real).last_hidden_state
    encoded = model.encoder(corrupted, real).last_hidden_state
    decoded = model.decoder(
        decoder_ids, encoder_hidden_states=encoded, encoder_attention_mask=real
    ).last_hidden_state
    tolerance = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(
        model.auxiliary.project(auxiliary[mask]), tensors["generator_logits"], **tolerance
    )
    torch.testing.assert_close(model.project(decoded[real]), tensors["lm_logits"][real], **tolerance)
    if model.rtd_head is not None:
        torch.testing.assert_close(model.rtd_head(encoded[real]), tensors["rtd_logits"][real], **tolerance)


@torch.no_grad()
def test_counts(case: Case) -> None:
    totals = {name: total.tolist() for name, total in case.run().totals.items()}
    logged = case.logged
    masked, tokens, replaced = (
        logged["generator_sample_size"],
        logged["ntokens"],
        logged["replaced_total"],
    )
    assert totals["auxiliary_accuracy"] == [logged["generator_n_correct"], masked]
    assert totals["lm_accuracy_replaced"] == [logged["replaced_n_correct"], replaced]
    assert totals["lm_accuracy_kept"][1] == masked - replaced
    everywhere = logged["replaced_n_correct"] + logged["unreplaced_n_correct"]
    assert totals["lm_accuracy_all"] == [everywhere, tokens]
    assert totals["replace_ratio"] == [replaced, tokens]
    assert totals["auxiliary_loss"] == pytest.approx([logged["generator_loss"], masked], rel=1e-4)
    assert totals["lm_loss"] == pytest.approx([logged["discriminator_loss"], logged["sample_size"]], rel=1e-4)
    if case.model.rtd_head is None:
        assert "rtd_loss" not in totals and "rtd_recall" not in totals
        return
    assert totals["rtd_loss"] == pytest.approx([logged["rtd_loss"], logged["rtd_sample_size"]], rel=1e-4)
    assert totals["rtd_recall"] == [logged["rtd_replaced_n_correct"], replaced]
    if case.objective.rtd_positions == "all":
        assert totals["rtd_specificity"] == [logged["rtd_unreplaced_n_correct"], logged["unreplaced_total"]]
    else:  # the official log runs over all positions even where the loss does not
        assert totals["rtd_specificity"][1] == masked - replaced


def test_what_the_checkpoints_say_of_themselves(golden: Path) -> None:
    for build in ("roberta-token_pos_norm", "simple-token", "none-none"):
        head, sharing = build.split("-")
        config = MetroT0ForPreTraining.from_fairseq(golden / "pretrain_tiny" / f"{build}.pt").config
        assert (config.rtd_head, config.auxiliary_sharing) == (head, sharing)
        assert (config.num_layers, config.num_decoder_layers, config.num_auxiliary_layers) == (3, 3, 2)
        assert config.dropout_rate == 0.0
        assert (config.vocab_size, config.mask_token_id) == (240, 200)
