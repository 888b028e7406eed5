"""The text normalisers that run before SentencePiece, one of them for each vocabulary.

Used by the tokenizer and by the training of vocabularies, so that both see the same text. The published one is for
English: straight quotes, and punctuation set apart from words:

>>> normalize = TextNormalizer(lower=True)
>>> normalize("``Don't!'' she said (twice).")
'" don\\'t !" she said ( twice ).'

The neutral one is for any language:

>>> NeutralNormalizer()("“Cafe\\u0301”  !")
'“Café”  !'
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable

NORMALIZERS = ("english", "neutral")

STRAIGHT = tuple(zip("‘’´“”—–", "'''\"\"--", strict=True))
_CONTRACTION = re.compile(r"' ([smdSMDtT]|ll|re|ve)\b")
# What follows an upper-case contraction is set apart from it too: "' LL-x" becomes "'LL -x".
_UPPER_CONTRACTION = re.compile(r"' (LL|RE|VE)\b ?")


def is_punctuation(character: str) -> bool:
    """Whether one character is an ASCII symbol or of a Unicode category P*; no other symbol counts."""
    if character.isascii():
        return "!" <= character <= "~" and not character.isalnum()
    return unicodedata.category(character).startswith("P")


class _CharacterKinds(dict[int, str]):
    """Translation table, filled as characters turn up: punctuation becomes "!", whitespace " ", all else stays."""

    def __missing__(self, code_point: int) -> str:
        character = chr(code_point)
        kind = "!" if is_punctuation(character) else " " if character.isspace() else character
        self[code_point] = kind
        return kind


class TextNormalizer:
    """Callable ``text -> normalised text``: one line, words and punctuation runs separated by single spaces.

    The steps, in order (as the official ``data/encoders/guoke_tokenizer.py`` defines the text that its
    vocabularies expect): straight quotes and dashes; the punctuation runs at both ends of every
    whitespace-separated word set apart, punctuation inside (``3,000.50``) left; English contractions
    (``'s 'm 'd 't 'll 're 've``) attached again to their apostrophe; lower case last, if ``lower``.
    """

    def __init__(self, lower: bool) -> None:
        self.lower = lower
        self._kinds = _CharacterKinds()

    def __call__(self, text: str) -> str:
        text = text.replace("``", '"').replace("''", '"')
        if not text.isascii():
            for typographic, straight in STRAIGHT:
                text = text.replace(typographic, straight)
        kinds = text.translate(self._kinds)
        # Most lines have single spaces only: to see that is cheaper than to split them into words.
        if "  " in kinds or kinds[:1] == " " or kinds[-1:] == " " or kinds.count(" ") != text.count(" "):
            text = " ".join(text.split())
            kinds = text.translate(self._kinds)
        line = _set_punctuation_apart(text, kinds)
        if "' " in line:
            line = _CONTRACTION.sub(r"'\1", line)
            line = _UPPER_CONTRACTION.sub(r"'\1 ", line).rstrip(" ")
        return line.lower() if self.lower else line

    def __reduce__(self) -> tuple[type[TextNormalizer], tuple[bool]]:
        # The table stays out of pickles, so that a used and a fresh normaliser have the same fingerprint.
        return TextNormalizer, (self.lower,)


def _set_punctuation_apart(line: str, kinds: str) -> str:
    """``line`` with a space between a word and the punctuation runs at its ends; ``kinds`` is its translation."""
    # One step a punctuation run is several times faster than one a word or a character.
    between = f" {kinds} ".split("!")
    parts, cut = [], 0
    start = stop = len(between[0]) - 1
    opens_word = between[0][-1] == " "
    for segment in between[1:]:
        stop += 1
        if not segment:
            continue
        closes_word = segment[0] == " "
        if opens_word != closes_word:
            boundary = stop if opens_word else start
            parts.append(line[cut:boundary])
            cut = boundary
        start = stop = stop + len(segment)
        opens_word = segment[-1] == " "
    parts.append(line[cut:])
    return " ".join(parts)


class NeutralNormalizer:
    """Callable ``text -> text in Unicode's form NFC``; spaces, case and punctuation of every script stay.

    NFC joins a letter and its accents where Unicode has one character for both, so that a vocabulary need not learn
    both spellings; nobody sees the difference. NFKC, which the published vocabularies apply, would go further and
    change what is read (``x²`` to ``x2``, full-width forms, ligatures): the text could not be given back.
    """

    def __call__(self, text: str) -> str:
        return unicodedata.normalize("NFC", text)


def check_normalizer(name: str) -> None:
    """Refuse a name that is not one of ``NORMALIZERS`` with a ValueError that lists them."""
    if name not in NORMALIZERS:
        raise ValueError(f"there is no normalizer {name!r}; there are: {', '.join(NORMALIZERS)}")


def make_normalizer(name: str, lower: bool) -> Callable[[str], str]:
    """The normaliser ``name``, one of ``NORMALIZERS``; the neutral one keeps case whatever ``lower`` says.

    Raises:
        ValueError: there is no normaliser of that name.
    """
    check_normalizer(name)
    return NeutralNormalizer() if name == "neutral" else TextNormalizer(lower)
