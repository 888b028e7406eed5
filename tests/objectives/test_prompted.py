"""Prompted finetuning: the recipe's format of source, target and decoder input."""

from __future__ import annotations

import numpy as np
import pytest

from metro_t0.objectives.prompted import PromptedObjective

OBJECTIVE = PromptedObjective(pad_token_id=1)


def test_collate_shifts_the_target_behind_the_end_token_and_pads_to_eight() -> None:
    rows = [
        {
            "input_ids": np.array([0, 11, 12, 2], dtype=np.uint16),
            "labels": np.array([21, 22, 2], dtype=np.uint16),
        },
        {"input_ids": np.arange(9, dtype=np.int32), "labels": np.array([2], dtype=np.int32)},
    ]
    batch = OBJECTIVE.collate(rows, [(0,), (1,)])
    assert batch["input_ids"].tolist() == [[0, 11, 12, 2] + [1] * 12, [*range(9)] + [1] * 7]
    assert batch["attention_mask"].tolist() == [[1] * 4 + [0] * 12, [1] * 9 + [0] * 7]
    assert batch["decoder_input_ids"].tolist() == [[2, 21, 22] + [1] * 5, [2] + [1] * 7]
    assert batch["target_positions"].tolist() == [0, 1, 2, 8]
    assert batch["target_ids"].tolist() == [21, 22, 2, 2]
    assert OBJECTIVE.counts(batch) == {"lm": 4}
    assert OBJECTIVE.loss_parts == ("lm_loss",)


def test_rows_as_plain_lists_are_taken_too() -> None:
    batch = OBJECTIVE.collate([{"input_ids": [0, 2], "labels": [5, 2]}], [(0,)])
    assert batch["decoder_input_ids"][0, :2].tolist() == [2, 5]


def test_a_row_without_labels_is_refused() -> None:
    row = {"input_ids": np.array([0, 2]), "labels": np.array([], dtype=np.int64)}
    with pytest.raises(ValueError, match=r"row \(3, 8\) has no labels"):
        OBJECTIVE.collate([row], [(3, 8)])
