"""Multi-head attention with an optional relative bias, and the one function that chooses how it is computed.

Shapes: B batch, H heads, T query length, S key length, K head width, D hidden width.
Parameter names are those of the published checkpoints (``q``, ``k``, ``v``, ``o``, ``relative_attention_bias``).
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import Cache, EncoderDecoderCache

from .configuration import MetroT0Config
from .initialization import mark
from .row_attention import row_attention

# Below any score of a key in sight, by so much that the softmax gives exactly 0 (float16 holds it too).
_HIDDEN = -30000.0


def relative_buckets(
    distances: torch.Tensor, num_buckets: int, max_distance: int, max_positions: int
) -> torch.Tensor:
    """Row of the relative bias table for each distance (key position minus query position).

    COCO-LM's buckets, not T5's: exact up to a quarter of the table, then logarithmic rounded up, sign kept, and
    counted from the bucket of the farthest pair of ``max_positions`` positions, so that a model for short sequences
    starts at row 0 too (official ``modules/relative_positional_embedding.py``).

    Args:
        distances: any shape, integer.
        num_buckets: rows of the table; with an even number the last row stays unused.
        max_distance: distance whose bucket is the outermost.
        max_positions: positions that the official code tabulates.
    """
    # Filled there: a number that is copied to a GPU makes the host wait.
    farthest = torch.full((), max_positions - 1, device=distances.device)
    origin = _magnitude_buckets(farthest, num_buckets, max_distance)
    magnitudes = _magnitude_buckets(distances.abs(), num_buckets, max_distance)
    return (distances.sign() * magnitudes + origin).clamp(min=0)


def _magnitude_buckets(magnitudes: torch.Tensor, num_buckets: int, max_distance: int) -> torch.Tensor:
    half = num_buckets // 2
    exact = half // 2
    scale = (half - 1 - exact) / math.log((max_distance - 1) / exact)
    logarithmic = torch.log(magnitudes.clamp(min=exact).double() / exact) * scale
    # Rounding noise of the logarithm must not lift an exact boundary into the next bucket.
    outer = (exact + torch.ceil(logarithmic - 1e-9)).long().clamp(max=half - 1)
    return torch.where(magnitudes < exact, magnitudes, outer)


def at_positions(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    """States ``[B, T, D]`` at positions ``[B, M]`` of each row: ``[B, M, D]``."""
    return states.gather(1, positions.unsqueeze(-1).expand(-1, -1, states.shape[-1]))


def cyclic_distances(length: int, device: torch.device) -> torch.Tensor:
    """Distances 0 … length-1, then -length … -1: ``[2 * length]``, the order in which :func:`spread` wants values."""
    return torch.cat(
        [torch.arange(length, device=device), torch.arange(-length, 0, device=device)],
    )


def spread(values: torch.Tensor, length: int) -> torch.Tensor:
    """Values by distance to values by pair: ``[H, 2T]`` (see :func:`cyclic_distances`) to ``[1, H, T, T]``.

    Writes the row of distances T times and reads it with a stride one shorter, so that each row shifts by one: a
    sum in the backward pass where an indexed lookup would scatter T * T times.
    """
    heads = values.shape[0]
    rows = values.unsqueeze(1).expand(heads, length, 2 * length).reshape(heads, 2 * length * length)
    shifted = rows[:, : length * (2 * length - 1)].view(heads, length, 2 * length - 1)
    return shifted[:, :, :length].unsqueeze(0)


def attend(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    *,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
    need_weights: bool,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Softmax attention of queries that are already scaled, by the fastest way for the device at hand.

    On a CPU a step of generation, one query a row, takes the plain products (the fused kernel is slower there, in
    bfloat16 up to 7 times), and with gradients the batch goes through them a few rows at a time (see
    row_attention.py); everywhere else the fused kernel is used.

    Args:
        query: ``[B, H, T, K]``; key, value: ``[B, H, S, K]``.
        bias: ``[B or 1, H, T, S]`` added to the logits, or None.
        mask: boolean, broadcasts to ``[B, H, T, S]``, True where a query may attend, or None for everywhere.
        causal: query t sees keys up to t; only without a mask and with T = S.
        dropout: on the probabilities, 0 outside training.
        need_weights: return the probabilities too, which only the plain products have.

    Returns:
        ``[B, H, T, K]``, and the probabilities ``[B, H, T, S]`` or None.
    """
    if need_weights:
        return _attend_plainly(query, key, value, bias, mask, causal, dropout)
    if query.device.type == "cpu" and query.shape[2] == 1 and not torch.is_grad_enabled():
        return _attend_plainly(query, key, value, bias, mask, False, dropout)[0], None
    if query.device.type == "cpu" and torch.is_grad_enabled() and not torch.compiler.is_compiling():
        return row_attention(query, key, value, bias=bias, mask=mask, causal=causal, dropout=dropout), None
    if bias is not None:
        bias = bias.to(query.dtype)
        # A CPU's fused kernel takes heads of one width only: there the mask is written out after all.
        if mask is not None and mask.shape[1] == mask.shape[2] == 1 and query.device.type != "cpu":
            query, key, mask = _with_mask_as_feature(query, key, mask)
    fused_mask = mask if bias is None else bias
    if bias is not None and mask is not None:
        fused_mask = bias.masked_fill(~mask, torch.finfo(bias.dtype).min)
    output = F.scaled_dot_product_attention(
        query, key, value, attn_mask=fused_mask, dropout_p=dropout, is_causal=causal, scale=1.0
    )
    return output, None


def _with_mask_as_feature(
    query: torch.Tensor, key: torch.Tensor, mask: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, None]:
    """Queries and keys whose products are very negative where a key is hidden.

    A mask of keys ``[B, 1, 1, S]`` beside a bias ``[1, H, T, S]`` would have to be written out as ``[B, H, T, S]``, as
    large as all scores. One more feature, 1 in every query and the mask in the keys, says the same; the kernels want
    a multiple of 8 of them.
    """
    hidden = torch.zeros_like(mask, dtype=key.dtype).masked_fill_(~mask, _HIDDEN)
    hidden = hidden.transpose(2, 3).expand(-1, key.shape[1], -1, -1)
    query = F.pad(F.pad(query, (0, 1), value=1.0), (0, 7))
    return query, F.pad(torch.cat([key, hidden], dim=-1), (0, 7)), None


def _attend_plainly(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    bias: torch.Tensor | None,
    mask: torch.Tensor | None,
    causal: bool,
    dropout: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    scores = query @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias.to(scores.dtype)
    if causal:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
    precise = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(dim=-1, dtype=precise).to(value.dtype)
    if dropout > 0.0:
        weights = F.dropout(weights, p=dropout)
    return weights @ value, weights


class Attention(nn.Module):
    """Multi-head attention with biases everywhere and queries scaled by 1/sqrt(head width) after their bias.

    Args:
        config: the network's shape.
        dropout_rate: dropout on the attention probabilities.
        layer_index: which entry of a cache is this layer's.
        relative_bias: own a relative bias table (encoder self-attention only).
    """

    def __init__(
        self, config: MetroT0Config, dropout_rate: float, layer_index: int, relative_bias: bool = False
    ) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_heads
        self.head_width = config.d_kv
        self.dropout_rate = dropout_rate
        self.layer_index = layer_index
        width = config.d_model
        self.q = nn.Linear(width, width)
        self.k = nn.Linear(width, width)
        self.v = nn.Linear(width, width)
        self.o = nn.Linear(width, width)
        if relative_bias:
            self.relative_attention_bias = nn.Embedding(
                config.relative_attention_num_buckets, config.num_heads
            )
            mark(self.relative_attention_bias, "zero")

    def forward(
        self,
        hidden_states: torch.Tensor,
        key_value_states: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
        causal: bool = False,
        buckets: torch.Tensor | None = None,
        cache: Cache | None = None,
        need_weights: bool = False,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Attend from ``hidden_states`` to themselves, or to ``key_value_states`` (cross-attention).

        Args:
            hidden_states: ``[B, T, D]``.
            key_value_states: ``[B, S, D]`` or None.
            mask: boolean, broadcasts to ``[B, H, T, S]``; with ``causal`` it is applied beside the causal rule.
            causal: later keys are hidden; with a cache the queries are the last T positions.
            buckets: rows of the relative bias by distance, ``[2T]`` in the order of :func:`cyclic_distances`.
            cache: keys and values of earlier positions; cross-attention keys are computed once and kept there.
            need_weights: return the probabilities ``[B, H, T, S]`` too.
            positions: ``[B, M]``, the only positions whose output is wanted, in self-attention without a cache; None
                for all.

        Returns:
            ``[B, T, D]`` or ``[B, M, D]``, and the probabilities or None.
        """
        queries = hidden_states if positions is None else at_positions(hidden_states, positions)
        query = self._split(self.q(queries) * self.head_width**-0.5)
        past_length, key, value = self._keys_and_values(hidden_states, key_value_states, cache)
        length, key_length = query.shape[2], key.shape[2]
        if (
            causal
            and mask is None
            and length == 1
            and isinstance(past_length, int)
            and key_length == past_length + 1
        ):
            causal = False  # a step of generation: the last position sees all
        elif causal and (mask is not None or length != key_length or positions is not None):
            if positions is None:
                positions_of_queries = torch.arange(length, device=query.device).unsqueeze(0) + past_length
            else:
                positions_of_queries = positions
            mask = self._with_causal_rule(mask, positions_of_queries, key_length)
            causal = False
        bias = None
        if buckets is not None:
            bias = spread(self.relative_attention_bias(buckets).t(), key_length)
            if positions is not None:
                bias = bias[0, :, positions].transpose(0, 1)
        output, weights = attend(
            query,
            key,
            value,
            bias=bias,
            mask=mask,
            causal=causal,
            dropout=self.dropout_rate if self.training else 0.0,
            need_weights=need_weights or self.config._attn_implementation == "eager",
        )
        return self.o(output.transpose(1, 2).flatten(2)), weights if need_weights else None

    def _split(self, projected: torch.Tensor) -> torch.Tensor:
        batch, length, _ = projected.shape
        return projected.view(batch, length, self.num_heads, self.head_width).transpose(1, 2)

    def _keys_and_values(
        self, hidden_states: torch.Tensor, key_value_states: torch.Tensor | None, cache: Cache | None
    ) -> tuple[int, torch.Tensor, torch.Tensor]:
        is_cross = key_value_states is not None
        if cache is None:
            states = key_value_states if is_cross else hidden_states
            return 0, self._split(self.k(states)), self._split(self.v(states))
        assert isinstance(cache, EncoderDecoderCache), "the decoder keeps self- and cross-attention apart"
        store: Any = cache.self_attention_cache
        if is_cross:
            store = cache.cross_attention_cache
            if cache.is_updated.get(self.layer_index):
                layer = store.layers[self.layer_index]
                return 0, layer.keys, layer.values
            cache.is_updated[self.layer_index] = True
        past_length = store.get_seq_length(self.layer_index)
        states = key_value_states if is_cross else hidden_states
        key, value = store.update(self._split(self.k(states)), self._split(self.v(states)), self.layer_index)
        return past_length, key, value

    @staticmethod
    def _with_causal_rule(
        mask: torch.Tensor | None, positions: torch.Tensor, key_length: int
    ) -> torch.Tensor:
        """The mask, and keys only up to the queries' positions ``[B or 1, T]``: ``[B or 1, 1, T, S]``."""
        keys = torch.arange(key_length, device=positions.device)
        visible = (keys <= positions.unsqueeze(-1)).unsqueeze(1)
        return visible if mask is None else mask & visible
