"""Rows of different lengths into rectangles, on the host.

ids = pad_rows(rows, pad_token_id)
real = lengths_mask(np.array([row.size for row in rows]), ids.shape[1])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

LENGTH_MULTIPLE = 8
"""Padded lengths are a multiple of this, as in the official code (``pad_dataset.py``): a GPU's kernels want it."""


def pad_rows(
    rows: Sequence[NDArray[np.integer]], pad_token_id: int, multiple: int = LENGTH_MULTIPLE
) -> NDArray[np.int64]:
    """Right-pad rows to the longest one, rounded up to a multiple.

    Args:
        rows: ``[length]`` ids each, of any lengths.
        pad_token_id: id that fills.
        multiple: of the padded length.

    Returns:
        ``[rows, padded length]`` ids.
    """
    longest = max((row.size for row in rows), default=0)
    width = -(-longest // multiple) * multiple
    padded = np.full((len(rows), width), pad_token_id, dtype=np.int64)
    for target, row in zip(padded, rows, strict=True):
        target[: row.size] = row
    return padded


def lengths_mask(lengths: NDArray[np.integer], width: int) -> NDArray[np.bool_]:
    """True at the first ``lengths[row]`` places of each row, ``[rows, width]``."""
    return np.arange(width) < lengths[:, None]
