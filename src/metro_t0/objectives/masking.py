"""Which tokens the auxiliary model has to guess, and what it sees in their place.

Masking runs on the host, row by row, with draws that are a function of the row's key alone: neither the batch
a row lands in, nor the number of workers, nor a resumed run changes its mask.

    rng = row_generator(seed, epoch, row_index)
    masked_ids, mask = mask_tokens(ids, Masking(), rng, vocab_size=33280, mask_id=32768)

Facts: METRO-T0 (arXiv 2305.12567), official ``fairseq/data/mask_tokens_dataset.py``. The official draws
cannot be repeated (they hang on Python's tuple hash), their distribution is kept.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FIRST_ORDINARY_ID = 4
"""Ids below are ``<s>``, ``<pad>``, ``</s>``, ``<unk>``: never drawn as random replacements."""


@dataclass(frozen=True)
class Masking:
    """How a row is masked.

    Attributes:
        probability: expected share of positions drawn, ``<s>`` and ``</s>`` included. With ``span_length``
            above 1 the masked share comes out lower, since spans overlap and are cut at the row's end.
        span_length: tokens masked from each drawn position on; 1 masks single tokens independently.
        keep_probability: chance that a token of the mask keeps its id (it is still to be predicted).
        random_probability: chance that a token of the mask shows a random id instead of the mask token.

    Raises:
        ValueError: a probability outside [0, 1], ``keep_probability + random_probability`` above 1, or a span
            length below 1.
    """

    probability: float = 0.15
    span_length: int = 1
    keep_probability: float = 0.1
    random_probability: float = 0.1

    def __post_init__(self) -> None:
        for name in ("probability", "keep_probability", "random_probability"):
            value = getattr(self, name)
            if not 0.0 <= value <= 1.0:
                raise ValueError(f"masking {name} is {value}; give a number from 0 to 1")
        if self.keep_probability + self.random_probability > 1.0:
            raise ValueError(
                f"masking keep_probability {self.keep_probability} and random_probability "
                f"{self.random_probability} add up to more than 1; they are shares of the masked tokens"
            )
        if self.span_length < 1:
            raise ValueError(f"masking span_length is {self.span_length}; give 1 (single tokens) or more")

    def most_masked(self, length: int) -> int:
        """How many tokens of a row of this length can be masked at the most (see :func:`mask_tokens`)."""
        drawn = int(self.probability * length / self.span_length) + 1
        return min(length, drawn * self.span_length)


def row_generator(seed: int, *key: int) -> np.random.Generator:
    """A random generator whose draws are a function of ``(seed, *key)`` only.

    Args:
        seed: the run's seed.
        *key: what tells this row's draws from every other's, such as epoch and row index; each fits 64 signed
            bits.
    """
    # A digest, since numpy's SeedSequence pads with zeros and so gives (1,) and (1, 0) the same draws.
    words = struct.pack(f"<{len(key) + 1}q", seed, *key)
    digest = hashlib.blake2b(words, digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64)))


def round_at_random(expected: float, rng: np.random.Generator) -> int:
    """One of the two whole numbers around ``expected``, drawn so that the mean is ``expected``."""
    return int(expected + rng.random())


def mask_tokens(
    ids: NDArray[np.integer], masking: Masking, rng: np.random.Generator, vocab_size: int, mask_id: int
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Draw a mask and write what the auxiliary model sees.

    The number of drawn positions is ``probability * T / span_length``, rounded up or down at random;
    positions are drawn without replacement from the whole row, and each masks ``span_length`` tokens from
    there on: overlapping spans merge, and what would reach over the end is cut. Each masked token,
    independently, keeps its id, shows an id drawn uniformly from all ids from 4 to ``vocab_size - 1``
    (sentinels included), or shows the mask token.

    Args:
        ids: ``[length]`` token ids of one row, specials included, unpadded.
        masking: shares and span length.
        rng: source of all draws (see ``row_generator``).
        vocab_size: number of ids, sentinels included.
        mask_id: id of the mask token.

    Returns:
        ``masked_ids`` ``[length]`` and ``mask`` ``[length]``, True at every position to be predicted.

    Raises:
        ValueError: the row holds the mask token already, so that the auxiliary model could not tell it from a
            mask.
    """
    masked_ids = np.array(ids, dtype=np.int64)
    if (masked_ids == mask_id).any():
        raise ValueError(
            f"a row holds the mask token (id {mask_id}) before masking; "
            "prepare the corpus with this model's tokenizer"
        )
    length = masked_ids.size
    number = round_at_random(masking.probability * length / masking.span_length, rng)
    positions = rng.choice(length, number, replace=False, shuffle=False)
    mask = np.zeros(length, dtype=np.bool_)
    mask[positions] = True
    if masking.span_length > 1:
        for offset in range(1, masking.span_length):
            following = positions + offset
            mask[following[following < length]] = True
        positions = np.flatnonzero(mask)

    draws = rng.random(positions.size)
    shown_random = positions[draws < masking.random_probability]
    shown_mask = positions[draws >= masking.random_probability + masking.keep_probability]
    masked_ids[shown_mask] = mask_id
    masked_ids[shown_random] = rng.integers(FIRST_ORDINARY_ID, vocab_size, shown_random.size)
    return masked_ids, mask
