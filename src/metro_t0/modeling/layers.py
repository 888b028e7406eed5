"""Post-LayerNorm transformer blocks: each sub-layer is ``LayerNorm(x + dropout(f(x)))``.

Module names (``layer.0.SelfAttention``, ``DenseReluDense.wi``, …) are those of the published checkpoints, so that a
state dictionary is the published format and no key is ever renamed.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention import Attention, at_positions
from .configuration import MetroT0Config
from .dropout import dropout

Weights = torch.Tensor | None


class FeedForward(nn.Module):
    """Linear, ReLU, linear, both with biases; no dropout between them (fairseq's activation dropout is 0)."""

    def __init__(self, config: MetroT0Config) -> None:
        super().__init__()
        self.wi = nn.Linear(config.d_model, config.d_ff)
        self.wo = nn.Linear(config.d_ff, config.d_model)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[..., hidden]`` to ``[..., hidden]``."""
        return self.wo(F.relu(self.wi(hidden_states)))


class _SubLayer(nn.Module):
    """What every sub-layer does with its output: dropout, residual, LayerNorm."""

    def __init__(self, config: MetroT0Config, dropout_rate: float) -> None:
        super().__init__()
        self.dropout_rate = dropout_rate
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def add_and_normalize(self, residual: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        states = residual + dropout(output, self.dropout_rate, self.training)
        # Statistics are float32 whatever the type; under autocast a GPU gives float32 back.
        return self.layer_norm(states).to(states.dtype)


class SelfAttentionLayer(_SubLayer):
    def __init__(
        self, config: MetroT0Config, dropout_rate: float, layer_index: int, relative_bias: bool
    ) -> None:
        super().__init__(config, dropout_rate)
        self.SelfAttention = Attention(config, dropout_rate, layer_index, relative_bias)

    def forward(
        self, hidden_states: torch.Tensor, positions: torch.Tensor | None = None, **attention: Any
    ) -> tuple[torch.Tensor, Weights]:
        output, weights = self.SelfAttention(hidden_states, positions=positions, **attention)
        residual = hidden_states if positions is None else at_positions(hidden_states, positions)
        return self.add_and_normalize(residual, output), weights


class CrossAttentionLayer(_SubLayer):
    def __init__(self, config: MetroT0Config, dropout_rate: float, layer_index: int) -> None:
        super().__init__(config, dropout_rate)
        self.EncDecAttention = Attention(config, dropout_rate, layer_index)

    def forward(self, hidden_states: torch.Tensor, **attention: Any) -> tuple[torch.Tensor, Weights]:
        output, weights = self.EncDecAttention(hidden_states, **attention)
        return self.add_and_normalize(hidden_states, output), weights


class FeedForwardLayer(_SubLayer):
    def __init__(self, config: MetroT0Config, dropout_rate: float) -> None:
        super().__init__(config, dropout_rate)
        self.DenseReluDense = FeedForward(config)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return self.add_and_normalize(hidden_states, self.DenseReluDense(hidden_states))


class EncoderBlock(GradientCheckpointingLayer):
    """Self-attention with a relative bias of its own, then feed-forward (main and auxiliary encoder)."""

    def __init__(self, config: MetroT0Config, dropout_rate: float, layer_index: int) -> None:
        super().__init__()
        self.layer = nn.ModuleList(
            [
                SelfAttentionLayer(config, dropout_rate, layer_index, relative_bias=True),
                FeedForwardLayer(config, dropout_rate),
            ]
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        mask: torch.Tensor | None,
        buckets: torch.Tensor,
        need_weights: bool = False,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Weights]:
        """``[B, T, D]`` to ``[B, T, D]``, or to ``[B, M, D]`` at positions ``[B, M]`` alone, and the attention
        probabilities where wanted."""
        attention, feed_forward = self.layer
        hidden_states, weights = attention(
            hidden_states, positions, mask=mask, buckets=buckets, need_weights=need_weights
        )
        return feed_forward(hidden_states), weights


class DecoderBlock(GradientCheckpointingLayer):
    """Causal self-attention without a relative bias, cross-attention, then feed-forward."""

    def __init__(self, config: MetroT0Config, layer_index: int) -> None:
        super().__init__()
        rate = config.dropout_rate
        self.layer = nn.ModuleList(
            [
                SelfAttentionLayer(config, rate, layer_index, relative_bias=False),
                CrossAttentionLayer(config, rate, layer_index),
                FeedForwardLayer(config, rate),
            ]
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        mask: torch.Tensor | None,
        causal: bool,
        encoder_mask: torch.Tensor | None,
        cache: Cache | None = None,
        need_weights: bool = False,
        positions: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, Weights, Weights]:
        """``[B, T, D]`` to ``[B, T, D]``, or to ``[B, M, D]`` at positions ``[B, M]`` alone; the self- and the
        cross-attention probabilities where wanted."""
        attention, cross_attention, feed_forward = self.layer
        hidden_states, weights = attention(
            hidden_states, positions, mask=mask, causal=causal, cache=cache, need_weights=need_weights
        )
        hidden_states, cross_weights = cross_attention(
            hidden_states,
            key_value_states=encoder_hidden_states,
            mask=encoder_mask,
            cache=cache,
            need_weights=need_weights,
        )
        return feed_forward(hidden_states), weights, cross_weights
