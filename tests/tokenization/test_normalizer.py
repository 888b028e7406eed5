"""The normaliser against a plain twin that walks words and characters one by one."""

from __future__ import annotations

import pickle
import re
import sys
import time
import unicodedata

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from metro_t0.tokenization.normalizer import TextNormalizer, is_punctuation

WHITESPACE = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
PUNCTUATION = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"]
ASCII_SYMBOLS = [*"!\"#$%&'()*+,-./", *":;<=>?@", *"[\\]^_`", *"{|}~"]
SUFFIXES = ["s", "m", "d", "t", "S", "M", "D", "T", "ll", "re", "ve", "LL", "RE", "VE"]


def plain_is_punctuation(character: str) -> bool:
    return character in ASCII_SYMBOLS or unicodedata.category(character)[0] == "P"


def plain_word_parts(word: str) -> list[str]:
    """Leading punctuation, core, trailing punctuation; a word of only punctuation stays whole."""
    core = [position for position, character in enumerate(word) if not plain_is_punctuation(character)]
    if not core:
        return [word]
    first, last = core[0], core[-1]
    return [part for part in (word[:first], word[first : last + 1], word[last + 1 :]) if part]


def plain_normalize(text: str, lower: bool) -> str:
    text = text.strip().replace("``", '"').replace("''", '"')
    for typographic, straight in {
        "‘": "'",
        "’": "'",
        "´": "'",
        "“": '"',
        "”": '"',
        "—": "-",
        "–": "-",
    }.items():
        text = text.replace(typographic, straight)
    line = " ".join(part for word in text.split() for part in plain_word_parts(word))
    for suffix in SUFFIXES:
        replacement = f"'{suffix} " if suffix in ("LL", "RE", "VE") else f"'{suffix}"
        line = re.sub(rf"' {suffix}\b", replacement, line)
    line = " ".join(line.split())
    return line.lower() if lower else line


nasty_text = st.lists(
    st.one_of(
        st.sampled_from([*"abZ3é中Σİß`'‘’´“”—–-_$^", "``", "''", "' "]),
        st.sampled_from(SUFFIXES),
        st.sampled_from(WHITESPACE),
        st.sampled_from(PUNCTUATION),
        st.sampled_from(ASCII_SYMBOLS),
        st.characters(),
    ),
    max_size=30,
).map("".join)


@given(text=nasty_text, lower=st.booleans())
@example(text="' LL-x ' ll' s", lower=False)
@example(text="x' VE", lower=True)
@example(text=" '' ` s ‘’d ' t_ ' t\u0301", lower=True)
@example(text="ΑΣ' S ΟΔΟΣ", lower=True)
@example(text="\x1ca\x85b\u2028(c)\u200b", lower=False)
def test_equals_plain_twin(text: str, lower: bool) -> None:
    assert TextNormalizer(lower)(text) == plain_normalize(text, lower)


def test_punctuation_of_every_character() -> None:
    characters = map(chr, range(sys.maxunicode + 1))
    wrong = [each for each in characters if is_punctuation(each) != plain_is_punctuation(each)]
    assert wrong == []


@pytest.mark.parametrize("character", [*WHITESPACE, *PUNCTUATION, *"$+<=>^`|~°€©¬\u0301\u200b\x00\x7f"])
def test_every_kind_of_character_around_words(character: str) -> None:
    text = f"{character}a{character}b{character} {character}{character} c{character}' s"
    assert TextNormalizer(False)(text) == plain_normalize(text, False)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  Hello,\n\tworld!  ", "hello , world !"),
        ("state-of-the-art costs 3,000.50 (U.S.A).", "state-of-the-art costs 3,000.50 ( u.s.a )."),
        ("``Quoted'' — “twice”…", '" quoted " - " twice "…'),
        ("they ' ll don ' t", "they 'll don 't"),
        ("--- *** !?", "--- *** !?"),
        ("", ""),
        (" \n", ""),
    ],
)
def test_examples(text: str, expected: str) -> None:
    assert TextNormalizer(True)(text) == expected


def test_case_is_kept_without_lower() -> None:
    assert TextNormalizer(False)("Yes, NO.") == "Yes , NO ."


def test_long_runs_of_punctuation_take_linear_time() -> None:
    normalize = TextNormalizer(True)
    text = "a" + "-" * 400_000 + "b " + "'" * 200_001 + "x"
    start = time.perf_counter()
    assert len(normalize(text)) == 400_002 + 1 + 100_001 + 2
    assert time.perf_counter() - start < 2


def test_pickle_does_not_depend_on_use() -> None:
    fresh, used = TextNormalizer(True), TextNormalizer(True)
    used("Çok güzel, “değil” mi?")
    assert pickle.dumps(fresh) == pickle.dumps(used)
    assert pickle.loads(pickle.dumps(used))("A b.") == "a b ."
