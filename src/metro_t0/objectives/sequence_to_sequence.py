"""Batches and loss shared by the objectives that read one sequence and write another.

Span corruption and prompted finetuning differ in where source and target come from, and in nothing else. A
batch holds

    ``input_ids``         ``[batch, source length]``  right-padded with ``pad_token_id``, as is the decoder's
    ``attention_mask``    ``[batch, source length]``  1 at real tokens
    ``decoder_input_ids`` ``[batch, target length]``  start token, then the target without its last token
    ``target_positions``  ``[targets]``  where real targets lie in the flattened ``[batch * target length]``
    ``target_ids``        ``[targets]``  the tokens to predict there

The places of the real targets are found on the host, so that the vocabulary projection runs on them alone
without the device ever being asked how many there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from metro_t0.objectives.base import Batch, ObjectiveOutput
from metro_t0.objectives.padding import LENGTH_MULTIPLE, lengths_mask, pad_rows
from metro_t0.objectives.scoring import score_tokens

if TYPE_CHECKING:
    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration

Ids = NDArray[np.int64]


def collate_pairs(
    sources: Sequence[Ids],
    targets: Sequence[Ids],
    *,
    pad_token_id: int,
    decoder_start_token_id: int,
    length_multiple: int = LENGTH_MULTIPLE,
) -> Batch:
    """Pad sources and targets into a batch (see the module's first lines).

    Args:
        sources: encoder tokens, one ``[length]`` a row, specials included.
        targets: tokens to predict, one ``[length]`` a row, ending symbol included; none may be empty.
        pad_token_id: id that fills both sides.
        decoder_start_token_id: first decoder input of every row.
        length_multiple: padded lengths are a multiple of it.
    """
    assert len(sources) == len(targets) > 0
    source_lengths = np.array([source.size for source in sources])
    target_lengths = np.array([target.size for target in targets])
    decoder_inputs = [np.concatenate(([decoder_start_token_id], target[:-1])) for target in targets]
    decoder_input_ids = pad_rows(decoder_inputs, pad_token_id, length_multiple)
    positions = np.flatnonzero(lengths_mask(target_lengths, decoder_input_ids.shape[1]))
    input_ids = pad_rows(sources, pad_token_id, length_multiple)
    attention_mask = lengths_mask(source_lengths, input_ids.shape[1]).astype(np.int64)
    return {
        "input_ids": torch.from_numpy(input_ids),
        "attention_mask": torch.from_numpy(attention_mask),
        "decoder_input_ids": torch.from_numpy(decoder_input_ids),
        "target_positions": torch.from_numpy(positions),
        "target_ids": torch.from_numpy(np.concatenate(targets)),
    }


@dataclass(frozen=True)
class SequenceToSequenceObjective:
    """What both objectives do with a batch once it is collated.

    Attributes:
        pad_token_id: id that fills sources and decoder inputs to equal lengths.
        length_multiple: padded lengths are a multiple of it.
    """

    pad_token_id: int
    length_multiple: int = field(default=LENGTH_MULTIPLE, kw_only=True)

    @property
    def loss_parts(self) -> tuple[str, ...]:
        """The one part: ``lm_loss``."""
        return ("lm_loss",)

    def counts(self, batch: Batch) -> dict[str, int]:
        """Number of target tokens, the ending symbol included, as ``lm``."""
        return {"lm": batch["target_ids"].numel()}

    def __call__(
        self, model: nn.Module, batch: Batch, normalizers: Mapping[str, float | torch.Tensor] | None = None
    ) -> ObjectiveOutput:
        """Cross-entropy of every target token, divided by ``normalizers["lm"]``.

        The vocabulary projection runs on real target positions only; the softmax runs in float32.

        Args:
            model: a ``MetroT0ForConditionalGeneration``.
            batch: what ``collate`` gave, on the model's device.
            normalizers: counts to divide by; this batch's own by default.

        Returns:
            loss, and as totals ``loss``, ``lm_loss``, ``lm_accuracy`` over target tokens.
        """
        if normalizers is None:
            normalizers = self.counts(batch)
        network = cast("MetroT0ForConditionalGeneration", model)
        attention_mask = batch["attention_mask"]
        encoded = network.encoder(batch["input_ids"], attention_mask=attention_mask).last_hidden_state
        hidden = network.decoder(
            input_ids=batch["decoder_input_ids"],
            encoder_hidden_states=encoded,
            encoder_attention_mask=attention_mask,
        ).last_hidden_state
        targets = batch["target_ids"]
        hidden_at_targets = hidden.flatten(0, 1).index_select(0, batch["target_positions"])
        scores = score_tokens(network.project(hidden_at_targets), targets)
        loss_sum = scores.losses.sum()
        loss = loss_sum / normalizers["lm"]
        with torch.no_grad():
            count = torch.full_like(loss_sum, targets.numel())
            lm_loss = torch.stack([loss_sum.detach(), count])
            correct = scores.hits.sum().to(count.dtype)
        totals = {"loss": lm_loss, "lm_loss": lm_loss.clone(), "lm_accuracy": torch.stack([correct, count])}
        return ObjectiveOutput(loss=loss, totals=totals)
