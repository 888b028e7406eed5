"""Replaced token detection heads: one logit a position, positive for "replaced".

Source: official ``models/t5_metro/model.py``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration import MetroT0Config
from .initialization import mark


class SimpleDetectionHead(nn.Module):
    """One linear layer that starts at zero, so that every probability starts at one half."""

    def __init__(self, config: MetroT0Config) -> None:
        super().__init__()
        self.out = nn.Linear(config.d_model, 1)
        mark(self.out, "zero")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[..., hidden]`` to logits ``[...]``."""
        return self.out(hidden_states).squeeze(-1)


class RobertaDetectionHead(SimpleDetectionHead):
    """Linear, ReLU and LayerNorm before the zero-initialised layer."""

    def __init__(self, config: MetroT0Config) -> None:
        super().__init__(config)
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        mark(self.dense, "torch")

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``[..., hidden]`` to logits ``[...]``."""
        return super().forward(self.layer_norm(F.relu(self.dense(hidden_states))))


def detection_head(config: MetroT0Config) -> SimpleDetectionHead | None:
    """The head that the configuration asks for, or None."""
    if config.rtd_head == "none":
        return None
    return RobertaDetectionHead(config) if config.rtd_head == "roberta" else SimpleDetectionHead(config)
