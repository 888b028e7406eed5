"""One update from its micro-batches: forward, backward, non-finite guard, optimizer. Waits for the device nowhere.

    updater = Updater(Parallel(model, objective), optimizer, precision="bf16", seed=1, clip_norm=2.0)
    tally = updater.run(step, batches, learning_rate)        # tensors on the device
    training_log.add(tally)                                   # see metrics.py

All micro-batches of all processes share one set of normalizers, the counts of the whole step, so that any cut of a
step into micro-batches and shares makes the same update. Dropout is seeded by (seed, step, micro-batch, process): a
resumed run needs no random state.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Literal

import torch

from metro_t0.objectives.base import Batch, Objective, ObjectiveOutput
from metro_t0.training.distributed import Normalizers, Parallel, World
from metro_t0.training.gradient_norms import GradientNorms, Norms
from metro_t0.training.optimizer import apply_update, set_learning_rate

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class StepTally:
    """What one update learned about itself, on the device; the same on all processes.

    Attributes:
        names: of the metrics.
        totals: ``[metrics, 2]`` float64 sums and counts.
        loss: scalar, the loss of the whole step.
        norms: of the gradients before clipping.
        nonfinite: bool ``[loss parts + 2]``: each loss part, the loss, the gradients; any = the update was skipped.
    """

    names: tuple[str, ...]
    totals: torch.Tensor
    loss: torch.Tensor
    norms: Norms
    nonfinite: torch.Tensor


def summed_counts(
    objective: Objective, batches: Sequence[Batch], idle: Collection[int] = ()
) -> dict[str, int]:
    """Counts of this process's batches together, without those at the places ``idle``."""
    counts = [objective.counts(batch) for batch in batches]
    counting = [count for index, count in enumerate(counts) if index not in idle]
    return {name: sum(count[name] for count in counting) for name in counts[0]}


def summed_outputs(
    outputs: Sequence[ObjectiveOutput], idle: Collection[int], world: World
) -> tuple[tuple[str, ...], torch.Tensor, torch.Tensor]:
    """What all processes' passes gave together: names of the metrics, their totals ``[metrics, 2]``, the loss.

    One exchange of a few float64 numbers; those at the places ``idle`` are left out.
    """
    values = [
        torch.stack([*output.totals.values(), output.loss.expand(2)]).double() * (index not in idle)
        for index, output in enumerate(outputs)
    ]
    summed = world.sum(torch.stack(values).sum(dim=0))
    return tuple(outputs[0].totals), summed[:-1], summed[-1, 0]


def draw_seed(*key: int) -> int:
    """A seed of torch's generators that is a function of the key."""
    digest = hashlib.blake2b(struct.pack(f"<{len(key)}q", *key), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def autocast(device: torch.device, precision: Precision) -> AbstractContextManager[None]:
    """Weights and optimizer stay float32; in bf16, matrix products run in bfloat16."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16")


def move(batch: Batch, device: torch.device) -> Batch:
    """The batch on the device; from pinned memory, so that the copy waits for nothing."""
    if device.type == "cpu":
        return batch
    return {name: value.pin_memory().to(device, non_blocking=True) for name, value in batch.items()}


class Updater:
    """Makes updates of one model with one objective.

    Args:
        parallel: the network, in float32, and its objective.
        optimizer: fused (see optimizer.py).
        precision: ``fp32`` or ``bf16``.
        seed: of dropout.
        clip_norm: largest gradient norm; 0 = no clipping.
    """

    def __init__(
        self,
        parallel: Parallel,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        seed: int,
        clip_norm: float,
    ) -> None:
        self.parallel, self.objective, self.optimizer = parallel, parallel.objective, optimizer
        self.precision, self._seed, self._clip_norm = precision, seed, clip_norm
        self._norms_of_gradients = GradientNorms(parallel.network.named_parameters())
        self.device = parallel.device

    @property
    def watched(self) -> tuple[str, ...]:
        """What ``StepTally.nonfinite`` watches, in its order."""
        return (*self.objective.loss_parts, "loss", "gradient")

    def forward_backward(
        self,
        batch: Batch,
        normalizers: Normalizers,
        step: int,
        index: int,
        *,
        last: bool = True,
        idle: bool = False,
    ) -> ObjectiveOutput:
        """Add one micro-batch's gradients to those that are there.

        Args:
            batch: this process's share.
            normalizers: counts of the whole step.
            step, index: of the micro-batch.
            last: exchange the gradients afterwards.
            idle: add nothing; the process goes along because all must make the same passes.
        """
        world = self.parallel.world
        torch.manual_seed(draw_seed(self._seed, step, index * world.size + world.rank))
        with self.parallel.backward(last):
            with autocast(self.device, self.precision):
                output = self.parallel(move(batch, self.device), normalizers)
            with torch.autocast(self.device.type, enabled=False):
                (output.loss * (0 if idle else self.parallel.gradient_weight)).backward()
        return output

    def _casts_kept(self) -> AbstractContextManager[None]:
        """Around all micro-batches, so that weights are cast once a step; sharded ones are cast as they come."""
        if self.parallel.is_sharded:
            return nullcontext()
        return autocast(self.device, self.precision)

    def run(
        self, step: int, batches: Sequence[Batch], learning_rate: float, idle: Collection[int] = ()
    ) -> StepTally:
        """One update; ``batches`` are this process's shares of all of the step's micro-batches.

        ``idle`` says which of them count for nothing (see ``data/sampler.py``).
        """
        assert batches
        normalizers = self.parallel.summed(summed_counts(self.objective, batches, idle))
        self.optimizer.zero_grad(set_to_none=True)
        outputs = []
        with self._casts_kept():
            for index, batch in enumerate(batches):
                last = index == len(batches) - 1
                output = self.forward_backward(batch, normalizers, step, index, last=last, idle=index in idle)
                outputs.append(ObjectiveOutput(output.loss.detach(), output.totals))
        # From sums over all processes, so that all of them skip an update or none does.
        names, totals, loss = summed_outputs(outputs, idle, self.parallel.world)
        norms = self._norms_of_gradients()
        watched = [
            totals[names.index(name), 0] if name in names else loss.new_zeros(())
            for name in self.objective.loss_parts
        ]
        nonfinite = torch.stack([*watched, loss, norms.total.double()]).isfinite().logical_not()
        set_learning_rate(self.optimizer, learning_rate)
        apply_update(self.optimizer, norms.total, nonfinite.any(), self._clip_norm)
        return StepTally(names, totals, loss, norms, nonfinite)
