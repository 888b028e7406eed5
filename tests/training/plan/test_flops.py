"""The cost formulas against torch's own counter, and against figures worked out by hand for the published sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from metro_t0.config import MetroSettings, PromptedSettings, SpanCorruptionSettings, load_pretrain_config
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.build import ObjectiveSettings, build_objective
from metro_t0.training.plan.flops import flops_per_token, row_shape

# Forward operations a token in millions, at the dictionary's size (without sentinels), by hand from the formulas:
# layers of auxiliary model, encoder, decoder; auxiliary head; LM head everywhere and at masked positions; all with
# either head.
BY_HAND = {
    "base": (32768, "simple", (56.6, 169.9, 226.5, 7.7, 50.3, 7.5), 574.0, 531.2),
    "base++": (64000, "roberta", (56.6, 169.9, 226.5, 14.9, 98.3, 14.7), 630.3, 546.7),
    "large++": (64000, "roberta", (151.0, 604.0, 805.3, 20.0, 131.1, 19.7), 1877.0, 1765.6),
}


@pytest.mark.parametrize("preset", BY_HAND)
def test_published_sizes_by_hand(preset: str) -> None:
    vocabulary, head, (auxiliary, encoder, decoder, auxiliary_head, everywhere, masked), *sums = BY_HAND[
        preset
    ]
    config = load_pretrain_config(preset)
    network = MetroT0Config(**{**config.model.model_dump(), "rtd_head": head}, vocab_size=vocabulary)
    assert isinstance(config.objective, MetroSettings)
    found = flops_per_token(network, config.objective)
    official = flops_per_token(network, config.objective.model_copy(update={"lm_positions": "all"}))
    in_millions = {name: value / 1e6 for name, value in found.parts.items()}
    assert in_millions["auxiliary_layers"] == pytest.approx(auxiliary, abs=0.06)
    assert in_millions["encoder_layers"] == pytest.approx(encoder, abs=0.06)
    assert in_millions["decoder_layers"] == pytest.approx(decoder, abs=0.06)
    assert in_millions["auxiliary_head"] == pytest.approx(auxiliary_head, abs=0.06)
    assert in_millions["language_model_head"] == pytest.approx(masked, abs=0.06)
    assert official.language_model_head / 1e6 == pytest.approx(everywhere, abs=0.06)
    assert (official.forward / 1e6, found.forward / 1e6) == pytest.approx(sums, abs=0.06)
    assert found.training == 3 * found.forward


def test_span_corruption_has_the_recipes_lengths() -> None:
    row = row_shape(SpanCorruptionSettings(), 512)
    assert (row.tokens, round(row.source), round(row.target)) == (512, 474, 95)
    more = row_shape(SpanCorruptionSettings(probability=0.5, empty_probability=0.0), 512)
    assert more.source < row.source < 512 and more.target > row.target


def counted(network: MetroT0Config, settings: ObjectiveSettings, rows: list[dict[str, np.ndarray]]) -> Any:
    """Operations that torch counts in a real forward and backward pass, by module and kind; and the batch."""
    network._attn_implementation = "eager"  # the counter does not know the fused kernel of a CPU
    metro = isinstance(settings, MetroSettings)
    model = (MetroT0ForPreTraining if metro else MetroT0ForConditionalGeneration)(network).train()
    objective = build_objective(settings, network, seed=1)
    batch = objective.collate(rows, [(1, place) for place in range(len(rows))])
    with FlopCounterMode(display=False) as counter:
        output = objective(model, batch)
    forward = {name: sum(kinds.values()) for name, kinds in counter.get_flop_counts().items()}
    with FlopCounterMode(display=False) as backward:
        output.loss.backward()
    return forward, backward.get_total_flops(), batch


def network_of(**changes: Any) -> MetroT0Config:
    """No two sizes alike; several layers, of which all but the last are compared."""
    values = {
        "vocab_size": 101,
        "num_sentinel_tokens": 40,
        "d_model": 24,
        "d_kv": 8,
        "d_ff": 40,
        "num_heads": 3,
        "num_layers": 3,
        "num_decoder_layers": 2,
        "num_auxiliary_layers": 2,
        "dropout_rate": 0.0,
    }
    return MetroT0Config(**{**values, **changes})


def as_computed(settings: MetroSettings, batch: Any, length: int) -> MetroSettings:
    """A row has room for more masked positions than it has on average; these are computed, if not counted in MFU."""
    masking = settings.masking.model_copy(update={"probability": batch["masked_positions"].shape[1] / length})
    return settings.model_copy(update={"masking": masking})


def blocks(number: int, length: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    generator = np.random.default_rng(seed)
    return [{"input_ids": generator.integers(4, 60, length)} for _ in range(number)]


@pytest.mark.parametrize("head", ["none", "simple", "roberta"])
@pytest.mark.parametrize("lm_positions", ["masked", "all"])
def test_metro_against_torchs_counter(head: str, lm_positions: str) -> None:
    network = network_of(rtd_head=head)
    settings = MetroSettings(lm_positions=lm_positions, rtd_weight=0.0 if head == "none" else 50.0)  # type: ignore[arg-type]
    # 40 tokens, of which 6 are masked exactly: the formula's mean is what happens.
    length, number = 40, 4
    found, _, batch = counted(network, settings, blocks(number, length))
    assert batch["mask"].sum() == 6 * number
    flops, tokens = flops_per_token(network, as_computed(settings, batch, length), length), length * number
    top = "MetroT0ForPreTraining"
    for stack, layers, expected in (
        ("auxiliary.encoder", 2, flops.auxiliary_layers + flops.auxiliary_attention),
        ("encoder", 3, flops.encoder_layers + flops.encoder_attention),
        ("decoder", 2, flops.decoder_layers + flops.decoder_attention + flops.cross_attention),
    ):
        # Last layers may leave out rows that no loss reads, which the formula does not discount.
        assert found[f"{top}.{stack}.block.0"] * layers == pytest.approx(expected * tokens), stack
    assert found[f"{top}.encoder"] == pytest.approx((flops.encoder_layers + flops.encoder_attention) * tokens)
    assert found[f"{top}.auxiliary.head"] == pytest.approx(flops.auxiliary_head * tokens)
    assert found[f"{top}.lm_head"] == pytest.approx(flops.language_model_head * tokens)
    if head != "none":
        assert found[f"{top}.rtd_head"] == pytest.approx(flops.detection_head * tokens)
    assert found["Global"] <= flops.forward * tokens * (1 + 1e-9)


def test_backward_is_twice_forward() -> None:
    found, backward, _ = counted(network_of(), MetroSettings(), blocks(3, 40))
    assert backward == 2 * found["Global"]


def test_short_decoder_target_against_torchs_counter() -> None:
    network, settings = network_of(), MetroSettings(decoder_target="masked")
    found, _, batch = counted(network, settings, blocks(4, 40))
    flops = flops_per_token(network, as_computed(settings, batch, 40), 40)
    expected = flops.decoder_layers + flops.decoder_attention + flops.cross_attention
    assert found["MetroT0ForPreTraining.decoder.block.0"] * 2 == pytest.approx(expected * 160)


def test_prompted_and_span_corruption_against_torchs_counter() -> None:
    network = network_of()
    generator = np.random.default_rng(3)
    # Collating pads to multiples of 8, so that these have no padding.
    rows = [
        {"input_ids": generator.integers(4, 60, 32), "labels": generator.integers(4, 60, 8)} for _ in range(3)
    ]
    found, backward, _ = counted(network, PromptedSettings(), rows)
    flops = flops_per_token(network, PromptedSettings(), 32, 8)
    assert found["Global"] == pytest.approx(flops.forward * 40 * 3)
    assert found["Global"] + backward == pytest.approx(flops.training * 40 * 3)
    # Span corruption is the same computation on other lengths.
    row = row_shape(SpanCorruptionSettings(), 512)
    as_pairs = flops_per_token(network, PromptedSettings(), row.source, row.target)
    as_blocks = flops_per_token(network, SpanCorruptionSettings(), 512)
    assert as_blocks.forward * 512 == pytest.approx(as_pairs.forward * (row.source + row.target))


def test_rows_of_unequal_lengths_by_their_mean_number_of_keys() -> None:
    network, settings = network_of(), MetroSettings()
    lengths = np.array([20, 60, 120])
    each = sum(
        float(length) * flops_per_token(network, settings, float(length)).forward for length in lengths
    )
    keys = float((lengths**2).sum() / lengths.sum())
    assert flops_per_token(network, settings, keys).forward * lengths.sum() == pytest.approx(each)
