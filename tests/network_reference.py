"""The METRO-T0 networks and losses once more, in plain float64 numpy, to hold the package against.

Written from the method's description alone, row by row and head by head, and shares no code with the package:

    reference = Reference({name: array}, config)
    hidden = reference.encode(ids)[-1]
    losses = reference.losses(original, masked, mask, corrupted, Settings(gate=True))

Parameters are read by their canonical name only: a shared one under the main model's name, so that a tensor that is
shared where it should not be, or the other way round, is missed here.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

Array = np.ndarray


@dataclass(frozen=True)
class Settings:
    """The official options: ``masked_positions_only`` (none, lm, both), ``weighted_lm_loss`` and the two weights."""

    positions: str = "lm"
    gated: bool = False
    lm_weight: float = 1.0
    rtd_weight: float = 50.0
    short_target: bool = False


@dataclass(frozen=True)
class Losses:
    """``objective`` is what is differentiated; the parts are means over their own positions; ``gate`` is ``[B, T]``."""

    objective: float
    auxiliary: float
    rtd: float
    lm: float
    gate: Array


def bucket(distance: int, buckets: int, max_distance: int) -> int:
    """COCO-LM's bucket of a distance's magnitude."""
    half = buckets // 2
    exact = half // 2
    if distance < exact:
        return distance
    share = math.log(distance / exact) / math.log((max_distance - 1) / exact)
    return min(half - 1, exact + math.ceil(round(share * (half - 1 - exact), 9)))


def bucket_table(positions: int, buckets: int, max_distance: int) -> Array:
    """``[query, key]`` row of the bias table; the official code shifts its tabulated buckets to start at 0."""
    table = np.zeros((positions, positions), dtype=np.int64)
    for query in range(positions):
        for key in range(positions):
            sign = (key > query) - (key < query)
            table[query, key] = sign * bucket(abs(key - query), buckets, max_distance)
    return table - table.min()


def softmax(scores: Array) -> Array:
    powers = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def log_probability(logits: Array, token: int) -> float:
    highest = logits.max()
    return float(logits[token] - highest - np.log(np.exp(logits - highest).sum()))


def binary_cross_entropy(logit: float, label: bool) -> float:
    return float(np.logaddexp(0.0, -logit if label else logit))


class Reference:
    """Main model, auxiliary model and detection head of one set of parameters."""

    def __init__(self, parameters: Mapping[str, Array], config: Any) -> None:
        self.parameters = parameters
        self.config = config
        self.pad = config.pad_token_id
        self.mask_token = config.vocab_size - config.num_sentinel_tokens
        self.table = bucket_table(
            config.max_positions,
            config.relative_attention_num_buckets,
            config.relative_attention_max_distance,
        )

    def encode(self, ids: Array, stack: str = "encoder") -> list[Array]:
        """States after the embedding and after each layer, ``[B, S, D]`` each."""
        depth = self.config.num_layers if stack == "encoder" else self.config.num_auxiliary_layers
        real = ids != self.pad
        states = self._embed(stack, ids) * real[:, :, None]
        collected = [states]
        for layer in range(depth):
            name = f"{stack}.block.{layer}.layer"
            bias = self.parameters[f"{name}.0.SelfAttention.relative_attention_bias.weight"]
            attended = self._attend(f"{name}.0.SelfAttention", states, states, real, bias=bias)
            states = self._norm(f"{name}.0.layer_norm", states + attended)
            states = self._feed_forward(f"{name}.1", states)
            collected.append(states)
        return collected

    def decode(self, ids: Array, encoded: Array, encoder_real: Array) -> list[Array]:
        """States after the embedding and after each layer, ``[B, T, D]`` each."""
        states = self._embed("decoder", ids)
        real = ids != self.pad
        collected = [states]
        for layer in range(self.config.num_decoder_layers):
            name = f"decoder.block.{layer}.layer"
            attended = self._attend(f"{name}.0.SelfAttention", states, states, real, causal=True)
            states = self._norm(f"{name}.0.layer_norm", states + attended)
            attended = self._attend(f"{name}.1.EncDecAttention", states, encoded, encoder_real)
            states = self._norm(f"{name}.1.layer_norm", states + attended)
            states = self._feed_forward(f"{name}.2", states)
            collected.append(states)
        return collected

    def project(self, states: Array) -> Array:
        """Tied, unscaled, without a bias."""
        return np.einsum("...d,vd->...v", states, self.parameters["shared.weight"])

    def auxiliary_logits(self, ids: Array) -> Array:
        """``[B, T, V]``, at every position."""
        states = self.encode(ids, "auxiliary.encoder")[-1]
        states = np.maximum(self._linear("auxiliary.head.dense", states), 0.0)
        states = self._norm("auxiliary.head.layer_norm", states)
        embedding = self.parameters[self._canonical("auxiliary.encoder", "embed_tokens.weight")]
        return np.einsum("btd,vd->btv", states, embedding) + self.parameters["auxiliary.head.bias"]

    def detect(self, states: Array) -> Array:
        """Detection logits ``[B, T]``."""
        if self.config.rtd_head == "roberta":
            states = np.maximum(self._linear("rtd_head.dense", states), 0.0)
            states = self._norm("rtd_head.layer_norm", states)
        return self._linear("rtd_head.out", states)[..., 0]

    def losses(
        self,
        original: Array,
        masked: Array,
        mask: Array,
        corrupted: Array,
        settings: Settings,
        gate: Array | None = None,
    ) -> Losses:
        """The official criterion, sum by sum; ``gate`` fixes the gate's values, through which no gradient flows."""
        rows, length = original.shape
        places = [(b, t) for b in range(rows) for t in range(length) if mask[b, t]]
        real = [(b, t) for b in range(rows) for t in range(length) if original[b, t] != self.pad]
        auxiliary = self.auxiliary_logits(masked)
        auxiliary_sum = -sum(log_probability(auxiliary[b, t], original[b, t]) for b, t in places)

        encoder_real = corrupted != self.pad
        encoded = self.encode(corrupted)[-1]
        target, index = self._target(original, mask, settings.short_target)
        start = np.full((rows, 1), self.mask_token)
        decoded = self.decode(np.concatenate([start, target[:, :-1]], axis=1), encoded, encoder_real)[-1]

        rtd_sum, rtd_places = 0.0, places if settings.positions == "both" else real
        if self.config.rtd_head != "none":
            detected = self.detect(encoded if self.config.rtd_location == "encoder" else decoded)
            if self.config.rtd_location == "decoder":
                detected = self._at(detected, index, original.shape)
            replaced = corrupted != original
            rtd_sum = sum(binary_cross_entropy(detected[b, t], replaced[b, t]) for b, t in rtd_places)
            if gate is None:
                gate = 1.0 / (1.0 + np.exp(-detected))
        if gate is None or not settings.gated:
            gate = np.ones(original.shape)

        lm_places = real if settings.positions == "none" else places
        lm_sum = 0.0
        for b, t in lm_places:
            logits = self.project(decoded[b, index[b, t]])
            lm_sum -= gate[b, t] * log_probability(logits, original[b, t])
        lm_count, rtd_count = max(len(lm_places), 1), max(len(rtd_places), 1)
        loss = auxiliary_sum * lm_count / max(len(places), 1)
        loss += settings.lm_weight * lm_sum + settings.rtd_weight * rtd_sum * lm_count / rtd_count
        return Losses(
            loss / lm_count,
            auxiliary_sum / max(len(places), 1),
            rtd_sum / rtd_count,
            lm_sum / lm_count,
            gate,
        )

    def _target(self, original: Array, mask: Array, short: bool) -> tuple[Array, Array]:
        """What the decoder writes, and at which of its positions it writes each original position ``[B, T]``."""
        rows, length = original.shape
        if not short:
            return original, np.tile(np.arange(length), (rows, 1))
        index = np.zeros((rows, length), dtype=np.int64)
        target = np.full((rows, max(int(mask.sum(axis=1).max()), 1)), self.pad)
        for b in range(rows):
            for place, t in enumerate(np.flatnonzero(mask[b])):
                target[b, place] = original[b, t]
                index[b, t] = place
        return target, index

    @staticmethod
    def _at(values: Array, index: Array, shape: tuple[int, ...]) -> Array:
        gathered = np.zeros(shape)
        for b in range(shape[0]):
            for t in range(shape[1]):
                gathered[b, t] = values[b, index[b, t]]
        return gathered

    def _canonical(self, stack: str, name: str) -> str:
        if name == "embed_tokens.weight":
            return "shared.weight" if self._is_main(stack, "token") else f"{stack}.{name}"
        part = "pos" if name.startswith("pos_embed") else "norm"
        if stack == "auxiliary.encoder" and self._is_main(stack, part):
            return f"encoder.{name}"
        return f"{stack}.{name}"

    def _is_main(self, stack: str, part: str) -> bool:
        return stack != "auxiliary.encoder" or part in self.config.auxiliary_sharing.split("_")

    def _embed(self, stack: str, ids: Array) -> Array:
        tokens = self.parameters[self._canonical(stack, "embed_tokens.weight")]
        positions = self.parameters[self._canonical(stack, "pos_embed.weight")]
        weight = self.parameters[self._canonical(stack, "first_layer_norm.weight")]
        bias = self.parameters[self._canonical(stack, "first_layer_norm.bias")]
        states = np.zeros((*ids.shape, self.config.d_model))
        for b, row in enumerate(ids):
            count = 0
            for t, token in enumerate(row):
                count += token != self.pad
                place = self.pad if token == self.pad else self.pad + count
                states[b, t] = tokens[token] + positions[place]
        return self._normalize(states, weight, bias)

    def _attend(
        self,
        name: str,
        queries: Array,
        keys: Array,
        key_real: Array,
        bias: Array | None = None,
        causal: bool = False,
    ) -> Array:
        heads, width = self.config.num_heads, self.config.d_kv
        query = self._linear(f"{name}.q", queries) / math.sqrt(width)
        key, value = self._linear(f"{name}.k", keys), self._linear(f"{name}.v", keys)
        rows, length, source = queries.shape[0], queries.shape[1], keys.shape[1]
        output = np.zeros_like(queries)
        for b in range(rows):
            for head in range(heads):
                part = slice(head * width, (head + 1) * width)
                scores = np.einsum("tk,sk->ts", query[b, :, part], key[b, :, part])
                if bias is not None:
                    scores = scores + bias[self.table[:length, :source], head]
                scores[:, ~key_real[b]] = -np.inf
                if causal:
                    scores[np.triu_indices(length, 1)] = -np.inf
                output[b, :, part] = np.einsum("ts,sk->tk", softmax(scores), value[b, :, part])
        return self._linear(f"{name}.o", output)

    def _feed_forward(self, name: str, states: Array) -> Array:
        inner = np.maximum(self._linear(f"{name}.DenseReluDense.wi", states), 0.0)
        return self._norm(f"{name}.layer_norm", states + self._linear(f"{name}.DenseReluDense.wo", inner))

    def _linear(self, name: str, states: Array) -> Array:
        weight, bias = self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"]
        return np.einsum("...i,oi->...o", states, weight) + bias

    def _norm(self, name: str, states: Array) -> Array:
        return self._normalize(states, self.parameters[f"{name}.weight"], self.parameters[f"{name}.bias"])

    def _normalize(self, states: Array, weight: Array, bias: Array) -> Array:
        centred = states - states.mean(axis=-1, keepdims=True)
        variance = (centred**2).mean(axis=-1, keepdims=True)
        return centred / np.sqrt(variance + self.config.layer_norm_epsilon) * weight + bias
