"""Near-duplicates: real MinHash over scratch files."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import numpy as np
import pytest

from metro_t0.data.near_duplicates import NearDuplicates, Similarity, near_duplicates

pytest.importorskip("datatrove")


def article(seed: int, words: int = 300) -> list[str]:
    rng = random.Random(seed)
    return ["".join(rng.choices("aeioukrstnml", k=5)) for _ in range(words)]


def edited(words: list[str], edits: int) -> str:
    changed = list(words)
    for place in range(edits):
        changed[place * (len(words) // edits)] = "changed"
    return " ".join(changed)


def corpus() -> tuple[list[str], list[bool]]:
    """Forty articles; those of even number again later with two words changed and other case and signs."""
    texts = [" ".join(article(number)) for number in range(40)]
    again = [edited(article(number), 2).upper().replace(" ", ", ", 5) for number in range(0, 40, 2)]
    half = [edited(article(number), 60) for number in range(1, 40, 2)]
    short = ["only four words here", "only four words here"]
    return texts + again + half + short, [False] * 40 + [True] * 20 + [False] * 22


def test_later_ones_of_a_cluster_are_left_out_whatever_the_cut(tmp_path: Path) -> None:
    texts, expected = corpus()
    whole = near_duplicates(texts, tmp_path / "a")
    assert whole.tolist() == expected
    assert not (tmp_path / "a").exists()

    search = NearDuplicates(tmp_path / "b")
    cuts = [0, 1, 25, 25, 61, len(texts)]
    parts = [texts[start:end] for start, end in itertools.pairwise(cuts)]
    counts = [search.sign(unit, iter(part)) for unit, part in enumerate(parts)]
    search.sign(2, iter(parts[2]))  # a unit signed again, as after an interruption
    drops = search.find(counts, workers=2)
    assert [len(drop) for drop in drops] == counts
    np.testing.assert_array_equal(np.concatenate(drops), whole)


def test_a_chain_is_one_cluster_and_its_first_document_stays(tmp_path: Path) -> None:
    words = article(7)
    texts = [edited(words, 1), "other " + " ".join(article(8)), *(edited(words, edits) for edits in (3, 5))]
    assert near_duplicates(texts, tmp_path / "a").tolist() == [False, False, True, True]
    assert near_duplicates([], tmp_path / "a").tolist() == []


def test_a_long_document_has_the_signature_of_its_text(tmp_path: Path) -> None:
    words = article(9, 40_000)
    texts = [" ".join(words), edited(words, 20), " ".join(article(10, 40_000))]
    assert near_duplicates(texts, tmp_path / "a").tolist() == [False, True, False]


def test_wrong_settings_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="buckets of the near-duplicate search must be 1 or more, not 0"):
        near_duplicates(["a"], tmp_path / "a", similarity=Similarity(buckets=0))
    (tmp_path / "file").write_text("mine", encoding="utf-8")
    with pytest.raises(ValueError, match="the folder for scratch files is not empty"):
        near_duplicates(["a"], tmp_path)
    assert (tmp_path / "file").exists()
