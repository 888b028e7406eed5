"""How far the detection head's probabilities are to be believed: counts in ten bins, as totals of a metric each.

    totals = calibration_totals(logits, replaced, counted)       # on the device, nothing waits for it

Of the positions whose probability of "replaced" lies in bin k, from k / 10 to (k + 1) / 10:

    rtd_bin_share_k      their share of all positions
    rtd_predicted_k      their mean probability
    rtd_observed_k       the share of them that was replaced

A head that can be believed has predicted = observed in every bin. The sum over the bins of share times the distance of
the two is the expected calibration error (Naeini et al., 2015; Guo et al., arXiv 1706.04599, section 2).
"""

from __future__ import annotations

import torch

BINS = 10
BIN_METRICS = ("rtd_bin_share", "rtd_predicted", "rtd_observed")


def calibration_totals(
    logits: torch.Tensor, replaced: torch.Tensor, counted: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Sums and counts of every bin.

    Args:
        logits: float32 or better, any shape, of "replaced".
        replaced: bool of the same shape, what is true.
        counted: bool of the same shape, which positions count.

    Returns:
        Metric name -> ``[2]`` of (sum, count), float32, as ``ObjectiveOutput.totals`` has them.
    """
    probabilities = logits.detach().sigmoid()
    bins = (probabilities * BINS).long().clamp(0, BINS - 1)
    bins = bins.masked_fill(~counted, BINS).unsqueeze(-1)
    inside = (bins == torch.arange(BINS, device=bins.device)).flatten(0, -2)
    counts = inside.sum(dim=0).float()
    predicted = torch.where(inside, probabilities.reshape(-1, 1), 0.0).sum(dim=0).float()
    observed = (inside & replaced.reshape(-1, 1)).sum(dim=0).float()
    everything = counts.sum()
    totals: dict[str, torch.Tensor] = {}
    for index in range(BINS):
        values = (
            (counts[index], everything),
            (predicted[index], counts[index]),
            (observed[index], counts[index]),
        )
        for name, pair in zip(BIN_METRICS, values, strict=True):
            totals[f"{name}_{index}"] = torch.stack(pair)
    return totals
