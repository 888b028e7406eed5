"""Near-duplicates among made-up documents, through datatrove."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from metro_t0.data import near_duplicates as module
from metro_t0.data.near_duplicates import near_duplicates

pytest.importorskip("datatrove")


def documents() -> tuple[list[str], list[bool]]:
    draw = random.Random(5)
    vocabulary = ["".join(draw.choices("abcdefgh", k=6)) for _ in range(3000)]
    originals = [" ".join(draw.choices(vocabulary, k=200)) for _ in range(60)]
    copies = []
    for text in originals[:20]:
        words = text.split()
        words[draw.randrange(200)] = "changed"
        copies.append(" ".join(words))
    return originals + copies + ["short", "short"], [False] * 60 + [True] * 20 + [False] * 2


def test_all_but_the_first_of_a_cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts, expected = documents()
    found = near_duplicates(texts, tmp_path / "one")
    assert found.tolist() == expected
    monkeypatch.setattr(module, "_DOCUMENTS_A_PART", 7)
    assert np.array_equal(near_duplicates(iter(texts), tmp_path / "parts"), found)
    assert near_duplicates(texts[::-1], tmp_path / "reversed").sum() == 20
    assert near_duplicates(texts[::-1], tmp_path / "again")[-20:].all()


def test_nothing_and_a_folder_in_use(tmp_path: Path) -> None:
    assert near_duplicates([], tmp_path / "none").shape == (0,)
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="is not empty"):
        near_duplicates(["a"], tmp_path)
