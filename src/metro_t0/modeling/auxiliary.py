"""The auxiliary masked language model: a shallower encoder of the main model's width with a RoBERTa-style head.

It exists in pretraining only, to fill masked tokens with its own samples (paper section 3; official
``models/t5_metro/model.py`` and ``models/roberta/model.py``).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .configuration import MetroT0Config
from .initialization import mark
from .stacks import Encoder


class AuxiliaryHead(nn.Module):
    """Linear, ReLU, LayerNorm, then the tied embedding with a bias of its own."""

    def __init__(self, config: MetroT0Config) -> None:
        super().__init__()
        self.dense = nn.Linear(config.d_model, config.d_model)
        self.layer_norm = nn.LayerNorm(config.d_model, eps=config.layer_norm_epsilon)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))

    def forward(self, hidden_states: torch.Tensor, embedding: torch.Tensor) -> torch.Tensor:
        """``[..., hidden]`` and ``[vocabulary, hidden]`` to logits ``[..., vocabulary]``."""
        transformed = self.layer_norm(F.relu(self.dense(hidden_states)))
        return F.linear(transformed, embedding, self.bias)


class AuxiliaryModel(nn.Module):
    """Encoder and head; what it shares with the main model is tied by :class:`MetroT0ForPreTraining`."""

    def __init__(self, config: MetroT0Config) -> None:
        super().__init__()
        self.encoder = Encoder(config, config.num_auxiliary_layers, config.auxiliary_dropout_rate)
        self.head = AuxiliaryHead(config)
        mark(self.encoder, "bert")
        mark(self.head, "torch")

    def project(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Encoder states to logits: ``[..., hidden]`` to ``[..., vocabulary]``."""
        return self.head(hidden_states, self.encoder.embed_tokens.weight)
