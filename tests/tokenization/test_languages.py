"""Neutral vocabularies: eight scripts, with and without spaces, learned and given back."""

from __future__ import annotations

import json
import pickle
import unicodedata
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from language_texts import MEAN_WORD_LENGTH, SCRIPTS, WITHOUT_SPACES, sentences

from metro_t0.tokenization.inspection import inspect_tokenizer
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer

UNK = 3


@pytest.fixture
def tokenizer(languages_vocabulary: Path) -> MetroT0Tokenizer:
    return MetroT0Tokenizer.from_pretrained(languages_vocabulary)


@pytest.mark.parametrize("script", SCRIPTS)
def test_sentences_never_seen_are_known_and_given_back(tokenizer: MetroT0Tokenizer, script: str) -> None:
    held_out = sentences(script, 20, seed=1)
    found = inspect_tokenizer(tokenizer, held_out)
    assert (found["unknown_rate"], found["byte_rate"]) == (0, 0)
    assert tokenizer.batch_decode(tokenizer.encode_texts(held_out)) == held_out
    assert tokenizer.batch_decode(tokenizer(held_out).input_ids, skip_special_tokens=True) == held_out
    if script not in WITHOUT_SPACES:
        # Words, not letters.
        assert found["characters_per_token"] > 0.9 * MEAN_WORD_LENGTH[script]


@pytest.mark.parametrize("script", WITHOUT_SPACES)
def test_words_are_learned_where_no_space_shows_them(script: str, tmp_path: Path) -> None:
    texts = sentences(script, 600, seed=0)
    tokenizer = train_tokenizer(texts, 460, tmp_path / "one", normalizer="neutral", num_sentinel_tokens=1)
    held_out = sentences(script, 20, seed=1)
    found = inspect_tokenizer(tokenizer, held_out)
    assert found["byte_rate"] == 0
    assert found["characters_per_token"] > 0.75 * MEAN_WORD_LENGTH[script]
    assert tokenizer.batch_decode(tokenizer.encode_texts(held_out)) == held_out


@pytest.mark.parametrize(
    "text",
    [
        "  Two  spaces, a tab\t, UPPER and lower; it ' s DON'T.  ",
        "“Quotes” — dashes – ``kept'' ‘as’ they are´",
        "line one\nline two\r\n\n",
        "x² ½ ﬁ Ａ ① ſ İ ẞ",
        "☕ \U0001f600 \U00020000 ꙮ",
        "<s> </s> <unk> <sen000> [MASK] <0x41> <pad>",
        "\x00\x01\x7f\u200b\u200d\ufeff\u2028",
        "",
        " ",
        "\n",
    ],
)
def test_any_text_comes_back_byte_by_byte(tokenizer: MetroT0Tokenizer, text: str) -> None:
    [ids] = tokenizer.encode_texts([text])
    assert UNK not in ids
    assert max(ids, default=0) < tokenizer.mask_id
    assert tokenizer.decode(ids) == text


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁")))
def test_any_text_at_all(tokenizer: MetroT0Tokenizer, text: str) -> None:
    [ids] = tokenizer.encode_texts([text])
    assert UNK not in ids
    assert tokenizer.decode(ids) == unicodedata.normalize("NFC", text)


def test_the_sign_that_marks_spaces_comes_back_as_a_space(tokenizer: MetroT0Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode_texts(["a▁b"])[0]) == "a b"


def test_broken_bytes_are_told(tokenizer: MetroT0Tokenizer) -> None:
    first, second = tokenizer.convert_tokens_to_ids(["<0xE2>", "<0x98>"])
    assert tokenizer.decode([first, second]) == "\ufffd"


def test_the_setting_is_saved_and_survives(
    tokenizer: MetroT0Tokenizer, languages_vocabulary: Path, tmp_path: Path
) -> None:
    assert json.loads((languages_vocabulary / "tokenizer_config.json").read_text())["normalizer"] == "neutral"
    tokenizer.save_pretrained(tmp_path / "again")
    text = " Ünïcode,  東京 ² "
    expected = tokenizer.encode_texts([text])
    for copy in (
        MetroT0Tokenizer.from_pretrained(tmp_path / "again"),
        pickle.loads(pickle.dumps(tokenizer)),
    ):
        assert type(copy) is MetroT0Tokenizer
        assert (copy.text_normalizer, copy.lower, copy.has_byte_pieces) == ("neutral", False, True)
        assert copy.encode_texts([text]) == expected
        assert copy.decode(expected[0]) == text


def test_english_vocabularies_are_as_before(small_vocabulary: Path, tmp_path: Path) -> None:
    config = json.loads((small_vocabulary / "tokenizer_config.json").read_text())
    assert config.pop("normalizer") == "english"
    tokenizer = MetroT0Tokenizer.from_pretrained(small_vocabulary)
    assert (tokenizer.text_normalizer, tokenizer.lower, tokenizer.has_byte_pieces) == ("english", True, False)
    # A published folder does not name a normaliser.
    for name in ("sp.model", "dict.txt"):
        (tmp_path / name).write_bytes((small_vocabulary / name).read_bytes())
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    published = MetroT0Tokenizer.from_pretrained(tmp_path)
    assert published("Yes, it's “so”.").input_ids == tokenizer("Yes, it's “so”.").input_ids


def test_repeatable_and_case_is_always_kept(reference_texts: list[str], tmp_path: Path) -> None:
    texts = reference_texts[:20]
    for name, lower in (("one", True), ("two", False)):
        made = train_tokenizer(iter(texts), 600, tmp_path / name, normalizer="neutral", lower=lower)
        assert made.decode(made.encode_texts(["The CLASS"])[0]) == "The CLASS"
    for file in ("sp.model", "dict.txt", "tokenizer_config.json"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


@pytest.mark.parametrize("normalizer", ["english", "neutral"])
def test_a_sample_bounds_what_is_learned(normalizer: str, reference_texts: list[str], tmp_path: Path) -> None:
    for name, seed in (("one", 0), ("two", 0), ("three", 1)):
        train_tokenizer(
            reference_texts,
            400,
            tmp_path / name,
            normalizer=normalizer,
            sample_characters=50_000,
            seed=seed,
        )
    one, two, three = ((tmp_path / name / "sp.model").read_bytes() for name in ("one", "two", "three"))
    assert one == two != three


def test_no_such_normalizer(tmp_path: Path, languages_vocabulary: Path) -> None:
    with pytest.raises(ValueError, match="no normalizer 'latin'; there are: english, neutral"):
        train_tokenizer(["text"], 400, tmp_path / "out", normalizer="latin")
    with pytest.raises(ValueError, match="no normalizer 'latin'"):
        MetroT0Tokenizer.from_pretrained(languages_vocabulary, normalizer="latin")
    assert list(tmp_path.iterdir()) == []
