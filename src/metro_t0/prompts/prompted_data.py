"""A built mixture on disk: token ids as Arrow, a card that counts them, and the rows of each epoch.

    data = PromptedData.load("prompted")
    data.train[0]                          # {"input_ids": [...], "labels": [...], "task": 0, "template": 3}
    data.epoch_indices(epoch=0, seed=0)    # rows of ``train`` in the order of the epoch
    data.lengths("train")                  # for batches of like lengths
    data.card["totals"]

``task`` and ``template`` are positions in ``card["tasks"]`` and ``card["templates"]``; the rows of a task stand
together. The folder holds ``train/`` and ``validation/`` (Arrow, memory-mapped) and ``card.json``, see
``build_card.py``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

if TYPE_CHECKING:
    import datasets

FORMAT_VERSION = 2


def window_size(rows: int, cap: int | None, weight: float) -> int:
    """Rows of a template that one epoch visits: ``weight`` times its rows, or times its cap if that is less."""
    return round(weight * (rows if cap is None else min(cap, rows)))


@dataclass(frozen=True)
class PromptedData:
    """A built mixture.

    Attributes:
        path: its folder.
        train: columns ``input_ids`` (``<s> ... </s>``), ``labels`` (``... </s>``), ``task``, ``template``.
        validation: likewise, of rows that are not in ``train``.
        card: what went in and what came out, see ``build_card.py``.
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
        from datasets import load_from_disk

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
        try:
            train, validation = (load_from_disk(str(path / part)) for part in ("train", "validation"))
        except OSError as error:
            raise ValueError(f"{path} is a built mixture that cannot be read: {error}") from error
        return cls(path, train, validation, card)

    def epoch_indices(self, epoch: int, seed: int) -> np.ndarray:
        """Rows of ``train`` that one epoch visits, in its order.

        Each template keeps one permutation of its examples; epoch e takes the window ``[e * size, (e + 1) *
        size)`` of it, around its end; all windows are put together and shuffled. The size of a window is the
        template's weight times its examples, or times its cap if that is less: under a weight of 2 an epoch visits
        each example of a window's worth twice, under 0.5 every other epoch has it. Epochs count from 0; the official
        code (``concat_capped_dataset.py``) counts from 1, so that its first epoch is window 1.

        Args:
            epoch: from 0.
            seed: of the permutations and the shuffling.

        Returns:
            ``[examples of the epoch]`` int64.
        """
        if epoch < 0:
            raise ValueError(f"epochs count from 0, not {epoch}")
        # Half the memory until they are put together, unless there are very many rows.
        narrow = np.int32 if len(self.train) < 1 << 31 else np.int64
        windows = [
            self._window(rows, template, epoch, seed).astype(narrow)
            for template, rows in self._rows_by_template()
        ]
        indices = np.concatenate(windows, dtype=np.int64)
        np.random.default_rng([seed, 1, epoch]).shuffle(indices)
        return indices

    def _window(self, rows: np.ndarray, template: int, epoch: int, seed: int) -> np.ndarray:
        entry = self.card["templates"][template]
        size = window_size(len(rows), entry["cap"], entry["weight"])
        if size == len(rows):
            return rows
        order = np.random.default_rng([seed, 0, template]).permutation(rows)
        return order[(epoch * size + np.arange(size)) % max(len(rows), 1)]

    def _rows_by_template(self) -> Iterator[tuple[int, np.ndarray]]:
        """Each template with its rows in ``train``, ascending int64; a task at a time is held in memory."""
        import pyarrow.compute as pc

        counted = pc.value_counts(self.train.data.column("task")).to_pylist()
        rows = {entry["values"]: entry["counts"] for entry in counted}
        column = self.train.data.column("template")
        start = first = 0
        for number, task in enumerate(self.card["tasks"]):
            of_task = column.slice(start, rows.get(number, 0)).to_numpy()
            templates = sum(entry["task"] == task["name"] for entry in self.card["templates"])
            for template in range(first, first + templates):
                yield template, np.flatnonzero(of_task == template) + start
            start += len(of_task)
            first += templates

    def lengths(self, part: Literal["train", "validation"]) -> np.ndarray:
        """Tokens of each example: ``[rows, 2]`` int32, of the input and of the target (specials included)."""
        import pyarrow.compute as pc

        table = self.train if part == "train" else self.validation
        columns = [pc.list_value_length(table.data.column(name)) for name in ("input_ids", "labels")]
        return np.stack([column.to_numpy().astype(np.int32) for column in columns], axis=1)
