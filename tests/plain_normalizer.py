"""The published text normaliser, written down rule by rule: word after word, character after character.

What ``TextNormalizer`` is tested against, and what ``benchmarks/tokenizer.py`` measures it beside; it shares no code
with it.
"""

from __future__ import annotations

import re
import unicodedata

STRAIGHT = {"‘": "'", "’": "'", "´": "'", "“": '"', "”": '"', "—": "-", "–": "-"}


def plain_is_punctuation(character: str) -> bool:
    code = ord(character)
    if 33 <= code <= 47 or 58 <= code <= 64 or 91 <= code <= 96 or 123 <= code <= 126:
        return True
    return unicodedata.category(character).startswith("P")


def plain_word_parts(word: str) -> list[str]:
    """Leading punctuation, core, trailing punctuation; a word of only punctuation stays whole."""
    first, last = 0, len(word)
    while first < last and plain_is_punctuation(word[first]):
        first += 1
    if first == last:
        return [word]
    while plain_is_punctuation(word[last - 1]):
        last -= 1
    return [part for part in (word[:first], word[first:last], word[last:]) if part]


def plain_normalize(text: str, lower: bool) -> str:
    text = text.strip().replace("``", '"').replace("''", '"')
    for typographic, straight in STRAIGHT.items():
        text = text.replace(typographic, straight)
    parts: list[str] = []
    for word in text.split():
        parts.extend(plain_word_parts(word))
    line = " ".join(parts)
    for suffix in ("s", "m", "d", "t", "S", "M", "D", "T", "ll", "re", "ve"):
        line = re.sub(rf"' {suffix}\b", f"'{suffix}", line)
    for suffix in ("LL", "RE", "VE"):
        line = re.sub(rf"' {suffix}\b", f"'{suffix} ", line)
    line = " ".join(line.split())
    return line.lower() if lower else line
