"""Networks and batches of our own making, small enough to compute by hand-written loops."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from metro_t0.modeling.configuration import MetroT0Config

PAD, VOCAB_SIZE, SENTINELS = 1, 43, 9
Model = TypeVar("Model", bound=nn.Module)


def tiny_config(**changes: Any) -> MetroT0Config:
    """A configuration in which no two sizes are alike, without dropout."""
    values: dict[str, Any] = {
        "vocab_size": VOCAB_SIZE,
        "d_model": 12,
        "d_kv": 4,
        "d_ff": 20,
        "num_layers": 2,
        "num_decoder_layers": 3,
        "num_heads": 3,
        "relative_attention_num_buckets": 16,
        "relative_attention_max_distance": 22,
        "max_positions": 32,
        "num_positions": 32,
        "dropout_rate": 0.0,
        "num_sentinel_tokens": SENTINELS,
        "num_auxiliary_layers": 1,
    }
    return MetroT0Config(**{**values, **changes})


def randomize(model: Model, seed: int = 0, scale: float = 0.4) -> Model:
    """Every parameter drawn anew in place: biases, LayerNorms, relative biases, heads and padding rows too."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            drawn = torch.randn(parameter.shape, generator=generator) * scale
            parameter.copy_(drawn + 1.0 if name.endswith("layer_norm.weight") else drawn)
    return model


def parameters_of(model: nn.Module) -> dict[str, np.ndarray]:
    """Parameters by canonical name in float64; shared ones once."""
    return {name: parameter.detach().double().numpy() for name, parameter in model.named_parameters()}


@dataclass(frozen=True)
class TextBatch:
    """A corrupted batch ``[B, T]``."""

    original: torch.Tensor
    masked: torch.Tensor
    mask: torch.Tensor
    corrupted: torch.Tensor

    def inputs(self) -> dict[str, torch.Tensor]:
        """As the pretraining model takes it, with the replacements given."""
        return {
            "original_ids": self.original,
            "masked_ids": self.masked,
            "mask": self.mask,
            "replaced_ids": self.corrupted,
        }


def random_ids(lengths: list[int], seed: int = 0, pad_left: bool = False) -> torch.Tensor:
    """Rows of random ordinary tokens between ``<s>`` and ``</s>``, padded to the longest: ``[B, T]``."""
    rng = np.random.default_rng(seed)
    width = max(lengths)
    ids = np.full((len(lengths), width), PAD)
    for row, length in zip(ids, lengths, strict=True):
        tokens = rng.integers(4, VOCAB_SIZE - SENTINELS, length)
        tokens[0] = 0
        tokens[-1] = 2
        row[width - length :] = tokens if pad_left else row[width - length :]
        if not pad_left:
            row[:length] = tokens
    return torch.from_numpy(ids)


def random_text(
    lengths: list[int], seed: int = 0, share: float = 0.3, keep: float = 0.4, with_padding: bool = False
) -> TextBatch:
    """A batch with about ``share`` of its tokens masked, of which about ``keep`` happen to be sampled right.

    Args:
        lengths: tokens of each row.
        seed: of everything.
        share: chance of a token to be masked.
        keep: chance of a masked token to come back as it was.
        with_padding: the first replaced token becomes padding, as an auxiliary model may sample it.
    """
    rng = np.random.default_rng(seed)
    original = random_ids(lengths, seed).numpy()
    mask = (rng.random(original.shape) < share) & (original != PAD)
    masked, corrupted = original.copy(), original.copy()
    masked[mask] = np.where(
        rng.random(mask.sum()) < 0.8, VOCAB_SIZE - SENTINELS, rng.integers(4, VOCAB_SIZE, mask.sum())
    )
    sampled = rng.integers(2, VOCAB_SIZE, mask.sum())
    corrupted[mask] = np.where(rng.random(mask.sum()) < keep, original[mask], sampled)
    if with_padding and mask.any():
        corrupted[tuple(np.argwhere(mask)[0])] = PAD
    return TextBatch(*(torch.from_numpy(part) for part in (original, masked, mask, corrupted)))
