"""A built mixture on disk: token ids as Arrow, a card that counts them, and the rows of each epoch.

    data = PromptedData.load("prompted")
    data.train[0]                          # {"input_ids": [...], "labels": [...], "task": 0, "template": 3}
    data.epoch_indices(epoch=0, seed=0)    # rows of ``train`` in the order of the epoch
    data.lengths("train")                  # for batches of like lengths
    data.card["totals"]

``task`` and ``template`` are positions in ``card["tasks"]`` and ``card["templates"]``. The folder holds
``train.arrow``, ``validation.arrow`` (Arrow streams, memory-mapped) and ``card.json``.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import datasets

FORMAT_VERSION = 1


@dataclass(frozen=True)
class PromptedData:
    """A built mixture.

    Attributes:
        path: its folder.
        train: columns ``input_ids`` (``<s> ... </s>``), ``labels`` (``... </s>``), ``task``, ``template``.
        validation: likewise, of rows that are not in ``train``.
        card: what went in and what came out, see ``build.py``.
    """

    path: Path
    train: datasets.Dataset
    validation: datasets.Dataset
    card: dict[str, Any]

    @classmethod
    def load(cls, path: str | Path) -> PromptedData:
        """Opens a built mixture.

        Raises:
            ValueError: the folder is not a built mixture, or of another version of the format.
        """
        from datasets import Dataset

        path = Path(path)
        try:
            card = json.loads((path / "card.json").read_text(encoding="utf-8"))
            version = card["format_version"]
        except (OSError, ValueError, KeyError, TypeError):
            raise ValueError(f"{path} is not a built mixture: it has no readable card.json") from None
        if version != FORMAT_VERSION:
            raise ValueError(
                f"{path} is a built mixture of format version {version}, not {FORMAT_VERSION}: build it again"
            )
        return cls(
            path,
            Dataset.from_file(str(path / "train.arrow")),
            Dataset.from_file(str(path / "validation.arrow")),
            card,
        )

    def epoch_indices(self, epoch: int, seed: int) -> np.ndarray:
        """Rows of ``train`` that one epoch visits, in its order.

        Each template keeps one permutation of its examples; epoch e takes the window ``[e * cap, (e + 1) *
        cap)`` of it, around its end; all windows are put together and shuffled. Epochs count from 0; the
        official code (``concat_capped_dataset.py``) counts from 1, so that its first epoch is window 1.

        Args:
            epoch: from 0.
            seed: of the permutations and the shuffling.

        Returns:
            ``[examples of the epoch]`` int64.
        """
        if epoch < 0:
            raise ValueError(f"epochs count from 0, not {epoch}")
        column = self.train.data.column("template").to_numpy()
        by_template = np.argsort(column, kind="stable")
        ends = np.searchsorted(column[by_template], np.arange(len(self.card["templates"])), side="right")
        windows = []
        start = 0
        for template, end in enumerate(ends):
            rows, cap = by_template[start:end], self.card["templates"][template]["cap"]
            start = end
            if cap is not None and cap < len(rows):
                order = np.random.default_rng([seed, 0, template]).permutation(len(rows))
                rows = rows[order[(epoch * cap + np.arange(cap)) % len(rows)]]
            windows.append(rows)
        indices = np.concatenate(windows).astype(np.int64)
        np.random.default_rng([seed, 1, epoch]).shuffle(indices)
        return indices

    def lengths(self, part: Literal["train", "validation"]) -> np.ndarray:
        """Tokens of each example: ``[rows, 2]`` int32, of the input and of the target (specials included)."""
        import pyarrow.compute as pc

        table = self.train if part == "train" else self.validation
        columns = [pc.list_value_length(table.data.column(name)) for name in ("input_ids", "labels")]
        return np.stack([column.to_numpy().astype(np.int32) for column in columns], axis=1)
