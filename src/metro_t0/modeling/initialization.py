"""How weights start: as the released code ends up (``published``), or as it was meant to (``clean``).

Published (official ``init_t5_params`` as measured): linear weights N(0, (2 * fan_out)^-1/2), because the code uses the
weight's first dimension for fan-in and fan-out alike; the tied embedding N(0, (2 * vocabulary)^-1/2) with a padding
row that is not zero, because the output projection shares the tensor and is visited last. Clean: linear weights
N(0, (fan_in + fan_out)^-1/2), the embedding like the position tables, its padding row zero.
The auxiliary encoder follows BERT (N(0, 0.02)); its head's and the RTD head's dense layers keep PyTorch's default.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import initialization as init

from .configuration import MetroT0Config

BERT_STANDARD_DEVIATION = 0.02
_SCHEME = "_initialization_scheme"


def mark(root: nn.Module, scheme: str) -> None:
    """Say by which scheme (``vocabulary``, ``bert``, ``torch`` or ``zero``) everything below ``root`` starts."""
    for module in root.modules():
        setattr(module, _SCHEME, scheme)


def initialize(module: nn.Module, config: MetroT0Config) -> None:
    """Initialise one module's own parameters in place, by its kind and the scheme it was marked with."""
    scheme = getattr(module, _SCHEME, "main")
    if isinstance(module, nn.LayerNorm):
        init.ones_(module.weight)
        init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        _initialize_linear(module, scheme, config)
    elif isinstance(module, nn.Embedding):
        _initialize_embedding(module, scheme, config)


def _initialize_linear(module: nn.Linear, scheme: str, config: MetroT0Config) -> None:
    fan_out, fan_in = module.weight.shape
    if scheme == "torch":
        init.uniform_(module.weight, -(fan_in**-0.5), fan_in**-0.5)
        init.uniform_(module.bias, -(fan_in**-0.5), fan_in**-0.5)
        return
    if scheme == "zero":
        init.zeros_(module.weight)
    elif scheme == "bert":
        init.normal_(module.weight, std=BERT_STANDARD_DEVIATION)
    elif scheme == "vocabulary":
        _initialize_vocabulary(module.weight, config)
    else:
        other = fan_out if config.initialization == "published" else fan_in
        init.normal_(module.weight, std=(fan_out + other) ** -0.5)
    if module.bias is not None:
        init.zeros_(module.bias)


def _initialize_embedding(module: nn.Embedding, scheme: str, config: MetroT0Config) -> None:
    if scheme == "bert":
        init.normal_(module.weight, std=BERT_STANDARD_DEVIATION)
        _zero_padding_row(module)
    elif scheme == "zero":
        init.zeros_(module.weight)
    # transformers initialises the rows that a vocabulary gains in a table without mark and padding.
    elif scheme == "vocabulary" or module.padding_idx is None:
        _initialize_vocabulary(module.weight, config)
        if config.initialization == "clean":
            _zero_padding_row(module)
    else:
        _initialize_by_width(module.weight, config)
        _zero_padding_row(module)


def _initialize_vocabulary(weight: torch.Tensor, config: MetroT0Config) -> None:
    if config.initialization == "published":
        init.normal_(weight, std=(2 * config.vocab_size) ** -0.5)
    else:
        _initialize_by_width(weight, config)


def _initialize_by_width(weight: torch.Tensor, config: MetroT0Config) -> None:
    bound = math.sqrt(3.0 / (2.0 * config.d_model))
    init.uniform_(weight, -bound, bound)


def _zero_padding_row(module: nn.Embedding) -> None:
    # Slicing loses the mark by which transformers protects loaded weights, so it is asked for here.
    if module.padding_idx is not None and not getattr(module.weight, "_is_hf_initialized", False):
        init.zeros_(module.weight[module.padding_idx])
