"""Norms of the gradients: of all together, which clipping needs, and of each part of the network, which a log shows.

    measure = GradientNorms(model.named_parameters())
    norms = measure()                        # after the backward pass; tensors on the device
    norms.total, norms.parts["encoder"]

The parts' squares add up to the total's. A tensor that stacks share (the token embedding, and with it whatever
``auxiliary_sharing`` names) is one parameter: it counts once, among the embeddings.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

import torch
from torch import nn

from metro_t0.training.distributed import whole

_EMBEDDINGS = ("shared", "embed_tokens", "pos_embed", "first_layer_norm")
_BY_FIRST_NAME = {
    "encoder": "encoder",
    "decoder": "decoder",
    "auxiliary": "auxiliary",
    "rtd_head": "detection_head",
}


@dataclass(frozen=True)
class Norms:
    """Euclidean norms, float32, the same on all processes.

    Attributes:
        total: scalar, of all gradients.
        parts: scalars by the part's name, the same parts every time.
    """

    total: torch.Tensor
    parts: dict[str, torch.Tensor]


def part_of(name: str) -> str:
    """The part of the network that a parameter belongs to, by its name.

    The auxiliary model's own embeddings, where it shares none, are its own part.
    """
    first, *more = name.split(".")
    if first != "auxiliary" and any(word in _EMBEDDINGS for word in (first, *more)):
        return "embeddings"
    return _BY_FIRST_NAME.get(first, "other")


class GradientNorms:
    """Measures a network's gradients.

    Args:
        parameters: by name, shared ones once; those that need no gradient are left out.
    """

    def __init__(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> None:
        self._parameters = [(part_of(name), p) for name, p in parameters if p.requires_grad]
        self._parts = tuple(dict.fromkeys(part for part, _ in self._parameters))

    def __call__(self) -> Norms:
        """Norms of the gradients as they are; with sharded ones all processes call it."""
        found = [(part, p.grad) for part, p in self._parameters if p.grad is not None]
        if not found:
            return Norms(torch.zeros(()), {part: torch.zeros(()) for part in self._parts})
        # What nn.utils.get_total_norm does, with the tensors' own norms kept: one pass over the gradients for all.
        norms = whole(torch.stack(torch._foreach_norm([gradient for _, gradient in found], 2.0)))
        slices: dict[str, list[torch.Tensor]] = {part: [norms[:0]] for part in self._parts}
        start = 0
        for part, members in groupby(part for part, _ in found):
            end = start + len(list(members))
            slices[part].append(norms[start:end])
            start = end
        parts = {part: torch.linalg.vector_norm(torch.cat(pieces)) for part, pieces in slices.items()}
        return Norms(torch.linalg.vector_norm(norms), parts)
