"""Between log steps the host never waits for the device: no value is read back, no number is copied over and awaited.

On a GPU torch itself raises an error at whatever waits. Everywhere else the same code runs on the meta device, which
has no values: it cannot be asked for one, and what would be copied to it is seen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from metro_t0.config import OptimizerSettings, load_pretrain_config
from metro_t0.modeling.attention import relative_buckets
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.base import Batch, Objective, Row
from metro_t0.objectives.build import build_objective
from metro_t0.objectives.prompted import PromptedObjective
from metro_t0.training.activation_checkpointing import checkpoint_activations
from metro_t0.training.distributed import Parallel, World
from metro_t0.training.metrics import TrainingLog
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.update import Updater, summed_outputs

SHAPE = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_heads": 2, "num_layers": 2, "num_decoder_layers": 2}
CONFIG = MetroT0Config(vocab_size=600, num_auxiliary_layers=1, auxiliary_dropout_rate=0.1, **SHAPE)
CASES = [
    ("tiny", []),
    ("tiny", ["objective.lm_positions=all", "objective.gate_lm_by_rtd=true", "objective.sampling=eval"]),
    ("tiny", ["objective.decoder_target=masked", "objective.rtd_positions=masked"]),
    ("tiny-t5", []),
    ("prompted", []),
]


def made_objective(preset: str, overrides: list[str]) -> Objective:
    if preset == "prompted":
        return PromptedObjective(pad_token_id=1, decoder_start_token_id=2)
    return build_objective(load_pretrain_config(preset, overrides=overrides).objective, CONFIG, 1)


def collated(objective: Objective, lengths: list[int], step: int) -> Batch:
    rng = np.random.default_rng(step)
    rows: list[Row] = [
        {"input_ids": rng.integers(4, 80, length), "labels": rng.integers(4, 80, 1 + length // 4)}
        for length in lengths
    ]
    return objective.collate(rows, [(step, place) for place in range(len(rows))])


class _Copies(TorchFunctionMode):
    """No tensor is made of a host's numbers on a device: torch copies them there and waits."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        made = function in (torch.tensor, torch.as_tensor)
        assert not made or torch.device(kwargs.get("device") or "cpu").type == "cpu", args
        return function(*args, **kwargs)


class _Crossings(TorchDispatchMode):
    """No operator moves a tensor to the device or beside one that lies there; a lone number may go as an argument."""

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> torch.Tensor:
        output = operator(*args, **(kwargs or {}))
        given = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)]
        devices = {tensor.device.type for tensor in given if tensor.dim()}
        if isinstance(output, torch.Tensor) and given and output.dim():
            devices.add(output.device.type)
        assert len(devices) <= 1, f"{operator} crosses from one device to another"
        return output


@contextmanager
def watched() -> Iterator[None]:
    with _Copies(), _Crossings():
        yield


@pytest.mark.parametrize(("preset", "overrides"), CASES, ids=str)
@pytest.mark.parametrize("lengths", [[24, 24], [24, 9, 17]], ids=["", "padded"])
@pytest.mark.parametrize("recomputed", [False, True], ids=["", "recomputed"])
def test_forward_and_backward_need_no_value(
    preset: str, overrides: list[str], lengths: list[int], recomputed: bool
) -> None:
    with torch.device("meta"):
        model = MetroT0ForPreTraining(CONFIG).train()
    if recomputed:
        checkpoint_activations(model)
    objective = made_objective(preset, overrides)
    batch = collated(objective, lengths, 1)
    there = {name: torch.empty_like(value, device="meta") for name, value in batch.items()}
    with watched():
        output = objective(model, there, objective.counts(batch))
        output.loss.backward()
        summed_outputs([output, output], set(), World())
    assert output.loss.device.type == "meta"
    assert model.shared.weight.grad is not None


@pytest.mark.parametrize(
    "waits",
    [
        lambda there: there[0].item(),
        lambda there: bool((there > 0).all()),
        lambda there: there[there > 0],
        lambda there: there.nonzero(),
        lambda there: there.unique(),
        lambda there: torch.repeat_interleave(there, there.long()),
        lambda there: torch.tensor(3, device=there.device),
        lambda there: there + torch.arange(3).to(there.device),
        lambda there: there[torch.tensor([0, 2])],
    ],
)
def test_what_waits_is_noticed(waits: Callable[[torch.Tensor], Any]) -> None:
    there = torch.ones(3, device="meta")
    with pytest.raises((AssertionError, RuntimeError, NotImplementedError)), watched():
        waits(there)
    with watched():
        relative_buckets(there.long(), 16, 22, 32) + torch.full((), 3, device="meta")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="only a GPU can be waited for")
@pytest.mark.parametrize(("preset", "overrides"), CASES, ids=str)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_updates_on_a_gpu_wait_for_nothing(preset: str, overrides: list[str], precision: Any) -> None:
    torch.manual_seed(1)
    model = MetroT0ForPreTraining(CONFIG).cuda().train()
    objective = made_objective(preset, overrides)
    optimizer = build_optimizer(model.parameters(), OptimizerSettings(learning_rate=1e-3, warmup_steps=0))
    updater = Updater(Parallel(model, objective), optimizer, precision=precision, seed=1, clip_norm=1.0)
    log = TrainingLog(updater.watched, limit=0)

    def take(step: int) -> None:
        batches = [collated(objective, lengths, step) for lengths in ([24, 24], [24, 9, 17])]
        log.add(updater.run(step, batches, 1e-3), step)

    take(1)  # the first makes the moments and moves the log to the device
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in range(2, 6):
            take(step)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(value is not None for name, value in log.read().items() if name.endswith("loss"))
