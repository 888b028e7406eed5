"""A network's parameters in groups that a person can name: a stack, a layer, a kind of matrix.

>>> for group, parameters in parameter_groups(model).items():
...     group.stack, group.layer, group.kind, sum(p.numel() for p in parameters)
("encoder", 0, "self-attention q", 590592)
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

_BLOCK = re.compile(r"block\.(\d+)\.(.+)")
_KINDS = (
    (re.compile(r"SelfAttention\.([qkvo])\."), "self-attention {}"),
    (re.compile(r"EncDecAttention\.([qkvo])\."), "cross-attention {}"),
    (re.compile(r"DenseReluDense\.(wi|wo)\."), "feed-forward {}"),
    (re.compile(r"relative_attention_bias"), "relative bias"),
    (re.compile(r"^(?:layer\.\d\.|first_)layer_norm\."), "LayerNorm"),
    (re.compile(r"^(?:shared|embed_tokens)\."), "token embedding"),
    (re.compile(r"^pos_embed\."), "position embedding"),
    (re.compile(r"^lm_head\."), "output projection"),
)
KINDS = (
    "token embedding",
    "position embedding",
    *(f"self-attention {matrix}" for matrix in "qkvo"),
    "relative bias",
    *(f"cross-attention {matrix}" for matrix in "qkvo"),
    "feed-forward wi",
    "feed-forward wo",
    "LayerNorm",
    "output projection",
    "head",
)
"""All kinds, in the order in which they are shown."""


@dataclass(frozen=True)
class Group:
    """Which parameters: a matrix with its bias, the LayerNorms of a layer, an embedding.

    Attributes:
        stack: ``encoder``, ``decoder``, ``auxiliary``, ``detection``, or ``shared``, the one token embedding of all.
        layer: from 0; None for what belongs to no layer.
        kind: one of ``KINDS``.
    """

    stack: str
    layer: int | None
    kind: str

    def __str__(self) -> str:
        place = self.stack if self.layer is None else f"{self.stack} {self.layer + 1}"
        return f"{place}: {self.kind}"


def group_of(name: str) -> Group:
    """The group of a parameter by its name in the network."""
    stack, _, rest = name.partition(".")
    if stack == "auxiliary":
        part, _, inner = rest.partition(".")
        if part == "head":
            return Group("auxiliary", None, "head")
        rest = inner
    elif stack == "rtd_head":
        return Group("detection", None, "head")
    elif stack not in ("encoder", "decoder"):
        return Group("shared", None, _kind(name))
    in_block = _BLOCK.match(rest)
    if in_block is None:
        return Group(stack, None, _kind(rest))
    return Group(stack, int(in_block[1]), _kind(in_block[2]))


def _kind(name: str) -> str:
    for pattern, kind in _KINDS:
        if found := pattern.search(name):
            return kind.format(*found.groups())
    raise ValueError(
        f"parameter {name!r} is of no kind that METRO-T0's networks have: sensitivity is measured in networks of this "
        "package and published METRO-T0 models alone"
    )


def parameter_groups(model: nn.Module) -> dict[Group, list[nn.Parameter]]:
    """Every parameter once, in groups, in the order of the network; a tied one under its first name.

    Raises:
        ValueError: the network is not of METRO-T0's kind.
    """
    groups: dict[Group, list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        groups.setdefault(group_of(name), []).append(parameter)
    return groups
