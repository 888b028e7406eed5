"""The T5 baseline: spans of a row are cut out of the encoder's input and written by the decoder.

    A B C D E F G   with C D and F cut out, and an empty span before A, becomes
    input   <sen001> A B <sen002> E <sen003> G
    target  <sen001> <sen002> C D <sen003> F <sen000>

``<sen000>`` starts the decoder and ends the target. The network is METRO's own main model, so that a
comparison of the two isolates the objective.

    objective = SpanCorruptionObjective(vocab_size=33280, num_sentinel_tokens=512, pad_token_id=1, seed=1)
    batch = objective.collate(rows, keys)

Facts: METRO-T0 (arXiv 2305.12567), official ``fairseq/data/t5_dataset.py``; the distribution is kept, the
draws are our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from metro_t0.objectives.base import Batch, Row, RowKey
from metro_t0.objectives.masking import round_at_random, row_generator
from metro_t0.objectives.sequence_to_sequence import SequenceToSequenceObjective, collate_pairs


@dataclass(frozen=True)
class SpanCorruption:
    """How spans are drawn.

    Attributes:
        probability: share of the row's length given to spans; an empty span counts as one token.
        empty_probability: share of that given to empty spans.
        max_span_length: span lengths are about uniform on 1 to this.

    Raises:
        ValueError: a probability outside [0, 1], or a maximal length below 1.
    """

    probability: float = 0.15
    empty_probability: float = 0.1
    max_span_length: int = 5

    def __post_init__(self) -> None:
        for name in ("probability", "empty_probability"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"span corruption {name} is {value}; give a number from 0 to 1")
        if self.max_span_length < 1:
            raise ValueError(f"span corruption max_span_length is {self.max_span_length}; give 1 or more")


def draw_spans(
    length: int, settings: SpanCorruption, rng: np.random.Generator
) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
    """Which tokens of a row are cut out, and where empty spans go.

    ``probability * (1 - empty_probability) * length`` over the mean span length gives the number of spans.
    All start with one token; then, up to the maximal length, a random part of those still growing takes one
    more: of five lengths, 4 in 5 after the first token, 3 in 4 after the second, and so on, which leaves each
    length about as frequent. A span that reaches over the end goes on at the row's beginning; spans that
    touch are one. Empty spans make up for the tokens that overlaps lost, at places whose own token and
    neighbours stay.

    Returns:
        ``mask`` ``[length]``, True at tokens cut out, and ``empty`` ``[empty spans]``, positions before which
        an empty span is put.
    """
    mask = np.zeros(length, dtype=np.bool_)
    longest = settings.max_span_length
    span_tokens = settings.probability * (1.0 - settings.empty_probability) * length
    growing = round_at_random(span_tokens / ((1 + longest) / 2), rng)
    # In random order, so that every leading part is a random subset of the one before.
    starts = rng.choice(length, growing, replace=False, shuffle=True)
    mask[starts] = True
    for grown in range(1, longest):
        still = longest - grown
        growing = round_at_random(growing * still / (still + 1), rng)
        mask[(starts[:growing] + grown) % length] = True

    if settings.empty_probability == 0.0:
        return mask, np.empty(0, dtype=np.int64)
    missing = round_at_random(max(0.0, settings.probability * length - np.count_nonzero(mask)), rng)
    most = int(settings.probability * settings.empty_probability * length + 1)
    padded = np.pad(mask, 1)
    free = np.flatnonzero(~(padded[:-2] | padded[1:-1] | padded[2:]))
    return mask, rng.choice(free, min(missing, most, free.size), replace=False)


def corrupt_spans(
    ids: NDArray[np.integer],
    settings: SpanCorruption,
    rng: np.random.Generator,
    vocab_size: int,
    num_sentinel_tokens: int,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Split one row into what the encoder reads and what the decoder writes.

    Args:
        ids: ``[length]`` token ids of one row, specials included, unpadded.
        settings: how spans are drawn.
        rng: source of all draws (see ``row_generator``).
        vocab_size: number of ids, sentinels included.
        num_sentinel_tokens: the last so many ids are ``<sen000>``, ``<sen001>``, …

    Returns:
        ``source`` and ``target``, both int64; source length + target length = length + 2 * spans + 1.

    Raises:
        ValueError: the row holds a sentinel, or has more spans than there are sentinels.
    """
    ids = np.asarray(ids, dtype=np.int64)
    first_sentinel = vocab_size - num_sentinel_tokens
    if (ids >= first_sentinel).any():
        raise ValueError(
            f"a row holds id {ids.max()}, a sentinel or beyond (sentinels start at {first_sentinel}); "
            "prepare the corpus with this model's tokenizer"
        )
    mask, empty = draw_spans(ids.size, settings, rng)
    begins = mask.copy()
    begins[1:] &= ~mask[:-1]
    begins[empty] = True
    number = np.count_nonzero(begins)
    if number >= num_sentinel_tokens:
        raise ValueError(
            f"a row of {ids.size} tokens has {number} spans, and {num_sentinel_tokens} sentinels serve "
            f"{num_sentinel_tokens - 1}; shorten the rows, lower the span corruption probability, "
            "or use a tokenizer with more sentinels"
        )
    # Each token with the sentinel that may stand before it, [length, 2]: either side selects from these.
    sentinels = first_sentinel + np.cumsum(begins)
    pairs = np.stack([sentinels, ids], axis=1)
    source = pairs[np.stack([begins, ~mask], axis=1)]
    target = pairs[np.stack([begins, mask], axis=1)]
    return source, np.append(target, first_sentinel)


@dataclass(frozen=True)
class SpanCorruptionObjective(SequenceToSequenceObjective):
    """Span corruption as an ``Objective`` (see ``objectives/base.py``).

    Attributes:
        vocab_size: number of ids, sentinels included.
        num_sentinel_tokens: number of sentinels, the last ids of the vocabulary.
        seed: seed of all spans.
        corruption: how spans are drawn.
    """

    vocab_size: int
    num_sentinel_tokens: int
    seed: int
    corruption: SpanCorruption = field(default_factory=SpanCorruption)

    @property
    def decoder_start_token_id(self) -> int:
        """``<sen000>``, which also ends every target."""
        return self.vocab_size - self.num_sentinel_tokens

    def collate(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> Batch:
        """Corrupt rows ``{"input_ids": [length]}``, each by draws of its own key, and pad them."""
        pairs = [
            corrupt_spans(
                row["input_ids"],
                self.corruption,
                row_generator(self.seed, *key),
                self.vocab_size,
                self.num_sentinel_tokens,
            )
            for row, key in zip(rows, keys, strict=True)
        ]
        return collate_pairs(
            [source for source, _ in pairs],
            [target for _, target in pairs],
            pad_token_id=self.pad_token_id,
            decoder_start_token_id=self.decoder_start_token_id,
            length_multiple=self.length_multiple,
        )
