"""The memory estimate against real training steps, each measured in a process of its own, within 15 %."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from measured_step import measure

from metro_t0.config import MetroSettings, SpanCorruptionSettings
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.training.plan.flops import row_shape
from metro_t0.training.plan.memory import Hardware, StepMemory, step_memory
from metro_t0.training.plan.networks import count_parameters

# 35 million parameters: the width of small, with fewer layers and a smaller vocabulary.
NETWORK = {
    "vocab_size": 16512,
    "num_sentinel_tokens": 512,
    "d_model": 512,
    "d_kv": 64,
    "d_ff": 2048,
    "num_heads": 8,
    "num_layers": 3,
    "num_decoder_layers": 3,
    "num_auxiliary_layers": 1,
}


def estimated(case: dict[str, Any], shards: int = 1) -> StepMemory:
    shape = MetroT0Config(**case["network"])
    metro = case["objective"]["kind"] == "metro"
    objective = (MetroSettings if metro else SpanCorruptionSettings)(**case["objective"])
    return step_memory(
        shape,
        count_parameters(shape, metro),
        objective,
        Hardware(case["device"], case["precision"]),
        row_shape(objective, case["length"]),
        case["rows"],
        checkpointing=case["checkpointing"],
        shards=shards,
    )


def case_of(
    precision: str,
    dropout: float,
    *,
    objective: str = "metro",
    checkpointing: bool = False,
    rows: int = 4,
    length: int = 256,
    device: str = "cpu",
) -> dict[str, Any]:
    return {
        "network": {**NETWORK, "dropout_rate": dropout},
        "objective": {"kind": objective},
        "rows": rows,
        "length": length,
        "precision": precision,
        "device": device,
        "checkpointing": checkpointing,
    }


def check(case: dict[str, Any]) -> None:
    memory, measured = estimated(case), measure(**case)
    within = f"estimated {memory.total / 1e6:.0f} MB, measured {measured / 1e6:.0f} MB: {memory.parts}"
    assert memory.total == pytest.approx(measured, rel=0.15), within
    # The activations are no small part of it, or the comparison would say nothing about them.
    share = 0.1 if case["checkpointing"] else 0.2
    assert memory.activations + memory.transient > share * memory.total


@pytest.mark.parametrize(("precision", "checkpointing"), [("fp32", False), ("bf16", True)])
def test_against_real_steps(precision: str, checkpointing: bool) -> None:
    check(case_of(precision, 0.1, checkpointing=checkpointing))


@pytest.mark.slow
@pytest.mark.parametrize(
    "case",
    [
        case_of("bf16", 0.1),
        case_of("fp32", 0.1, checkpointing=True),
        case_of("fp32", 0.0, rows=4, length=512),
        case_of("bf16", 0.0),
        case_of("bf16", 0.1, rows=16, length=128),
        case_of("fp32", 0.1, objective="span-corruption"),
        case_of("bf16", 0.0, objective="span-corruption", rows=8),
        case_of("bf16", 0.1, checkpointing=True, rows=12),
    ],
    ids=lambda case: f"{case['precision']}-{case['objective']['kind']}-{case['rows']}x{case['length']}",
)
def test_against_more_real_steps(case: dict[str, Any]) -> None:
    check(case)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="measures a GPU")
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_against_real_steps_on_a_gpu(precision: str, checkpointing: bool) -> None:
    check(case_of(precision, 0.1, checkpointing=checkpointing, device="cuda", rows=16, length=512))


def test_weights_gradients_and_moments_are_sixteen_bytes_a_parameter() -> None:
    case = case_of("fp32", 0.1)
    memory = estimated(case)
    total = count_parameters(MetroT0Config(**case["network"]), metro=True).total
    assert memory.weights + memory.gradients + memory.optimizer == 16 * total
    assert memory.weight_copies == 0 < estimated(case_of("bf16", 0.1)).weight_copies < 2 * total


def test_checkpointing_keeps_less_and_shards_hold_less() -> None:
    plain, recomputed = estimated(case_of("fp32", 0.1)), estimated(case_of("fp32", 0.1, checkpointing=True))
    assert recomputed.activations < 0.4 * plain.activations
    assert recomputed.optimizer == plain.optimizer
    sharded = estimated(case_of("fp32", 0.1), shards=4)
    assert sharded.optimizer == plain.optimizer / 4
    assert plain.weights / 4 < sharded.weights < plain.weights
    assert sharded.activations == plain.activations


def test_activations_grow_with_rows_and_a_row_with_its_length() -> None:
    one, two = (estimated(case_of("fp32", 0.1, rows=rows)) for rows in (4, 8))
    assert two.activations == pytest.approx(2 * one.activations)
    longer = estimated(case_of("fp32", 0.1, rows=2, length=512))
    # On a CPU the scores of attention are kept, so that the same tokens in longer rows need more.
    assert longer.activations > 1.1 * one.activations
    fused = [
        estimated(case_of("bf16", 0.1, rows=r, length=n, device="cuda")) for r, n in ((4, 256), (2, 512))
    ]
    assert fused[1].activations < 1.1 * fused[0].activations
