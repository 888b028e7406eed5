"""What is told about a vocabulary, against counts made by hand."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from metro_t0.tokenization.inspection import inspect_tokenizer, open_tokenizer
from metro_t0.tokenization.sampling import random_lines

LINES = ["The function returns 中 and 文.", "  A class, 中!", "☃ it ' ll"]


def test_counts(small_vocabulary: Path) -> None:
    tokenizer = open_tokenizer(small_vocabulary)
    seen: list[int] = []
    found = inspect_tokenizer(tokenizer, LINES, examples=2, on_lines=seen.append)
    pieces = [piece for line in LINES for piece in tokenizer.tokenize(line)]
    vocabulary = tokenizer.get_vocab()
    assert found["vocabulary"] == {
        "size": 1064,
        "pieces": 1000,
        "sentinels": 64,
        "lower": True,
        "normalizer": "english",
    }
    assert (found["lines"], found["characters"], found["words"]) == (3, sum(map(len, LINES)), 13)
    assert found["tokens"] == len(pieces)
    assert found["tokens_per_word"] == len(pieces) / 13
    assert found["characters_per_token"] == sum(map(len, LINES)) / len(pieces)
    assert found["unknown_rate"] == sum(piece not in vocabulary for piece in pieces) / len(pieces) > 0
    assert found["byte_rate"] == 0
    known = [piece for piece in pieces if piece in vocabulary]
    assert found["single_character_rate"] == sum(len(piece.strip("▁")) <= 1 for piece in known) / len(pieces)
    assert found["unknown_characters"] == Counter("中文中☃").most_common()
    assert [example["line"] for example in found["examples"]] == LINES[:2]
    assert found["examples"][1]["pieces"][0] == "▁a"
    assert seen == [3]


def test_many_lines_are_counted_in_batches(small_vocabulary: Path, reference_texts: list[str]) -> None:
    tokenizer = open_tokenizer(small_vocabulary)
    lines = random_lines(reference_texts, 2500, seed=0)
    found = inspect_tokenizer(tokenizer, lines, examples=0)
    assert found["tokens"] == sum(map(len, tokenizer.encode_texts(lines)))
    assert found["examples"] == []


def test_bytes_are_told_apart_from_unknowns(languages_vocabulary: Path) -> None:
    found = inspect_tokenizer(open_tokenizer(languages_vocabulary), ["\U0001f600"])
    assert (found["tokens"], found["byte_rate"], found["unknown_rate"]) == (5, 0.8, 0)
    assert found["unknown_characters"] == []


def test_what_cannot_be_inspected(small_vocabulary: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the lines hold no token"):
        inspect_tokenizer(open_tokenizer(small_vocabulary), ["\u200b"])
    with pytest.raises(ValueError, match="does not exist"):
        open_tokenizer(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="holds no tokenizer that can be read"):
        open_tokenizer(tmp_path)
