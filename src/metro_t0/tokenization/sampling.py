"""Seeded samples of the lines of a stream that is read once and may be of any size.

>>> lines = random_lines(texts, 1000, seed=0)                     # 1000 of them, in memory
>>> lines = sample_lines(texts, max_characters=10**8, seed=0)     # a share of them, by way of the disk
"""

from __future__ import annotations

import json
import random
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


def lines_of(texts: Iterable[str]) -> Iterator[str]:
    """The lines of texts, blank ones left out."""
    for text in texts:
        yield from (line for line in text.splitlines() if line and not line.isspace())


def random_lines(texts: Iterable[str], count: int, seed: int) -> list[str]:
    """``count`` lines drawn without replacement, in random order; all of them where there are no more.

    Raises:
        ValueError: ``count`` is below 1.
    """
    if count < 1:
        raise ValueError(f"the number of lines to draw must be at least 1, not {count}")
    rng = random.Random(seed)
    drawn: list[str] = []
    for number, line in enumerate(lines_of(texts)):
        if number < count:
            drawn.append(line)
        elif (place := rng.randrange(number + 1)) < count:
            drawn[place] = line
    rng.shuffle(drawn)
    return drawn


def sample_lines(texts: Iterable[str], *, max_characters: int, seed: int) -> Iterator[str]:
    """The lines in their order: all, or where they have more than ``max_characters`` a random share of them.

    The share is 1/2, 1/4, ..., the largest under which the sample has at most ``max_characters``, whatever the stream's
    size. Candidates wait in a temporary file of at most a few times ``max_characters``; memory holds one text.

    Raises:
        ValueError: ``max_characters`` is below 1, or the temporary file cannot be written.
    """
    if max_characters < 1:
        raise ValueError(f"a sample needs at least 1 character, not {max_characters}")
    rng = random.Random(seed)
    halvings = 0
    # Of the lines kept so far: characters of those that survive exactly so many halvings.
    characters: list[int] = [0] * 64
    with tempfile.TemporaryFile("w+", encoding="ascii") as waiting:
        for line in lines_of(texts):
            survives = _halvings_survived(rng)
            if survives < halvings:
                continue
            characters[survives] += len(line)
            with _disk_errors():
                waiting.write(f"{survives} {json.dumps(line)}\n")
            while sum(characters[halvings:]) > max_characters and halvings < 63:
                halvings += 1
        with _disk_errors():
            waiting.seek(0)
        for record in waiting:
            survives_text, line = record.split(" ", 1)
            if int(survives_text) >= halvings:
                yield json.loads(line)


@contextmanager
def _disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        folder = tempfile.gettempdir()
        raise ValueError(
            f"cannot keep the sample of lines in {folder}: {error.strerror}; make room or set TMPDIR to another disk"
        ) from error


def _halvings_survived(rng: random.Random) -> int:
    """How often a coin shows heads in a row, at most 63 times."""
    return 63 - rng.getrandbits(63).bit_length()
