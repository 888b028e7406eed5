"""Token rows of a memory-mapped dataset, read without a copy and without a Python list in between.

rows = TokenRows(corpus.train, ("input_ids",))
rows.lengths                     # [rows, columns]
rows[17]["input_ids"]            # a view of the file, uint16 or int32
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

if TYPE_CHECKING:
    from datasets import Dataset


class TokenRows:
    """Rows ``{column: [length]}`` of a dataset's columns of token lists.

    Attributes:
        columns: the columns that a row has.
        lengths: ``[rows, columns]`` int32, tokens of each row in each column.

    Args:
        dataset: as ``datasets`` loads it, not a selection of another one.
        columns: which of its columns to read; each holds lists of integers.

    Raises:
        ValueError: the dataset does not have such a column.
    """

    def __init__(self, dataset: Dataset, columns: Sequence[str]) -> None:
        assert dataset._indices is None, "a selected dataset has its rows elsewhere: flatten_indices() first"
        self.columns = tuple(columns)
        if missing := set(columns) - set(dataset.column_names):
            raise ValueError(
                f"the data has no column {sorted(missing)[0]!r}; its columns: {', '.join(dataset.column_names)}"
            )
        chunked = [dataset.data.column(name) for name in self.columns]
        self.lengths: NDArray[np.int32] = np.stack(
            [pc.list_value_length(column).to_numpy().astype(np.int32) for column in chunked], axis=1
        )
        self._parts = [
            [
                (chunk.offsets.to_numpy(), chunk.values.to_numpy(zero_copy_only=False))
                for chunk in column.chunks
            ]
            for column in chunked
        ]
        self._starts = [np.cumsum([0, *(len(chunk) for chunk in column.chunks)]) for column in chunked]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> dict[str, NDArray[np.integer]]:
        return {name: self._read(column, index) for column, name in enumerate(self.columns)}

    def _read(self, column: int, index: int) -> NDArray[np.integer]:
        starts = self._starts[column]
        part = int(np.searchsorted(starts, index, side="right")) - 1
        offsets, values = self._parts[column][part]
        place = index - int(starts[part])
        row: NDArray[np.integer] = values[offsets[place] : offsets[place + 1]]
        return row
