"""What the objective shows of single tokens is what its loss was made of."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.base import Inspectable, Inspection
from metro_t0.objectives.masking import Masking
from metro_t0.objectives.metro import MetroObjective
from metro_t0.objectives.prompted import PromptedObjective
from metro_t0.objectives.scoring import sample_rows
from metro_t0.objectives.span_corruption import SpanCorruptionObjective
from tiny_networks import PAD, SENTINELS, VOCAB_SIZE, randomize, tiny_config

LENGTHS = [12, 19, 5]


def objective(**changes: Any) -> MetroObjective:
    values = {"vocab_size": VOCAB_SIZE, "num_sentinel_tokens": SENTINELS, "pad_token_id": PAD, "seed": 5}
    return MetroObjective(**{**values, "masking": Masking(probability=0.3), **changes})


def inspected(
    model: MetroT0ForPreTraining, shown: MetroObjective
) -> tuple[Inspection, dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """What is shown of a batch, the batch, and the totals of its loss."""
    rng = np.random.default_rng(1)
    rows = [{"input_ids": rng.integers(4, VOCAB_SIZE - SENTINELS, length)} for length in LENGTHS]
    batch = shown.collate(rows, [(0, place) for place in range(len(rows))])
    model.eval()
    with torch.no_grad():
        return shown.inspect(model, batch), batch, shown(model, batch).totals


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        ({}, {}),
        ({}, {"lm_positions": "all"}),
        ({}, {"rtd_positions": "masked", "gate_lm_by_rtd": True}),
        ({}, {"decoder_target": "masked"}),
        ({"rtd_location": "decoder"}, {}),
        ({"rtd_location": "decoder"}, {"decoder_target": "masked", "rtd_positions": "masked"}),
    ],
    ids=str,
)
def test_it_adds_up_to_the_totals_of_the_loss(shape: dict[str, Any], changes: dict[str, Any]) -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config(**shape)))
    shown = objective(**changes)
    found, batch, totals = inspected(model, shown)
    assert torch.equal(found.original, batch["original_ids"]) and torch.equal(found.masked, batch["mask"])
    assert found.real.sum(dim=1).tolist() == LENGTHS
    assert torch.equal(found.corrupted[~found.masked], found.original[~found.masked])
    assert torch.equal(found.restored[~found.masked], found.original[~found.masked])
    replaced = found.corrupted.ne(found.original)
    assert totals["replace_ratio"].tolist() == [int(replaced.sum()), sum(LENGTHS)]
    asked = found.real if shown.rtd_positions == "all" else found.masked
    says_replaced = (found.detection >= 0.5) & asked
    assert totals["rtd_recall"].tolist() == [int((says_replaced & replaced).sum()), int(replaced.sum())]
    assert totals["rtd_precision"].tolist() == [
        int((says_replaced & replaced).sum()),
        int(says_replaced.sum()),
    ]
    right = found.restored.eq(found.original)
    for name, among in (("replaced", replaced), ("kept", found.masked & ~replaced)):
        assert totals[f"lm_accuracy_{name}"].tolist() == [int((right & among).sum()), int(among.sum())]


def test_written_is_what_the_draws_give() -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config()))
    found, batch, _ = inspected(model, objective())
    with torch.no_grad():
        states = model.auxiliary.encoder(batch["masked_ids"], batch["attention_mask"]).last_hidden_state
        for row in range(len(LENGTHS)):
            places = batch["mask"][row].nonzero().squeeze(1)
            logits = model.auxiliary.project(states[row, places])
            drawn = sample_rows(logits, batch["draws"][row, : len(places)])
            assert found.corrupted[row, places].tolist() == drawn.tolist()


def test_without_a_head_nothing_is_believed() -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config(rtd_head="none")))
    found, _, _ = inspected(model, objective(rtd_weight=0.0))
    assert found.detection.isnan().all()


def test_only_what_replaces_tokens_can_be_shown() -> None:
    assert isinstance(objective(), Inspectable)
    others = [
        PromptedObjective(pad_token_id=PAD),
        SpanCorruptionObjective(
            pad_token_id=PAD, vocab_size=VOCAB_SIZE, num_sentinel_tokens=SENTINELS, seed=1
        ),
    ]
    assert not any(isinstance(other, Inspectable) for other in others)
