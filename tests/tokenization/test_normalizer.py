"""The normaliser against a plain twin that walks words and characters one by one."""

from __future__ import annotations

import pickle
import sys
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from metro_t0.data.corpora import read_documents
from metro_t0.tokenization.normalizer import (
    NeutralNormalizer,
    TextNormalizer,
    is_punctuation,
    make_normalizer,
)
from metro_t0.tokenization.sampling import random_lines
from plain_normalizer import plain_is_punctuation, plain_normalize

WHITESPACE = [chr(code) for code in range(sys.maxunicode + 1) if chr(code).isspace()]
PUNCTUATION = [chr(code) for code in range(sys.maxunicode + 1) if unicodedata.category(chr(code))[0] == "P"]
ASCII_SYMBOLS = [*"!\"#$%&'()*+,-./", *":;<=>?@", *"[\\]^_`", *"{|}~"]
SUFFIXES = ["s", "m", "d", "t", "S", "M", "D", "T", "ll", "re", "ve", "LL", "RE", "VE"]


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


@settings(max_examples=1000)
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


@pytest.mark.slow
def test_a_hundred_thousand_real_lines(real_data: Path) -> None:
    normalize = TextNormalizer(False)
    texts = (document.text for document in read_documents([str(real_data / "pretrain" / "*.jsonl.xz")]))
    lines = random_lines(texts, 100_000, seed=1)
    assert len(lines) == 100_000
    differing = [line for line in lines if normalize(line) != plain_normalize(line, False)]
    assert differing == []


def test_some_real_lines(real_data: Path) -> None:
    texts = (document.text for document in read_documents([str(real_data / "pretrain" / "wiki*.xz")]))
    lines = random_lines(texts, 5_000, seed=2)
    for lower in (True, False):
        normalize = TextNormalizer(lower)
        assert [normalize(line) for line in lines] == [plain_normalize(line, lower) for line in lines]


@pytest.mark.parametrize(
    "text", ["  “Ça  va ?”\t", "I ' ll DON'T", "Ελληνικά, ΟΔΟΣ.", "中文，没有空格。", "x² ﬁ ＡＢ", "", " \n"]
)
def test_neutral_keeps_what_is_there(text: str) -> None:
    assert NeutralNormalizer()(text) == text


def test_neutral_joins_accents() -> None:
    assert make_normalizer("neutral", True)("Cafe\u0301 \u1100\u1161") == "Café \uac00"


def test_names_of_normalizers() -> None:
    assert make_normalizer("english", False)("A b.") == "A b ."
    with pytest.raises(ValueError, match="no normalizer 'klingon'; there are: english, neutral"):
        make_normalizer("klingon", True)
