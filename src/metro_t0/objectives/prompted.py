"""Finetuning on prompted tasks: read a rendered prompt, write its answer.

A row's ``input_ids`` are ``<s> prompt </s>`` and its ``labels`` are ``answer </s>``, as a mixture stores
them; the decoder starts from ``</s>`` (unlike pretraining, which starts from a sentinel). Nothing is drawn,
so keys are ignored.

    objective = PromptedObjective(pad_token_id=1, decoder_start_token_id=2)
    batch = objective.collate(rows, keys)

Facts: METRO-T0 (arXiv 2305.12567), official ``fairseq/tasks/t5_prompt_finetuning.py`` and
``criterions/label_smoothed_cross_entropy.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from metro_t0.objectives.base import Batch, Row, RowKey
from metro_t0.objectives.sequence_to_sequence import SequenceToSequenceObjective, collate_pairs


@dataclass(frozen=True)
class PromptedObjective(SequenceToSequenceObjective):
    """Prompted finetuning as an ``Objective`` (see ``objectives/base.py``).

    Attributes:
        decoder_start_token_id: first decoder input of every row; ``</s>`` in the recipe.
    """

    decoder_start_token_id: int = 2

    def collate(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> Batch:
        """Pad rows ``{"input_ids": [source length], "labels": [target length]}``.

        Raises:
            ValueError: a row without labels: there would be nothing to learn from it.
        """
        assert len(rows) == len(keys)
        sources = [np.asarray(row["input_ids"], dtype=np.int64) for row in rows]
        targets = [np.asarray(row["labels"], dtype=np.int64) for row in rows]
        for key, target in zip(keys, targets, strict=True):
            if target.size == 0:
                raise ValueError(f"prompted row {key} has no labels; a target is at least </s>")
        return collate_pairs(
            sources,
            targets,
            pad_token_id=self.pad_token_id,
            decoder_start_token_id=self.decoder_start_token_id,
            length_multiple=self.length_multiple,
        )
