"""Rows of text and of prompts as a model reads them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.analysis.inputs import cut_into_batches, encode_prompts, read_prompts, read_text
from metro_t0.data.prepare import PreparedCorpus
from metro_t0.tokenization.inspection import open_tokenizer


def test_text_is_the_held_out_part_of_the_corpus(analysed: Path) -> None:
    corpus = PreparedCorpus.load(analysed / "prepared")
    tokenizer = open_tokenizer(corpus.tokenizer)
    held_out = {tuple(ids) for ids in corpus.validation["input_ids"]}
    text = read_text(analysed / "prepared", tokenizer, rows=7, longest=64, seed=3)
    assert len(text.rows) == 7
    assert {tuple(row["input_ids"].tolist()) for row in text.rows} <= held_out
    assert text.note == ""
    short = read_text(analysed / "prepared", tokenizer, rows=7, longest=5, seed=3)
    assert [row["input_ids"].tolist() for row in short.rows] == [
        row["input_ids"][:5].tolist() for row in text.rows
    ]
    every = read_text(analysed / "prepared", tokenizer, rows=10**6, longest=64, seed=3)
    assert len(every.rows) == len(corpus.validation)


def test_a_corpus_of_another_vocabulary_is_tokenized_anew(analysed: Path) -> None:
    own = open_tokenizer(analysed / "prepared" / "tokenizer")
    other = open_tokenizer(analysed / "other" / "prepared" / "tokenizer")
    as_it_is = read_text(analysed / "prepared", own, rows=4, longest=64, seed=0)
    anew = read_text(analysed / "prepared", other, rows=4, longest=64, seed=0)
    assert as_it_is.note == ""
    assert f"{len(other)} ids, not {len(own)}" in anew.note
    for one, two in zip(as_it_is.rows, anew.rows, strict=True):
        assert (two["input_ids"][0], two["input_ids"][-1]) == (0, 2)
        texts = [
            tokenizer.decode(row["input_ids"].tolist(), skip_special_tokens=True)
            for tokenizer, row in ((own, one), (other, two))
        ]
        # Vocabularies differ in where they put spaces around signs.
        one_text, other_text = ("".join(text.split()) for text in texts)
        assert one_text[:12] == other_text[:12]


def test_a_file_of_text_is_packed_as_a_corpus_is(analysed: Path) -> None:
    tokenizer = open_tokenizer(analysed / "prepared" / "tokenizer")
    text = read_text(analysed / "own.txt", tokenizer, rows=3, longest=64, seed=0)
    lines = tokenizer.encode_texts(["A line of text.", "And another line, of more text."])
    for row in text.rows:
        ids = row["input_ids"].tolist()
        assert ids[0] == 0 and ids[-1] == 2 and len(ids) <= 64
        parts = " ".join(map(str, ids[1:-1])).split(" 2 ")
        assert all([int(word) for word in part.split()] in lines for part in parts)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("gone", "there is no text at"),
        ("latin.txt", "latin.txt"),
        ("blank.txt", "there is no text in .*blank.txt"),
        ("invisible.txt", "invisible.txt holds no text"),
        ("metro", "metro is not a prepared corpus"),
    ],
)
def test_no_text_is_said_in_one_line(analysed: Path, name: str, words: str) -> None:
    tokenizer = open_tokenizer(analysed / "prepared" / "tokenizer")
    with pytest.raises(ValueError, match=words):
        read_text(analysed / name, tokenizer, rows=3, longest=24, seed=0)


def test_prompts_are_questions_with_their_right_answers(analysed: Path) -> None:
    questions = read_prompts(analysed / "suite.yaml", rows=6, seed=0)
    assert len(questions) == len(set(questions)) == 6
    for question, answer in questions:
        number = int(question.removeprefix("Bought ").removesuffix(". Good?"))
        assert answer == ["No", "Yes"][number % 2]
    tokenizer = open_tokenizer(analysed / "prepared" / "tokenizer")
    row = encode_prompts([("Bought  3.\nGood?", "Yes")], tokenizer, longest_input=64, longest_answer=8).rows[
        0
    ]
    assert row["input_ids"].tolist() == tokenizer("Bought 3. Good?")["input_ids"]
    assert row["labels"].tolist() == [*tokenizer.encode_texts(["Yes"])[0], 2]
    cut = encode_prompts(
        [("Bought 3. Good?", "Yes, it is good")], tokenizer, longest_input=4, longest_answer=3
    )
    assert cut.rows[0]["input_ids"].tolist() == [*row["input_ids"][:3].tolist(), 2]
    assert cut.rows[0]["labels"].size == 3 and cut.rows[0]["labels"][-1] == 2


def test_a_suite_without_answers_to_choose_from(analysed: Path, tmp_path: Path) -> None:
    template = (analysed / "template.yaml").read_text(encoding="utf-8")
    (tmp_path / "template.yaml").write_text(
        "dataset: reviews\ntemplates:\n" + template[template.index("  two:") :], encoding="utf-8"
    )
    suite = (analysed / "suite.yaml").read_text(encoding="utf-8")
    (tmp_path / "suite.yaml").write_text(
        suite.replace("reviews.jsonl", str(analysed / "reviews.jsonl")), encoding="utf-8"
    )
    with pytest.raises(ValueError, match="no template has answer_choices"):
        read_prompts(tmp_path / "suite.yaml", rows=3, seed=0)


@given(
    st.lists(st.tuples(st.integers(1, 40), st.integers(1, 9)), min_size=1, max_size=30),
    st.integers(1, 200),
)
def test_batches_keep_the_order_and_the_budget(lengths: list[tuple[int, int]], batch_tokens: int) -> None:
    rows = [
        {"input_ids": np.zeros(one, dtype=np.int64), "labels": np.zeros(other, dtype=np.int64)}
        for one, other in lengths
    ]
    batches = cut_into_batches(rows, batch_tokens)
    assert [place for places in batches for place in places] == list(range(len(rows)))
    padded = [
        len(places) * sum(max(lengths[place][side] for place in places) for side in (0, 1))
        for places in batches
    ]
    for places, tokens, following in zip(batches, padded, [*batches[1:], None], strict=True):
        assert len(places) == 1 or tokens <= batch_tokens
        if following:
            together = [*places, following[0]]
            widths = sum(max(lengths[place][side] for place in together) for side in (0, 1))
            assert len(together) * widths > batch_tokens, "a batch takes what fits"
