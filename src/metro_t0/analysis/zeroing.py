"""The check on first-order sensitivities: what the loss really does when a group of parameters is zero.

>>> before = loss()
>>> for group in chosen_groups(groups, layers=4):
...     with zeroed(groups[group]):
...         lost = loss() - before
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn

from metro_t0.analysis.parameters import Group


@contextmanager
def zeroed(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """The parameters are zero inside and, bit for bit, what they were afterwards."""
    with torch.no_grad():
        kept = [parameter.detach().clone() for parameter in parameters]
        try:
            for parameter in parameters:
                parameter.zero_()
            yield
        finally:
            for parameter, values in zip(parameters, kept, strict=True):
                parameter.copy_(values)


def chosen_groups(groups: Collection[Group], layers: int) -> list[Group]:
    """The groups of at most so many layers of each stack, evenly spaced from first to last, and those of no layer."""
    highest: dict[str, int] = {}
    for group in groups:
        if group.layer is not None:
            highest[group.stack] = max(group.layer, highest.get(group.stack, 0))
    kept = {
        stack: set(np.unique(np.linspace(0, last, min(layers, last + 1)).round()).astype(int).tolist())
        for stack, last in highest.items()
    }
    return [group for group in groups if group.layer is None or group.layer in kept[group.stack]]
