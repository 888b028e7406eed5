"""Blocks made many at a time are those of the plain packing, document by document."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.data.blocks import pack_document
from metro_t0.data.encoding import encode_texts, token_dtype
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer

WORDS = ["the", "sea", "was", "quiet", "\u200b", "and", "cold,", "x" * 40, "ü", "\n", "\n", " "]
documents = st.lists(
    st.lists(st.sampled_from(WORDS), max_size=40).map(" ".join).map(lambda text: text.replace(" \n ", "\n")),
    max_size=6,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("tokenizer") / "small"
    train_tokenizer(["the sea was quiet and cold, the seas were colder x xx xxx"], 80, out)
    return out


def plain(
    texts: list[str], tokenizer: MetroT0Tokenizer, max_length: int, copies: list[int]
) -> dict[str, object]:
    blocks, owners, counted = [], [], {"lines": 0, "cut_lines": 0, "blank_lines": 0, "dropped_blocks": 0}
    for number, (text, times) in enumerate(zip(texts, copies, strict=True)):
        lines = [line for line in text.splitlines() if line and not line.isspace()]
        ids = tokenizer.encode_texts(lines)
        packed = pack_document(ids, max_length=max_length)
        blocks += packed.blocks * times
        owners += [number] * len(packed.blocks) * times
        counted["lines"] += sum(map(bool, ids))
        counted["blank_lines"] += sum(not line for line in ids)
        counted["cut_lines"] += packed.cut_lines
        counted["dropped_blocks"] += packed.dropped_blocks
    return {"blocks": blocks, "documents": owners, **counted}


@given(documents, st.integers(3, 20), st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_blocks_equal_the_plain_packing(
    tokenizer: Path, texts: list[str], max_length: int, copies: list[int]
) -> None:
    copies = copies[: len(texts)]
    made = encode_texts(
        texts, numbers=range(len(texts)), tokenizer=tokenizer, max_length=max_length, copies=copies
    )
    ends = np.cumsum(made.lengths)
    expected = plain(texts, MetroT0Tokenizer.from_pretrained(str(tokenizer)), max_length, copies)
    blocks = [block.tolist() for block in np.split(made.tokens, ends)[:-1]]
    assert blocks == expected.pop("blocks")
    assert made.documents.tolist() == expected.pop("documents")
    assert {name: getattr(made, name) for name in expected} == expected
    assert made.unknown_tokens == sum(block.count(3) for block in blocks)


def test_tokens_take_two_bytes_up_to_65536_entries() -> None:
    assert token_dtype(65_536) is np.uint16
    assert token_dtype(65_537) is np.int32
