"""Records: outcomes bit by bit, curves thinned, and nothing read that is not whole."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from metro_t0.evaluation.predictions import Prediction, TemplatePredictions, write_predictions
from metro_t0.evaluation.records import EvaluationRecord, read_evaluation, read_run
from metro_t0.study.record import (
    Record,
    evaluation_summary,
    read_record,
    record_file,
    training_summary,
    write_record,
)


def write_evaluation(folder: Path, right: np.ndarray) -> EvaluationRecord:
    """An evaluation of one task with these outcomes, as evaluations are on the disk."""
    templates = [{"template": str(column)} for column in range(right.shape[1])]
    for entry, column in zip(templates, right.T, strict=True):
        items = [
            Prediction(row, "which?", ["a", "b"], [-1.0, -2.0], [1, 1], prediction=int(not one), gold=0)
            for row, one in enumerate(column)
            if not np.isnan(one)
        ]
        write_predictions(folder / "predictions", TemplatePredictions("one", entry["template"], items))
    tasks = [{"task": "one", "chance": 0.25, "templates": templates}]
    (folder / "results.json").write_text(json.dumps({"format_version": 2, "tasks": tasks}))
    return read_evaluation(folder)


shapes = st.tuples(st.integers(1, 40), st.integers(1, 5))
outcomes = arrays(float, shapes, elements=st.sampled_from([0.0, 1.0, np.nan]))


@settings(max_examples=30, deadline=None)
@given(outcomes)
def test_outcomes_come_back_as_they_were(right: np.ndarray) -> None:
    # Of what no template asked nothing is kept, and of a template that asked nothing neither.
    kept = right[:, ~np.isnan(right).all(axis=0)]
    kept = kept[~np.isnan(kept).all(axis=1)]
    with tempfile.TemporaryDirectory() as folder:
        summary = evaluation_summary(write_evaluation(Path(folder), right))
    values = {"finetunings": {"f": json.loads(json.dumps(summary))}}
    tasks = Record(values).tasks("f")
    if not kept.size:
        assert not tasks
        return
    assert np.array_equal(tasks["one"].outcomes, kept, equal_nan=True) and tasks["one"].chance == 0.25
    assert Record(values).accuracy("f") == pytest.approx(float(np.nanmean(kept, axis=0).mean()))


def test_a_record_is_read_only_where_it_is_whole_and_of_that_run(tmp_path: Path) -> None:
    assert read_record(tmp_path, "a/b/seed-1") is None
    write_record(tmp_path, {"name": "a/b/seed-1", "status": "done"})
    record = read_record(tmp_path, "a/b/seed-1")
    assert record is not None and record.status == "done"
    file = record_file(tmp_path, "a/b/seed-1")
    text = file.read_text()
    for broken in (
        text[: len(text) // 2],
        text.replace("seed-1", "seed-2"),
        text.replace("n: 1", "n: 9"),
        "[]",
    ):
        file.write_text(broken)
        if broken != text:
            with pytest.raises(ValueError, match=file.name):
                read_record(tmp_path, "a/b/seed-1")


def test_a_long_run_is_summed_up_in_a_small_curve_that_keeps_its_ends(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("format_version: 1\nkind: pretrain\n")
    lines = []
    for step in range(1, 501):
        seen = {"step": step, "tokens": 100 * step, "seconds": step / 10}
        lines.append({"kind": "train", **seen, "tokens_per_second": 1000.0 + step % 3, "loss": 1.0})
        lines.append(
            {"kind": "validation", **seen, "loss": 5 - step / 100, "odd": None if step % 2 else 0.123456789}
        )
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    summary = training_summary(read_run(tmp_path))
    assert summary["steps"] == 500 and summary["tokens"] == 50_000 and summary["tokens_per_second"] == 1001.0
    assert summary["last"] == {"loss": 0.0, "odd": 0.12346}
    curve = summary["curve"]
    assert curve["tokens"][0] == 100 and curve["tokens"][-1] == 50_000 and len(curve["tokens"]) <= 60
    assert all(len(values) == len(curve["tokens"]) for values in curve.values())
    assert None in curve["odd"] and curve["tokens"] == sorted(curve["tokens"])
