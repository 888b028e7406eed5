"""Token rows read straight from Arrow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, Features, Sequence, Value, concatenate_datasets
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.data.rows import TokenRows

FEATURES = Features({"input_ids": Sequence(Value("uint16")), "labels": Sequence(Value("int32"))})
lists = st.lists(st.integers(0, 60000), max_size=8)


def dataset(rows: list[tuple[list[int], list[int]]]) -> Dataset:
    columns = {"input_ids": [row[0] for row in rows], "labels": [row[1] for row in rows]}
    return Dataset.from_dict(columns, features=FEATURES)


@given(st.lists(st.lists(st.tuples(lists, lists), min_size=1, max_size=5), min_size=1, max_size=4))
def test_rows_of_several_chunks(parts: list[list[tuple[list[int], list[int]]]]) -> None:
    whole = concatenate_datasets([dataset(part) for part in parts])
    rows = TokenRows(whole, ("input_ids", "labels"))
    expected = [row for part in parts for row in part]
    assert len(rows) == len(expected)
    assert rows.lengths.tolist() == [[len(row[0]), len(row[1])] for row in expected]
    for index, (ids, labels) in enumerate(expected):
        assert rows[index]["input_ids"].tolist() == ids
        assert rows[index]["labels"].tolist() == labels


def test_rows_from_disk_are_views(tmp_path: Path) -> None:
    Dataset.from_dict(
        {"input_ids": [[1, 2], [3]]}, features=Features({"input_ids": FEATURES["input_ids"]})
    ).save_to_disk(str(tmp_path / "saved"))
    rows = TokenRows(Dataset.load_from_disk(str(tmp_path / "saved")), ("input_ids",))
    assert rows[0]["input_ids"].dtype == np.uint16
    assert not rows[0]["input_ids"].flags.owndata


def test_a_missing_column_is_named() -> None:
    with pytest.raises(ValueError, match="no column 'text'; its columns: input_ids, labels"):
        TokenRows(dataset([([1], [2])]), ("text",))
