"""Validation: always the same rows with the same draws, so that two values differ by the model alone.

validation = Validation(objective, rows, number=256, micro_batch_tokens=8192, seed=1)
values = validation.run(model, "fp32")         # {"loss": ..., "lm_loss": ..., ...}
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from metro_t0.data.rows import TokenRows
from metro_t0.data.sampler import cut_into_micro_batches
from metro_t0.objectives.base import Objective
from metro_t0.training.update import Precision, autocast, draw_seed, move, summed_counts

# Steps count from 1: no training row shares a key, and so its draws, with a validation row.
_VALIDATION_STEP = 0


class Validation:
    """Fixed held-out rows, collated once.

    Args:
        objective: collates the rows and computes the losses.
        rows: held-out rows; those taken lie evenly over them.
        number: how many to take at most.
        micro_batch_tokens: padded tokens that go through the network at once.
        seed: of whatever else the objective draws.
    """

    def __init__(
        self, objective: Objective, rows: TokenRows, *, number: int, micro_batch_tokens: int, seed: int
    ) -> None:
        self._objective, self._seed = objective, seed
        taken = np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(np.int64))
        places = cut_into_micro_batches(rows.lengths[taken], micro_batch_tokens)
        self.batches = [
            objective.collate(
                [rows[index] for index in taken[batch].tolist()],
                [(_VALIDATION_STEP, place) for place in batch.tolist()],
            )
            for batch in places
        ]
        self._normalizers = summed_counts(objective, self.batches) if self.batches else {}

    @torch.no_grad()
    def run(self, model: nn.Module, precision: Precision) -> dict[str, float | None]:
        """Every metric over all rows; ``loss`` is that of one batch of them all. The model is left in training mode."""
        assert self.batches
        device = next(model.parameters()).device
        model.eval()
        losses, totals = [], []
        for index, batch in enumerate(self.batches):
            torch.manual_seed(draw_seed(self._seed, _VALIDATION_STEP, index))
            with autocast(device, precision):
                output = self._objective(model, move(batch, device), self._normalizers)
            losses.append(output.loss)
            totals.append(torch.stack(list(output.totals.values())))
            names = list(output.totals)
        model.train()
        summed = torch.stack(totals).double().sum(dim=0).tolist()
        values: dict[str, float | None] = {
            name: total / count if count else None for name, (total, count) in zip(names, summed, strict=True)
        }
        values["loss"] = float(torch.stack(losses).double().sum())
        return values
