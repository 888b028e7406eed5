"""Sums of a step as its loss needs them, divided, and as its metrics need them, beside their counts.

tally = Tally({"masked": 120, "tokens": 1000})
loss = tally.part("lm_loss", losses, counted, "masked")      # a part of the loss
tally.share("lm_accuracy", hits, counted)                    # a metric alone
tally.totals                                                 # {"lm_loss": [sum, count], ...}
"""

from __future__ import annotations

from collections.abc import Mapping

import torch


class Tally:
    """Divides sums by the step's counts and keeps them as totals.

    Args:
        normalizers: kind of position -> the count to divide by.

    Attributes:
        totals: as ``ObjectiveOutput.totals``.
    """

    def __init__(self, normalizers: Mapping[str, float | torch.Tensor]) -> None:
        self.totals: dict[str, torch.Tensor] = {}
        self._normalizers = normalizers

    def part(self, name: str, losses: torch.Tensor, counted: torch.Tensor, kind: str) -> torch.Tensor:
        """Keep the sum of the losses that are counted; return it divided by the step's count of that kind."""
        total = losses.masked_fill(~counted, 0.0).sum()
        self.totals[name] = torch.stack([total.detach().float(), counted.sum().float()])
        normalizer = self._normalizers[kind]
        if isinstance(normalizer, torch.Tensor):
            return total / normalizer.clamp(min=1)
        return total / max(normalizer, 1)

    def mean(self, name: str, losses: torch.Tensor, among: torch.Tensor) -> None:
        """Keep the sum of the losses at the positions ``among``, for a mean that is no part of the loss."""
        total = losses.detach().masked_fill(~among, 0.0).sum()
        self.totals[name] = torch.stack([total.float(), among.sum().float()])

    def share(self, name: str, hits: torch.Tensor, among: torch.Tensor) -> None:
        """Keep how many of the positions ``among`` are hits."""
        self.totals[name] = torch.stack([(hits & among).sum(), among.sum()]).float()
