"""The model that is analysed: its network, its tokenizer, what its run was, and the loss it is asked.

subject = open_subject("runs/pretrain", loss="own")
subject.network, subject.tokenizer, subject.objective(seed=0)
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import torch

from metro_t0.config import (
    FinetuneConfig,
    MetroSettings,
    PretrainConfig,
    PromptedSettings,
    SpanCorruptionSettings,
    read_config,
)
from metro_t0.evaluation.loading import load_model, model_folder
from metro_t0.interop.folders import read_parts
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.base import Objective
from metro_t0.objectives.build import ObjectiveSettings, build_objective
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

Loss = Literal["prompts", "span-corruption", "own"]


@dataclass(frozen=True)
class Subject:
    """A model under analysis.

    Attributes:
        path: as it was given.
        network: in float32, without dropout; with the auxiliary model only where the loss needs it.
        tokenizer: the model's own.
        config: of the run that made it, where the path is a run directory.
        loss: what is differentiated, as an objective's settings.
    """

    path: str
    network: MetroT0ForConditionalGeneration
    tokenizer: MetroT0Tokenizer
    config: PretrainConfig | FinetuneConfig | None
    loss: ObjectiveSettings

    @property
    def loss_name(self) -> str:
        """``prompts``, ``span-corruption`` or ``metro``."""
        return "prompts" if self.loss.kind == "prompted" else self.loss.kind

    def objective(self, seed: int) -> Objective:
        """The loss as an objective, its draws by ``seed``."""
        return build_objective(self.loss, self.network.config, seed)


def open_subject(path: str | Path, loss: Loss) -> Subject:
    """Load a model for analysis.

    Args:
        path: a run directory, a model folder, or a Hub name of the published format.
        loss: ``own`` is that of the run that made the model.

    Raises:
        ValueError: there is no model, it is not of METRO-T0's kind, or it cannot be asked this loss: there is no run's
            configuration, or no auxiliary model.
    """
    folder = model_folder(path)
    file = Path(path) / "config.yaml"
    config = read_config(file) if file.is_file() else None
    settings = _loss_settings(path, config, loss)
    network, tokenizer = load_model(path)
    if not isinstance(network, MetroT0ForConditionalGeneration):
        raise ValueError(
            f"{path} is a {type(network).__name__}: activation and sensitivity are measured in networks of this "
            "package and published METRO-T0 models alone"
        )
    if isinstance(settings, MetroSettings):
        whole = _whole(folder, path)
        # transformers' own annotation of ``to`` takes no device.
        network = whole if network.device == whole.device else cast(Any, whole).to(network.device)
    assert isinstance(tokenizer, MetroT0Tokenizer)
    return Subject(str(path), network, tokenizer, config, settings)


def _loss_settings(
    path: str | Path, config: PretrainConfig | FinetuneConfig | None, loss: Loss
) -> ObjectiveSettings:
    if loss == "prompts":
        return PromptedSettings()
    if loss == "span-corruption":
        return SpanCorruptionSettings()
    if config is None:
        raise ValueError(
            f"{path} has no config.yaml, so that its own loss is not known: give the run directory, or --loss "
            "span-corruption or prompts"
        )
    return config.objective


def _whole(folder: str, path: str | Path) -> MetroT0ForPreTraining:
    network, missing = read_parts(MetroT0ForPreTraining, folder, torch.float32)
    if missing:
        raise ValueError(
            f"METRO's own loss needs the auxiliary model and the detection head, and {path} lacks {missing[0]}: a "
            "finetuned or published model has left them behind; give the pretraining run, or --loss span-corruption or "
            "prompts"
        )
    assert isinstance(network, MetroT0ForPreTraining)
    return network.eval()
