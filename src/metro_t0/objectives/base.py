"""What a training step means, apart from the loop that repeats it.

An objective turns dataset rows into a batch (``collate``, on the host), says by which counts its sums are divided
(``counts``), and computes the loss (calling it). The loop knows no masking; an objective knows no optimizer.

    batch = objective.collate(rows, keys)
    normalizers = objective.counts(batch)            # summed over micro-batches and processes by the loop
    output = objective(model, batch, normalizers)
    output.loss.backward()
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

Batch = dict[str, torch.Tensor]
Row = Mapping[str, np.ndarray]
RowKey = tuple[int, ...]


@dataclass
class ObjectiveOutput:
    """What one forward pass of an objective gives.

    Attributes:
        loss: scalar to differentiate: the batch's weighted sums divided by the normalizers.
        totals: metric name -> tensor ``[2]`` of (sum, count), float32, detached, on the model's device. A metric's
            value over any number of batches is the sum of sums over the sum of counts.
    """

    loss: torch.Tensor
    totals: dict[str, torch.Tensor]


@dataclass(frozen=True)
class Inspection:
    """What an objective that corrupts text by a model did to some rows, token by token.

    Attributes:
        original: ids ``[B, T]``.
        real: bool ``[B, T]``, what is not padding.
        masked: bool ``[B, T]``, positions where the corrupting model wrote.
        corrupted: ids ``[B, T]``, the text with what it wrote.
        detection: float32 ``[B, T]``, the probability that a token was replaced; not a number where none was asked.
        restored: ids ``[B, T]``, what the decoder holds most likely at masked positions, elsewhere the original.
    """

    original: torch.Tensor
    real: torch.Tensor
    masked: torch.Tensor
    corrupted: torch.Tensor
    detection: torch.Tensor
    restored: torch.Tensor


class Objective(Protocol):
    """One way to train: METRO, span corruption, or prompted sequence-to-sequence."""

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """Names in ``totals`` that are parts of the loss; a non-finite one is reported by its name."""
        ...

    def collate(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> Batch:
        """Corrupt and pad rows into a batch of CPU tensors; all randomness is a function of each row's key."""
        ...

    def counts(self, batch: Batch) -> dict[str, int]:
        """How many positions each sum of this batch runs over, read on the host before the batch moves."""
        ...

    def __call__(
        self, model: nn.Module, batch: Batch, normalizers: Mapping[str, float | torch.Tensor] | None = None
    ) -> ObjectiveOutput:
        """The loss of a batch; without normalizers the batch's own counts divide its sums."""
        ...


@runtime_checkable
class Inspectable(Protocol):
    """An objective that can show what it does to single tokens."""

    def inspect(self, model: nn.Module, batch: Batch) -> Inspection:
        """What happens to a collated batch on the model's device; without gradients, in evaluation mode."""
        ...
