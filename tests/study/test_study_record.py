"""Records: what a file keeps is what was answered, and a file that is none of ours is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.study.record import Record, _bits, read_record, record_file, write_record

ANSWER = st.sampled_from([1.0, 0.0, float("nan")])


def packed(outcomes: np.ndarray) -> dict[str, object]:
    """A task as a record has it, from what was answered."""
    asked = ~np.isnan(outcomes)
    columns = range(outcomes.shape[1])
    return {
        "task": "weather",
        "chance": 0.5,
        "templates": [f"template {number}" for number in columns],
        "rows": len(outcomes),
        "right": [_bits([value == 1 for value in outcomes[:, column]]) for column in columns],
        "asked": None if asked.all() else [_bits(list(asked[:, column])) for column in columns],
    }


@given(data=st.data(), rows=st.integers(1, 40), templates=st.integers(1, 4))
def test_outcomes_come_back_bit_by_bit(data: st.DataObject, rows: int, templates: int) -> None:
    column = st.lists(ANSWER, min_size=rows, max_size=rows)
    outcomes = np.array([data.draw(column) for _ in range(templates)]).T
    # Through the text of a file, as a record goes.
    task = json.loads(json.dumps(packed(outcomes)))
    record = Record({"name": "n", "finetunings": {"weather": {"tasks": [task]}}})
    found = record.tasks("weather")["weather"]
    np.testing.assert_array_equal(found.outcomes, outcomes)
    assert found.chance == 0.5


def test_accuracy_is_the_mean_over_templates_and_tasks_of_what_was_asked() -> None:
    nothing = float("nan")
    first = packed(np.array([[1.0, 0.0], [1.0, nothing], [0.0, nothing]]))  # 2/3 and 0/1
    second = {**packed(np.array([[1.0], [1.0]])), "task": "seasons"}
    record = Record({"name": "n", "finetunings": {"both": {"tasks": [first, second]}}})
    assert record.finetunings() == ["both"]
    assert record.tasks("both")["weather"].accuracy == pytest.approx(1 / 3)
    assert record.accuracy("both") == pytest.approx((1 / 3 + 1) / 2)


def test_a_record_is_read_as_it_was_written(tmp_path: Path) -> None:
    values = {"name": "wide/mine=é/seed-1", "fingerprint": "f", "status": "done", "seed": 1}
    assert read_record(tmp_path, values["name"]) is None  # type: ignore[arg-type]
    write_record(tmp_path, values)
    assert record_file(tmp_path, "wide/mine=é/seed-1").name == "wide__mine=é__seed-1.json"
    record = read_record(tmp_path, "wide/mine=é/seed-1")
    assert record is not None and record.status == "done"
    assert {key: record.values[key] for key in values} == values
    assert [file.name for file in (tmp_path / "records").iterdir()] == ["wide__mine=é__seed-1.json"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        '"text"',
        '{"name": "a/base/seed-1", "status": "done"}',
        '{"format_version": 99, "name": "a/base/seed-1", "fingerprint": "f", "status": "done"}',
        '{"format_version": 1, "name": "b/base/seed-1", "fingerprint": "f", "status": "done"}',
        '{"format_version": 1, "name": "a/base/seed-1"}',
        '{"format_version": 1, "name": "a/base/seed-1", "fingerprint": "f", "status": "done?"}',
    ],
)
def test_what_is_no_record_of_the_run_is_told_in_one_line(text: str, tmp_path: Path) -> None:
    file = record_file(tmp_path, "a/base/seed-1")
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ValueError) as told:
        read_record(tmp_path, "a/base/seed-1")
    assert file.name in str(told.value) and "\n" not in str(told.value)
