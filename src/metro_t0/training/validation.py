"""Validation: always the same rows with the same draws, so that two values differ by the model alone.

validation = Validation(objective, rows, number=256, micro_batch_tokens=8192, seed=1)
values = validation.run(parallel, "fp32")      # {"loss": ..., "lm_loss": ..., ...}
"""

from __future__ import annotations

from contextlib import nullcontext

import numpy as np
import torch

from metro_t0.data.rows import TokenRows
from metro_t0.data.sampler import cut_into_micro_batches, deal
from metro_t0.objectives.base import Objective, ObjectiveOutput
from metro_t0.training.activation_shares import ActivationShares
from metro_t0.training.distributed import Parallel, World
from metro_t0.training.update import Precision, autocast, draw_seed, move, summed_counts, summed_outputs

# Steps count from 1: no training row shares a key, and so its draws, with a validation row.
VALIDATION_STEP = 0


class Validation:
    """Fixed held-out rows, collated once.

    Args:
        objective: collates the rows and computes the losses.
        rows: held-out rows; those taken lie evenly over them.
        number: how many to take at most.
        micro_batch_tokens: padded tokens that go through the network at once.
        seed: of whatever else the objective draws.
        world: of whose share of the rows this process takes its own.
    """

    def __init__(
        self,
        objective: Objective,
        rows: TokenRows,
        *,
        number: int,
        micro_batch_tokens: int,
        seed: int,
        world: World | None = None,
    ) -> None:
        self._objective, self._seed, world = objective, seed, world or World()
        taken = np.unique(np.linspace(0, len(rows) - 1, min(number, len(rows))).astype(np.int64))
        cut = cut_into_micro_batches(rows.lengths[taken], micro_batch_tokens)
        rounds = deal(cut, rows.lengths[taken], world.size)
        self._idle = {index for index, pieces in enumerate(rounds) if not len(pieces[world.rank])}
        self.batches = [
            objective.collate(
                [rows[index] for index in taken[places].tolist()],
                [(VALIDATION_STEP, place) for place in places.tolist()],
            )
            for pieces in rounds
            for places in [pieces[world.rank] if len(pieces[world.rank]) else pieces[0][:1]]
        ]

    def run(self, parallel: Parallel, precision: Precision) -> dict[str, float | None]:
        """Every metric over all rows of all processes; ``loss`` is that of one batch of them all.

        With the share of feed-forward units that fire, layer by layer (see activation_shares.py).

        The network is left in training mode.
        """
        assert self.batches
        normalizers = parallel.summed(summed_counts(self._objective, self.batches, self._idle))
        outputs: list[ObjectiveOutput] = []
        shares = ActivationShares(parallel.network)
        with parallel.evaluating():
            for index, batch in enumerate(self.batches):
                torch.manual_seed(draw_seed(self._seed, VALIDATION_STEP, index))
                counting = nullcontext() if index in self._idle else shares.counting()
                with autocast(parallel.device, precision), counting:
                    outputs.append(parallel(move(batch, parallel.device), normalizers))
            names, totals, loss = summed_outputs(outputs, self._idle, parallel.world)
        values: dict[str, float | None] = {
            name: total / count if count else None
            for name, (total, count) in zip(names, totals.tolist(), strict=True)
        }
        values["loss"] = float(loss)
        return {**values, **shares.read(parallel.world)}
