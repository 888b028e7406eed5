"""What a vocabulary does with a corpus: how long its tokens are, what it does not know, how it cuts.

>>> found = inspect_tokenizer(open_tokenizer(Path("tokenizer")), lines)
>>> found["tokens_per_word"], found["unknown_rate"]
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .tokenizer import UNKNOWN_ID, MetroT0Tokenizer

_BATCH_LINES = 1000
_UNKNOWN_SHOWN = 20


def open_tokenizer(folder: Path) -> MetroT0Tokenizer:
    """The tokenizer of a folder.

    Raises:
        ValueError: there is no such folder, or it holds no tokenizer that can be read.
    """
    if not folder.is_dir():
        raise ValueError(f"the tokenizer folder {folder} does not exist")
    try:
        return MetroT0Tokenizer.from_pretrained(str(folder))
    except (OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{folder} holds no tokenizer that can be read: {reason}") from error


def vocabulary_difference(there: MetroT0Tokenizer, here: MetroT0Tokenizer) -> str | None:
    """In what two vocabularies differ, in a few words; None where every id stands for the same."""
    if len(there) != len(here):
        return f"{len(there)} ids, not {len(here)}"
    ids = list(range(len(there)))
    pieces = zip(there.convert_ids_to_tokens(ids), here.convert_ids_to_tokens(ids), strict=True)
    differing = sum(one != other for one, other in pieces)
    if differing:
        return f"{differing} of {len(there)} ids stand for other pieces"
    return "one is cased, the other is not" if there.lower != here.lower else None


def inspect_tokenizer(
    tokenizer: MetroT0Tokenizer,
    lines: Sequence[str],
    *,
    examples: int = 5,
    on_lines: Callable[[int], object] = int,
) -> dict[str, Any]:
    """Count what ``encode_texts`` makes of ``lines``.

    Args:
        examples: how many lines, the first ones, are given with their pieces.
        on_lines: called with the number of lines of each batch counted.

    Returns:
        ``vocabulary`` (size, pieces, sentinels, case, normaliser); ``lines``, ``characters``, ``words`` (separated by
        whitespace) and ``tokens``; ``tokens_per_word`` and ``characters_per_token``; of all tokens the share
        that is unknown (``unknown_rate``), a byte (``byte_rate``) or a single character
        (``single_character_rate``); ``unknown_characters``, the 20 most frequent with their counts; ``examples``.

    Raises:
        ValueError: the lines hold no token.
    """
    counts: Counter[int] = Counter()
    unknown: Counter[str] = Counter()
    for start in range(0, len(lines), _BATCH_LINES):
        batch = list(lines[start : start + _BATCH_LINES])
        for line, ids in zip(batch, tokenizer.encode_texts(batch), strict=True):
            counts.update(ids)
            if UNKNOWN_ID in ids:
                unknown.update(tokenizer.unknown_characters(line))
        on_lines(len(batch))
    tokens = counts.total()
    if not tokens:
        raise ValueError("there is nothing to inspect: the lines hold no token")
    characters, words = sum(map(len, lines)), sum(len(line.split()) for line in lines)
    shown = list(lines[:examples])
    cut = [tokenizer.convert_ids_to_tokens(ids) for ids in tokenizer.encode_texts(shown)]
    single = {id_ for id_ in counts if _is_single(tokenizer.convert_ids_to_tokens(id_))}
    return {
        "vocabulary": {
            "size": len(tokenizer),
            "pieces": tokenizer.mask_id,
            "sentinels": tokenizer.num_sentinel_tokens,
            "lower": tokenizer.lower,
            "normalizer": tokenizer.text_normalizer,
        },
        "lines": len(lines),
        "characters": characters,
        "words": words,
        "tokens": tokens,
        "tokens_per_word": tokens / max(words, 1),
        "characters_per_token": characters / tokens,
        "unknown_rate": counts[UNKNOWN_ID] / tokens,
        "byte_rate": sum(counts[id_] for id_ in counts if tokenizer.is_byte(id_)) / tokens,
        "single_character_rate": sum(counts[id_] for id_ in single) / tokens,
        "unknown_characters": unknown.most_common(_UNKNOWN_SHOWN),
        "examples": [{"line": line, "pieces": pieces} for line, pieces in zip(shown, cut, strict=True)],
    }


def _is_single(piece: str) -> bool:
    """Whether the piece is one character, with or without the mark of a space."""
    return len(piece.removeprefix("▁")) <= 1
