"""Everything that METRO pretraining trains: the main model, the auxiliary model and the RTD head.

>>> pretrainer = MetroT0ForPreTraining(MetroT0Config(...))
>>> output = pretrainer(original_ids=..., masked_ids=..., mask=..., objective=MetroObjective())
>>> output.loss.backward()

A saved folder holds all of it; ``MetroT0ForConditionalGeneration.from_pretrained`` reads the main model out of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any, Protocol

import torch
import torch.nn.functional as F

from .auxiliary import AuxiliaryModel
from .configuration import MetroT0Config
from .encoder_decoder import MetroT0ForConditionalGeneration
from .heads import detection_head


class PretrainingLoss(Protocol):
    """An objective as this class needs it; see ``metro_t0.objectives.metro.MetroObjective``."""

    def compute(
        self, model: MetroT0ForPreTraining, batch: Mapping[str, torch.Tensor | None], normalizers: Any = None
    ) -> Any: ...


class MetroT0ForPreTraining(MetroT0ForConditionalGeneration):
    """Main model, auxiliary model and replaced token detection head.

    Attributes:
        auxiliary: the auxiliary masked language model.
        rtd_head: hidden states to one logit a position, or None when the configuration says ``none``.
    """

    _keys_to_ignore_on_load_unexpected: list[str] = []  # noqa: RUF012

    def _add_parts(self) -> None:
        self.auxiliary = AuxiliaryModel(self.config)
        self.rtd_head = detection_head(self.config)
        self._tied_weights_keys = {**self._tied_weights_keys, **_shared_with_auxiliary(self.config)}

    def set_input_embeddings(self, value: torch.nn.Module) -> None:
        """Replace the token embedding everywhere it is used as input."""
        super().set_input_embeddings(value)
        if self.config.auxiliary_sharing != "none":
            self.auxiliary.encoder.embed_tokens = self.shared

    def _resize_token_embeddings(
        self, new_num_tokens: int | None, pad_to_multiple_of: int | None = None, mean_resizing: bool = True
    ) -> torch.nn.Embedding:
        """The auxiliary model's vocabulary follows: its own embedding where it has one, and its output bias."""
        embedding = super()._resize_token_embeddings(new_num_tokens, pad_to_multiple_of, mean_resizing)
        size = embedding.num_embeddings
        if self.config.auxiliary_sharing == "none":
            own = self.auxiliary.encoder.embed_tokens
            self.auxiliary.encoder.embed_tokens = self._get_resized_embeddings(
                own, size, mean_resizing=mean_resizing
            )
        bias = self.auxiliary.head.bias
        bias.data = F.pad(bias.data, (0, size - len(bias)))
        return embedding

    def forward(  # type: ignore[override]
        self,
        *,
        original_ids: torch.Tensor,
        masked_ids: torch.Tensor,
        mask: torch.Tensor,
        objective: PretrainingLoss,
        replaced_ids: torch.Tensor | None = None,
        normalizers: Mapping[str, float | torch.Tensor] | None = None,
        **more: torch.Tensor | None,
    ) -> Any:
        """The pretraining losses of a batch, as the objective defines them.

        Args:
            original_ids: ``[B, T]``, padding = ``pad_token_id``.
            masked_ids: ``[B, T]``, what the auxiliary model reads.
            mask: boolean ``[B, T]``, True on masked positions.
            objective: a ``MetroObjective``.
            replaced_ids: ``[B, T]``, used in place of the auxiliary model's own samples.
            normalizers: counts by which the sums are divided; this batch's own by default.
            more: what else the objective reads of a batch (``draws``).
        """
        batch = {
            "original_ids": original_ids,
            "masked_ids": masked_ids,
            "mask": mask,
            "replaced_ids": replaced_ids,
            **more,
        }
        return objective.compute(self, batch, normalizers)

    @classmethod
    def from_fairseq(
        cls, path: str | PathLike[str], dropout_rate: float | None = None
    ) -> MetroT0ForPreTraining:
        """Load an official pretraining checkpoint (``.pt``); see ``metro_t0.interop.fairseq``."""
        from metro_t0.interop.fairseq import load_pretraining

        return load_pretraining(path, dropout_rate)


def _shared_with_auxiliary(config: MetroT0Config) -> dict[str, str]:
    """The auxiliary model's parameters that are the main model's (official ``share_generator_discriminator_embed``)."""
    shared: dict[str, str] = {}
    parts = config.auxiliary_sharing.split("_")
    if "token" in parts:
        shared["auxiliary.encoder.embed_tokens.weight"] = "shared.weight"
    if "pos" in parts:
        shared["auxiliary.encoder.pos_embed.weight"] = "encoder.pos_embed.weight"
    if "norm" in parts:
        for kind in ("weight", "bias"):
            shared[f"auxiliary.encoder.first_layer_norm.{kind}"] = f"encoder.first_layer_norm.{kind}"
    return shared
