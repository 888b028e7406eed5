"""Staged documents, the held-out choice and the tokenizer's training lines."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.data.corpora import SplitDocuments, resolve_sources
from metro_t0.data.staging import StagedCorpus, StagedUnit, choose_held_out, stage_unit
from metro_t0.data.units import reading_units

lengths = st.lists(st.integers(1, 10_000_000), min_size=2, max_size=60).map(np.array)
fractions = st.floats(0.001, 0.999)


def stage(tmp_path: Path, *documents: str, keep_duplicates: bool = False) -> StagedCorpus:
    folder = tmp_path / "documents"
    folder.mkdir()
    for number, text in enumerate(documents):
        (folder / f"{number:03}.txt").write_text(text)
    return stage_source(folder, tmp_path, "file", keep_duplicates)


def stage_source(
    source: Path, tmp_path: Path, split: SplitDocuments, keep_duplicates: bool = False, unit_bytes: int = 20
) -> StagedCorpus:
    # Units of a few bytes, so that there are several.
    units = reading_units(
        resolve_sources([source]), split_documents=split, text_column="text", unit_bytes=unit_bytes
    )
    staged = []
    for number, unit in enumerate(units):
        (tmp_path / f"unit{number}").mkdir()
        stage_unit(unit, tmp_path / f"unit{number}")
        staged.append(StagedUnit.open(tmp_path / f"unit{number}"))
    return StagedCorpus(staged, keep_duplicates=keep_duplicates)


def test_distinct_documents_come_back_in_order(tmp_path: Path) -> None:
    staged = stage(tmp_path, "One ü.\n", "Two.", "  One ü.", "\n\n", "Three.")
    assert list(staged) == list(staged) == ["One ü.", "Two.", "Three."]
    assert staged.characters.tolist() == [6, 4, 6] and len(staged) == 3
    assert len(staged.units) > 1 and sum(unit.counts.read for unit in staged.units) == 4
    assert staged.documents_of_units() == [int(wanted.sum()) for wanted in staged.wanted]


def test_repeats_are_kept_where_that_is_asked(tmp_path: Path) -> None:
    staged = stage(tmp_path, "One ü.\n", "Two.", "  One ü.", keep_duplicates=True)
    assert list(staged) == ["One ü.", "Two.", "One ü."]


def test_batches_are_numbered_over_the_distinct_documents(tmp_path: Path) -> None:
    staged = stage(tmp_path, "One.", "Two.", "One.", "Three.", "Two.", "Four.")
    found = {
        batch.first + place: text for batch in staged.batches() for place, text in enumerate(batch.read())
    }
    assert found == {0: "One.", 1: "Two.", 2: "Three.", 3: "Four."}


def test_more_documents_than_one_batch_holds(tmp_path: Path) -> None:
    path = tmp_path / "many.txt"
    path.write_text("\n\n".join(f"Document {number}." for number in range(25_000)))
    staged = stage_source(path, tmp_path, "blank-line", unit_bytes=100_000)
    assert list(staged) == [f"Document {number}." for number in range(25_000)]


@given(lengths, fractions, st.integers(0, 5))
def test_held_out_documents_are_few_but_some(characters: np.ndarray, fraction: float, seed: int) -> None:
    held_out = choose_held_out(characters, fraction, seed)
    assert held_out.dtype == bool and held_out.shape == characters.shape
    assert 1 <= held_out.sum() < len(characters)
    assert (choose_held_out(characters, fraction, seed) == held_out).all()
    if held_out.sum() > 1:
        assert characters[held_out].sum() <= fraction * characters.sum()
        assert np.ceil(characters[held_out] / 2000).sum() <= 1000
    else:
        assert characters[held_out] <= max(characters.sum() / 2, characters.min())


def test_the_seed_and_the_fraction_decide_what_is_held_out() -> None:
    characters = np.full(1000, 1000)
    choices = {tuple(np.flatnonzero(choose_held_out(characters, 0.05, seed))) for seed in range(5)}
    assert len(choices) == 5
    assert {len(choice) for choice in choices} == {50}


def test_held_out_blocks_are_bounded() -> None:
    assert choose_held_out(np.full(100_000, 2000), 0.5, 0).sum() == 1000


def test_one_document_cannot_be_split() -> None:
    with pytest.raises(ValueError, match="--split-documents blank-line"):
        choose_held_out(np.array([5]), 0.5, 0)
