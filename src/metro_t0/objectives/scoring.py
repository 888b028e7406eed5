"""What the logits of some tokens say: each target's loss, whether it is the likeliest token, and a sample.

    scores = score_tokens(logits, targets, draws=draws)
    scores.losses.sum().backward()

Loss, accuracy and sample need the same softmax: on a CPU one pass over a few rows at a time, while they are in the
cache, gives all three and what the backward pass needs. Elsewhere torch's own kernels do.
Shapes: N tokens, V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F

# Rows of logits worked on at once, in bytes of float32: they fit the cache of a core or two.
_CHUNK_BYTES = 4 << 20


@dataclass(frozen=True)
class TokenScores:
    """Scores of N tokens.

    Attributes:
        losses: ``[N]``, cross-entropy of each target, at least float32.
        hits: bool ``[N]``, no token is likelier than the target.
        samples: ``[N]`` ids drawn from softmax(logits), or None where no draws were given.
    """

    losses: torch.Tensor
    hits: torch.Tensor
    samples: torch.Tensor | None


def score_tokens(
    logits: torch.Tensor, targets: torch.Tensor, draws: torch.Tensor | None = None
) -> TokenScores:
    """Scores of N tokens; softmax, loss and sampling compute in float32 at least.

    Args:
        logits: ``[N, V]``, the output of a projection; on a CPU they are overwritten.
        targets: ``[N]`` ids.
        draws: ``[N]`` in [0, 1), for a sample a token.
    """
    if logits.device.type == "cpu" and not torch.compiler.is_compiling():
        losses, hits, samples = _ScoresInPlace.apply(logits, targets, draws)
        return TokenScores(losses, hits, samples)
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    losses = F.cross_entropy(precise, targets, reduction="none")
    with torch.no_grad():
        hits = logits.gather(1, targets.unsqueeze(1)).squeeze(1) >= logits.amax(dim=-1)
        samples = None if draws is None else sample_rows(logits, draws)
    return TokenScores(losses, hits, samples)


def sample_rows(logits: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """One token a row from softmax(logits) in float32, by its cumulative sum and one uniform number a row.

    Args:
        logits: ``[N, V]``.
        draws: ``[N]`` in [0, 1).

    Returns:
        Token ids ``[N]``.
    """
    precise = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _sample(precise.softmax(dim=-1), draws)


def _sample(weights: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """One column a row, in proportion to non-negative weights ``[n, V]``, which need not sum to 1."""
    cumulative = weights.cumsum(dim=-1)
    # The last sum is exact only up to rounding; scaling the draw by it keeps every row inside the vocabulary.
    thresholds = draws.to(cumulative.dtype).unsqueeze(1) * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, thresholds, right=True).squeeze(1)
    return tokens.clamp(max=weights.shape[1] - 1)


class _ScoresInPlace(torch.autograd.Function):
    """See :func:`score_tokens`; the probabilities take the logits' place and are kept for the backward pass."""

    @staticmethod
    def forward(
        ctx: Any, logits: torch.Tensor, targets: torch.Tensor, draws: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor | None]:
        number, vocabulary = logits.shape
        precise = torch.promote_types(logits.dtype, torch.float32)
        losses = logits.new_empty(number, dtype=precise)
        hits = logits.new_empty(number, dtype=torch.bool)
        samples = None if draws is None else targets.new_empty(number)
        at_targets = targets.unsqueeze(1)
        probabilities = logits.detach()
        size = max(1, _CHUNK_BYTES // (4 * vocabulary))
        for start in range(0, number, size):
            rows = slice(start, start + size)
            largest = probabilities[rows].amax(dim=-1, keepdim=True)
            target = probabilities[rows].gather(1, at_targets[rows])
            hits[rows] = (target >= largest).squeeze(1)
            weights = (probabilities[rows].to(precise) - largest.to(precise)).exp_()
            total = weights.sum(dim=-1, keepdim=True)
            losses[rows] = (total.log() - (target.to(precise) - largest.to(precise))).squeeze(1)
            if draws is not None and samples is not None:
                samples[rows] = _sample(weights, draws[rows])
            torch.mul(weights, total.reciprocal(), out=weights)
            probabilities[rows] = weights
        ctx.save_for_backward(probabilities, targets)
        ctx.mark_non_differentiable(hits, *([] if samples is None else [samples]))
        return losses, hits, samples

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor, *_: Any) -> tuple[torch.Tensor, None, None]:
        probabilities, targets = ctx.saved_tensors
        factors = gradient.to(probabilities.dtype).unsqueeze(1)
        by_logit = probabilities * factors
        by_logit.scatter_add_(1, targets.unsqueeze(1), -factors)
        return by_logit, None, None
