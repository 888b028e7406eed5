"""What the two ways of scoring answers have in common: :mod:`.folded` for our models, :mod:`.plain` for others.

scorer.encode(["Is the sky blue?"], max_length=512, keep_start=True)
prompt = DistinctPrompt(tokens, {answer: 0.0, other: 0.0})
scorer.score([prompt], most_tokens=4096)
prompt.scores                                             # filled in
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

Tokens = tuple[int, ...]

# Logits held at once, in numbers: on a CPU about what its cache holds.
LOGITS_AT_ONCE = {"cpu": 2**21, "cuda": 2**27}


@dataclass
class DistinctPrompt:
    """A prompt, its distinct answers with their scores, and how many given rows ask about it.

    Attributes:
        tokens: the prompt.
        scores: log-likelihood of each answer.
        rows: how many given rows ask about it.
        greedy: the answers whose every token is the likeliest one; filled in by a scorer that watches for it.
    """

    tokens: Tokens
    scores: dict[Tokens, float] = field(default_factory=dict)
    rows: int = 0
    greedy: set[Tokens] = field(default_factory=set)


@dataclass(frozen=True)
class Encoded:
    """Token ids of each distinct text, and which texts were cut."""

    tokens: dict[str, Tokens]
    cut: set[str]


@dataclass(frozen=True)
class Size:
    """What a prompt takes up of a batch: so many rows, each as long as its padded prompt and its padded answers."""

    rows: int
    prompt: int
    answers: int


class Scorer(Protocol):
    """A way of scoring answers with one model."""

    def encode(self, texts: Sequence[str], *, max_length: int, keep_start: bool) -> Encoded:
        """Tokens with the end token, and the start token where it is kept; at most ``max_length``, both counted."""

    def size(self, prompt: DistinctPrompt) -> Size:
        """What the prompt takes up."""

    def score(self, prompts: Sequence[DistinctPrompt], most_tokens: int) -> None:
        """Fills in the scores. A prompt of many rows is taken a few rows at a time, to keep to ``most_tokens``."""


def pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of integers as one ``[B, longest]`` tensor, filled up on the right."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], dtype=torch.long)
