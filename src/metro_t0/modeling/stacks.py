"""The encoder and decoder stacks: embeddings, blocks, and the collection of what callers want to see.

The same :class:`Encoder` serves the main model and, with its own depth and dropout, the auxiliary one.
Shapes: B batch, T sequence length, S encoder length, D hidden width, V vocabulary.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers.cache_utils import Cache, DynamicCache, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions

from .attention import cyclic_distances, relative_buckets
from .configuration import MetroT0Config
from .dropout import dropout
from .initialization import mark
from .layers import DecoderBlock, EncoderBlock


def computed_in(tensor: torch.Tensor) -> torch.dtype:
    """The type in which layers compute: autocast's where it is on, so that states are cast once, not at every use."""
    device = tensor.device.type
    # The meta device has no autocast, and asking whether it is on would be an error.
    if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
        return torch.get_autocast_dtype(device)
    return tensor.dtype


class _Stack(nn.Module):
    """Token and learned position embeddings under one LayerNorm, which both stacks begin with."""

    main_input_name = "input_ids"

    def __init__(self, config: MetroT0Config, dropout_rate: float) -> None:
        super().__init__()
        self.config = config
        self.dropout_rate = dropout_rate
        padding = config.pad_token_id
        self.embed_tokens = nn.Embedding(config.vocab_size, config.d_model, padding_idx=padding)
        mark(self.embed_tokens, "vocabulary")
        # Row `padding` stands for padding, so the first real token uses row padding + 1 (official ``utils.py``).
        self.pos_embed = nn.Embedding(config.num_positions + padding + 1, config.d_model, padding_idx=padding)
        self.first_layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)

    def embed(self, token_embeddings: torch.Tensor, position_rows: torch.Tensor) -> torch.Tensor:
        """``[B, T, D]`` and rows ``[B or 1, T]`` of the position table to ``[B, T, D]``."""
        hidden_states = self.first_layer_norm(token_embeddings + self.pos_embed(position_rows))
        return dropout(hidden_states.to(computed_in(hidden_states)), self.dropout_rate, self.training)

    def check_length(self, length: int) -> None:
        """Raise a ``ValueError`` where so many tokens find no position."""
        if length > self.config.num_positions:
            raise ValueError(
                f"a sequence of {length} tokens is longer than the {self.config.num_positions} positions of this "
                "model: truncate the input"
            )

    def _rows_of_real_tokens(self, real: torch.Tensor) -> torch.Tensor:
        padding = self.config.pad_token_id
        return (real.cumsum(dim=1) * real + padding).long()


class Encoder(_Stack):
    """Bidirectional stack with a per-layer relative bias on raw array positions."""

    def __init__(self, config: MetroT0Config, num_layers: int, dropout_rate: float) -> None:
        super().__init__(config, dropout_rate)
        self.block = nn.ModuleList([EncoderBlock(config, dropout_rate, i) for i in range(num_layers)])

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutput:
        """Encode a batch.

        Args:
            input_ids: ``[B, T]``, or ``inputs_embeds`` ``[B, T, D]`` in its place.
            attention_mask: ``[B, T]``, 0 on padding; None means that nothing is padding.
            output_attentions: return each layer's probabilities ``[B, H, T, T]``.
            output_hidden_states: return the embeddings and each layer's output ``[B, T, D]``.
            positions: ``[B, M]``, the only positions whose last state is wanted: ``[B, M, D]``; None for all. The last
                layer computes nothing else.

        Raises:
            ValueError: neither or both of ids and embeddings, or a sequence longer than the position table.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either input_ids or inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        length = inputs_embeds.shape[1]
        self.check_length(length)
        mask, rows = self._mask_and_rows(attention_mask, length, inputs_embeds.device)
        hidden_states = self.embed(inputs_embeds, rows)
        if attention_mask is not None:
            hidden_states = hidden_states * attention_mask.unsqueeze(-1).to(hidden_states.dtype)
        buckets = relative_buckets(
            cyclic_distances(length, hidden_states.device),
            self.config.relative_attention_num_buckets,
            self.config.relative_attention_max_distance,
            self.config.max_positions,
        )
        all_states, all_weights = [hidden_states], []
        for index, block in enumerate(self.block):
            wanted = positions if index == len(self.block) - 1 else None
            hidden_states, weights = block(hidden_states, mask, buckets, bool(output_attentions), wanted)
            all_states.append(hidden_states)
            all_weights.append(weights)
        return BaseModelOutput(
            last_hidden_state=hidden_states,
            hidden_states=tuple(all_states) if output_hidden_states else None,
            attentions=tuple(all_weights) if output_attentions else None,
        )

    def _mask_and_rows(
        self, attention_mask: torch.Tensor | None, length: int, device: torch.device
    ) -> tuple[torch.Tensor | None, torch.Tensor]:
        if attention_mask is None:
            rows = torch.arange(length, device=device).unsqueeze(0) + self.config.pad_token_id + 1
            return None, rows
        real = attention_mask.bool()
        return real[:, None, None, :], self._rows_of_real_tokens(real.long())


class Decoder(_Stack):
    """Causal stack with cross-attention and no relative bias."""

    def __init__(self, config: MetroT0Config) -> None:
        super().__init__(config, config.dropout_rate)
        self.block = nn.ModuleList([DecoderBlock(config, i) for i in range(config.num_decoder_layers)])

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        encoder_hidden_states: torch.Tensor | None = None,
        encoder_attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        positions: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPastAndCrossAttentions:
        """Decode a batch against the encoder's states; cross-attention keys and values are computed once a call.

        Args:
            input_ids: ``[B, T]``, or ``inputs_embeds`` ``[B, T, D]`` in its place.
            attention_mask: ``[B, past + T]``, 0 on padding, beside the causal rule; or boolean ``[B or 1, 1, T, T]``,
                True where a query may attend, in place of the causal rule; or None for the causal rule alone.
            encoder_hidden_states: ``[B, S, D]``.
            encoder_attention_mask: ``[B, S]``, 0 on padding, or None.
            position_ids: ``[B or 1, T]``, counted from 0, -1 on padding; by default in order, padding left out.
            past_key_values: keys and values of earlier positions; filled further by this call.
            use_cache: start a cache where none is given.
            output_attentions: return each layer's self- and cross-attention probabilities.
            output_hidden_states: return the embeddings and each layer's output ``[B, T, D]``.
            positions: as in :meth:`Encoder.forward`; not with a cache.

        Raises:
            ValueError: no encoder states, neither or both of ids and embeddings, or a sequence that is too long.
        """
        if encoder_hidden_states is None:
            raise ValueError("the decoder needs encoder_hidden_states")
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("give either decoder_input_ids or decoder_inputs_embeds")
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if use_cache and past_key_values is None:
            past_key_values = EncoderDecoderCache(DynamicCache(), DynamicCache())
        past_length = 0 if past_key_values is None else past_key_values.get_seq_length()
        rows = self._position_rows(input_ids, inputs_embeds, attention_mask, position_ids, past_length)
        hidden_states = self.embed(inputs_embeds, rows)
        replaces_causal_rule = attention_mask is not None and attention_mask.dim() == 4
        mask = attention_mask
        if attention_mask is not None and not replaces_causal_rule:
            mask = attention_mask[:, None, None, :].bool()
        elif mask is not None and mask.is_floating_point():
            mask = mask >= 0  # what transformers makes for a static cache: 0 or a very negative number to add
        encoder_mask = None
        if encoder_attention_mask is not None:
            encoder_mask = encoder_attention_mask[:, None, None, :].bool()
        all_states, all_weights, all_cross_weights = [hidden_states], [], []
        for index, block in enumerate(self.block):
            hidden_states, weights, cross_weights = block(
                hidden_states,
                encoder_hidden_states,
                mask,
                not replaces_causal_rule,
                encoder_mask,
                past_key_values,
                bool(output_attentions),
                positions if index == len(self.block) - 1 else None,
            )
            all_states.append(hidden_states)
            all_weights.append(weights)
            all_cross_weights.append(cross_weights)
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=hidden_states,
            past_key_values=past_key_values,
            hidden_states=tuple(all_states) if output_hidden_states else None,
            attentions=tuple(all_weights) if output_attentions else None,
            cross_attentions=tuple(all_cross_weights) if output_attentions else None,
        )

    def _position_rows(
        self,
        input_ids: torch.Tensor | None,
        inputs_embeds: torch.Tensor,
        attention_mask: torch.Tensor | None,
        position_ids: torch.Tensor | None,
        past_length: int,
    ) -> torch.Tensor:
        length = inputs_embeds.shape[1]
        first = self.config.pad_token_id + 1
        if position_ids is not None:
            return position_ids + first
        if isinstance(past_length, int):
            self.check_length(past_length + length)
        if attention_mask is not None and attention_mask.dim() == 2:
            return self._rows_of_real_tokens(attention_mask.bool().long())[:, -length:]
        if input_ids is not None and isinstance(past_length, int) and past_length == 0:
            return self._rows_of_real_tokens(input_ids.ne(self.config.pad_token_id).long())
        return torch.arange(length, device=inputs_embeds.device).unsqueeze(0) + past_length + first
