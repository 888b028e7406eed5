"""Which network a configuration trains, how large it is, and what the published recipe of its size was.

shape = network_config(load_preset("base"), pieces_of("base"))
count_parameters(shape, metro=True).total                # 255,189,761
official("base").gpus                                    # 64
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from metro_t0.config import FinetuneConfig, ModelSettings, PretrainConfig
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.training.plan.memory import ParameterCounts

_SENTINELS = 512
_PIECES = {"tiny": 8192, "base++": 64000, "large++": 64000}
_DEFAULT_PIECES = 32768


@dataclass(frozen=True)
class Official:
    """The published recipe of a size (RECIPE 3.1 and 3.3)."""

    gpus: int
    tokens_per_update: int
    updates: int
    text_bytes: float

    @property
    def tokens(self) -> int:
        """Of all updates."""
        return self.tokens_per_update * self.updates


_OFFICIAL = {
    "base": Official(64, 2**20, 125_000, 16e9),
    "base++": Official(128, 2**20, 2_000_000, 160e9),
    "large++": Official(256, 2**20, 2_000_000, 160e9),
    "base-t5": Official(64, 2**20, 125_000, 16e9),
    "base++-t5": Official(64, 2**20, 2_000_000, 160e9),
}


def official(preset: str | None) -> Official | None:
    """The published recipe of a preset, if it has one."""
    return _OFFICIAL.get(preset or "")


def pieces_of(preset: str | None) -> int:
    """The vocabulary that a preset is meant for, sentinels not counted."""
    return _PIECES.get((preset or "").removesuffix("-t5"), _DEFAULT_PIECES)


def network_config(
    config: PretrainConfig | FinetuneConfig, pieces: int, network: ModelSettings | None = None
) -> MetroT0Config:
    """The network of a run with so many pieces in its vocabulary.

    Raises:
        ValueError: a finetuning configuration without a network to start from.
    """
    if isinstance(config, PretrainConfig):
        settings = config.model.model_dump()
    elif network is not None:
        settings = {**network.model_dump(), "dropout_rate": config.dropout_rate}
    else:
        raise ValueError("say which network is finetuned: --network base, for example")
    return MetroT0Config(**settings, vocab_size=pieces + _SENTINELS, num_sentinel_tokens=_SENTINELS)


def count_parameters(shape: MetroT0Config, metro: bool) -> ParameterCounts:
    """Parameters of the network as it trains; ``metro`` adds auxiliary model and detection head."""
    with torch.device("meta"):
        main = MetroT0ForConditionalGeneration(shape)
        model = MetroT0ForPreTraining(shape) if metro else main
    named = dict(model.named_parameters())
    inside = sum(value.numel() for name, value in named.items() if ".block." in name)
    total = sum(value.numel() for value in named.values())
    looked_up = ("pos_embed", "relative_attention_bias")
    return ParameterCounts(
        total=total,
        main=sum(value.numel() for value in main.parameters()),
        matrices=sum(
            value.numel()
            for name, value in named.items()
            if value.dim() == 2 and not any(table in name for table in looked_up)
        ),
        largest_layer=max(sum(value.numel() for value in layer.parameters()) for layer in main.decoder.block),
        outside_layers=total - inside,
    )
