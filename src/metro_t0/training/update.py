"""One update from its micro-batches: forward, backward, non-finite guard, optimizer. Waits for the device nowhere.

    updater = Updater(model, objective, optimizer, precision="bf16", seed=1, clip_norm=2.0)
    tally = updater.run(step, batches, learning_rate)        # tensors on the device
    training_log.add(tally)                                   # see metrics.py

All micro-batches share one set of normalizers, the counts of the whole step, so that any cut of a step into
micro-batches makes the same update. Dropout is seeded by (seed, step, micro-batch): a resumed run needs no random
state.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from metro_t0.objectives.base import Batch, Objective, ObjectiveOutput
from metro_t0.training.optimizer import apply_update, gradient_norm, set_learning_rate

Precision = Literal["fp32", "bf16"]


@dataclass(frozen=True)
class StepTally:
    """What one update learned about itself, on the device.

    Attributes:
        names: of the metrics.
        totals: ``[metrics, 2]`` float64 sums and counts.
        loss: scalar, the loss of the whole step.
        norm: scalar, of the gradients before clipping.
        nonfinite: bool ``[loss parts + 2]``: each loss part, the loss, the gradients; any = the update was skipped.
    """

    names: tuple[str, ...]
    totals: torch.Tensor
    loss: torch.Tensor
    norm: torch.Tensor
    nonfinite: torch.Tensor


def summed_counts(objective: Objective, batches: Sequence[Batch]) -> dict[str, int]:
    """Counts of all batches together; a sum over nothing is divided by 1."""
    counts = [objective.counts(batch) for batch in batches]
    return {name: max(1, sum(count[name] for count in counts)) for name in counts[0]}


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
        model: on its device, in float32.
        objective: computes the loss.
        optimizer: fused (see optimizer.py).
        precision: ``fp32`` or ``bf16``.
        seed: of dropout.
        clip_norm: largest gradient norm; 0 = no clipping.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        seed: int,
        clip_norm: float,
    ) -> None:
        self.model, self.objective, self.optimizer = model, objective, optimizer
        self.precision, self._seed, self._clip_norm = precision, seed, clip_norm
        self._parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        self.device = self._parameters[0].device

    @property
    def watched(self) -> tuple[str, ...]:
        """What ``StepTally.nonfinite`` watches, in its order."""
        return (*self.objective.loss_parts, "loss", "gradient")

    def forward_backward(
        self, batch: Batch, normalizers: Mapping[str, int], step: int, index: int
    ) -> ObjectiveOutput:
        """Add one micro-batch's gradients to those that are there."""
        torch.manual_seed(draw_seed(self._seed, step, index))
        with autocast(self.device, self.precision):
            output = self.objective(self.model, move(batch, self.device), normalizers)
        output.loss.backward()
        return output

    def run(self, step: int, batches: Sequence[Batch], learning_rate: float) -> StepTally:
        """One update; ``batches`` are all of the step's micro-batches."""
        assert batches
        normalizers = summed_counts(self.objective, batches)
        self.optimizer.zero_grad(set_to_none=True)
        outputs = []
        for index, batch in enumerate(batches):
            output = self.forward_backward(batch, normalizers, step, index)
            outputs.append(ObjectiveOutput(output.loss.detach(), output.totals))
        names = tuple(outputs[0].totals)
        totals = torch.stack([torch.stack(list(output.totals.values())) for output in outputs])
        totals = totals.double().sum(dim=0)
        loss = torch.stack([output.loss for output in outputs]).double().sum()
        norm = gradient_norm(self._parameters)
        watched = [
            totals[names.index(name), 0] if name in names else loss.new_zeros(())
            for name in self.objective.loss_parts
        ]
        nonfinite = torch.stack([*watched, loss, norm.double()]).isfinite().logical_not()
        set_learning_rate(self.optimizer, learning_rate)
        apply_update(self.optimizer, norm, nonfinite.any(), self._clip_norm)
        return StepTally(names, totals, loss, norm, nonfinite)
