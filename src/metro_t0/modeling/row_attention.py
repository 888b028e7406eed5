"""Attention with gradients on a CPU: a few rows of the batch at a time, so that their scores never leave the cache.

    output = row_attention(query, key, value, bias=bias, mask=mask, causal=False, dropout=0.1)

The matrix products are the library's; what is ours is the order. The fused kernel of torch falls back to a plain
backward where a bias needs a gradient, and draws dropout one number at a time: on the processors that were measured it
takes three times as long without a bias, five to six times with one or with dropout (docs/performance.md).
Shapes: B batch, H heads, T query length, S key length, K head width; n rows of the batch at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch

from .dropout import drop_signs

# Scores of so many bytes are worked on at once: they and as many gradients fit the cache of a core or two.
_CHUNK_BYTES = 8 << 20
# A causal query block attends to no key behind it: the smaller the blocks, the less is computed in vain.
_CAUSAL_BLOCK = 128


def row_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
) -> torch.Tensor:
    """Softmax attention of queries that are already scaled; the softmax computes in float32 whatever the type.

    Args:
        query: ``[B, H, T, K]``; key, value: ``[B, H, S, K]``.
        bias: ``[B or 1, H or 1, T or 1, S]``, added to the scores, or None.
        mask: boolean ``[B or 1, H or 1, T or 1, S]``, True where a query may attend, or None for everywhere.
        causal: query t sees keys up to t; T = S.
        dropout: share of the probabilities set to 0, the rest scaled up.

    Returns:
        ``[B, H, T, K]``.
    """
    hiding = None
    if mask is not None:
        # As large as the mask, which is one row of keys for all heads and queries where it tells padding.
        hiding = torch.zeros_like(mask, dtype=query.dtype).masked_fill_(~mask, torch.finfo(query.dtype).min)
    output: torch.Tensor = _RowAttention.apply(query, key, value, bias, hiding, causal, dropout)
    return output


def _chunks(batch: int, heads: int, length: int, key_length: int, item: int) -> Iterator[slice]:
    """Rows of the batch that are worked on together."""
    most = max(1, _CHUNK_BYTES // max(1, heads * length * key_length * item))
    for start in range(0, batch, most):
        yield slice(start, min(start + most, batch))


def _query_blocks(length: int, causal: bool) -> list[tuple[slice, int]]:
    """Blocks of queries, and how many keys each can see; one block of all when every key is in sight."""
    if not causal or length < 2 * _CAUSAL_BLOCK:
        return [(slice(0, length), length)]
    starts = range(0, length, _CAUSAL_BLOCK)
    return [(slice(start, end), end) for start in starts for end in [min(start + _CAUSAL_BLOCK, length)]]


def _part(tensor: torch.Tensor, rows: slice) -> torch.Tensor:
    """Some rows of ``[B, H, L, K]`` as a batch of matrices ``[n * H, L, K]``."""
    return tensor[rows].flatten(0, 1)


def _some(tensor: torch.Tensor, rows: slice, queries: slice, keys: int) -> torch.Tensor:
    """The part of ``[B, H, T, S]`` that belongs to some rows and queries; dimensions of size 1 stay."""
    if tensor.shape[0] > 1:
        tensor = tensor[rows]
    if tensor.shape[2] > 1:
        tensor = tensor[:, :, queries]
    return tensor[..., :keys]


class _RowAttention(torch.autograd.Function):
    """See :func:`row_attention`.

    The probabilities are kept for the backward pass; those that dropout took carry a minus sign, so that one tensor
    tells both.
    """

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        bias: torch.Tensor | None,
        hiding: torch.Tensor | None,
        causal: bool,
        dropout: float,
    ) -> torch.Tensor:
        batch, heads, length, _ = query.shape
        output = torch.empty_like(query)
        scale = 1.0 / (1.0 - dropout)
        added = [tensor.to(query.dtype) for tensor in (bias, hiding) if tensor is not None]
        kept: list[torch.Tensor] = []
        for rows in _chunks(batch, heads, length, key.shape[2], query.element_size()):
            q, k, v = _part(query, rows), _part(key, rows), _part(value, rows)
            for queries, keys in _query_blocks(length, causal):
                keys = keys if causal else key.shape[2]
                scores = _scores(q[:, queries], k[:, :keys], added, rows, queries, heads, causal)
                probabilities = torch._softmax(scores, -1, False)
                if dropout > 0.0:
                    used = torch.clamp(drop_signs(probabilities, dropout), min=0.0, out=scores)
                    part = torch.bmm(used, v[:, :keys]).mul_(scale)
                else:
                    part = torch.bmm(probabilities, v[:, :keys])
                output[rows, :, queries] = part.unflatten(0, (-1, heads))
                kept.append(probabilities)
        ctx.save_for_backward(query, key, value, bias, *kept)
        ctx.causal, ctx.dropout = causal, dropout
        return output

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, bias, *kept = ctx.saved_tensors
        batch, heads, length, _ = query.shape
        to_query, to_key, to_value = (torch.empty_like(tensor) for tensor in (query, key, value))
        to_bias = None
        if ctx.needs_input_grad[3]:
            to_bias = torch.zeros_like(bias, dtype=torch.promote_types(bias.dtype, torch.float32))
        scale = 1.0 / (1.0 - ctx.dropout)
        index = 0
        for rows in _chunks(batch, heads, length, key.shape[2], query.element_size()):
            q, k, v, g = _part(query, rows), _part(key, rows), _part(value, rows), _part(gradient, rows)
            blocks = _query_blocks(length, ctx.causal)
            if len(blocks) > 1:
                k_sum, v_sum = torch.zeros_like(k), torch.zeros_like(v)
            for queries, keys in blocks:
                keys = keys if ctx.causal else key.shape[2]
                signed = kept[index]
                index += 1
                g_block = g[:, queries]
                if ctx.dropout > 0.0:
                    used, probabilities = signed.relu(), signed.abs()
                    g_block = g_block * scale
                else:
                    used = probabilities = signed
                by_value = torch.bmm(used.transpose(1, 2), g_block)
                by_probability = torch.bmm(g_block, v[:, :keys].transpose(1, 2))
                if ctx.dropout > 0.0:
                    torch.ops.aten.threshold_backward.grad_input(
                        by_probability, signed, 0, grad_input=by_probability
                    )
                by_score = torch._softmax_backward_data(by_probability, probabilities, -1, signed.dtype)
                to_query[rows, :, queries] = torch.bmm(by_score, k[:, :keys]).unflatten(0, (-1, heads))
                by_key = torch.bmm(by_score.transpose(1, 2), q[:, queries])
                if len(blocks) > 1:
                    k_sum[:, :keys] += by_key
                    v_sum[:, :keys] += by_value
                else:
                    k_sum, v_sum = by_key, by_value
                if to_bias is not None:
                    _accumulate(to_bias, by_score.unflatten(0, (-1, heads)), rows, queries)
            to_key[rows], to_value[rows] = (total.unflatten(0, (-1, heads)) for total in (k_sum, v_sum))
        if to_bias is not None:
            to_bias = to_bias.to(bias.dtype)
        return to_query, to_key, to_value, to_bias, None, None, None


def _scores(
    query: torch.Tensor,
    key: torch.Tensor,
    added: list[torch.Tensor],
    rows: slice,
    queries: slice,
    heads: int,
    causal: bool,
) -> torch.Tensor:
    """Scores of some rows and queries ``[n * H, t, keys]``, with all that is added to them."""
    if added:
        scores = query.new_empty(len(query), query.shape[1], key.shape[1])
        by_head = scores.unflatten(0, (-1, heads))
        first, *more = (_some(tensor, rows, queries, key.shape[1]) for tensor in added)
        by_head.copy_(first)
        for tensor in more:
            by_head.add_(tensor)
        scores.baddbmm_(query, key.transpose(1, 2))
    else:
        scores = torch.bmm(query, key.transpose(1, 2))
    if causal:
        # Within the block alone: keys before it are in every query's sight.
        corner = scores[:, :, queries.start :]
        hidden = corner.new_full(corner.shape[1:], -math.inf).triu(1)
        corner.add_(hidden)
    return scores


def _accumulate(total: torch.Tensor, gradient: torch.Tensor, rows: slice, queries: slice) -> None:
    """Add the gradient of some scores ``[n, H, t, keys]`` to that of what was added to them."""
    target = _some(total, rows, queries, gradient.shape[3])
    dimensions = [d for d in range(3) if total.shape[d] == 1 and gradient.shape[d] > 1]
    if dimensions:
        gradient = gradient.sum(dim=dimensions, keepdim=True, dtype=total.dtype)
    target += gradient
