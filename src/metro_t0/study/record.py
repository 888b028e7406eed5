"""What remains of a run: one JSON file, enough for every table and figure when the run's folder is gone.

record = read_records(Path("study"))["narrow/base/seed-1"]
record.accuracy("zero-shot"), record.tasks("zero-shot")["RTE"].outcomes      # [rows, templates] of 1, 0 and NaN

Outcomes are kept bit by bit, since a paired bootstrap needs to know which rows a model got right.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from metro_t0.evaluation.records import EvaluationRecord, RunRecord, read_json, write_text

FORMAT_VERSION = 1
RECORDS = "records"
Status = Literal["done", "diverged", "failed"]

_MOST_POINTS = 60


@dataclass(frozen=True)
class TaskOutcome:
    """What a model answered of a task.

    Attributes:
        chance: accuracy of a uniform guess, the mean over templates.
        outcomes: ``[rows, templates]``, 1 right, 0 wrong, NaN where a template gave no question.
    """

    chance: float
    outcomes: np.ndarray

    @property
    def accuracy(self) -> float:
        """The mean over templates."""
        return float(np.nanmean(self.outcomes, axis=0).mean())


@dataclass(frozen=True)
class Record:
    """A run's record.

    Attributes:
        values: as the file has them.
    """

    values: Mapping[str, Any]

    @property
    def name(self) -> str:
        return str(self.values["name"])

    @property
    def status(self) -> Status:
        return self.values["status"]

    def finetunings(self) -> list[str]:
        """Names of what was finetuned and ranked."""
        return list(self.values.get("finetunings", {}))

    def tasks(self, finetuning: str) -> dict[str, TaskOutcome]:
        """Outcomes by task, in the suite's order."""
        found = self.values["finetunings"][finetuning]["tasks"]
        return {task["task"]: TaskOutcome(task["chance"], _unpacked(task)) for task in found}

    def accuracy(self, finetuning: str) -> float:
        """The mean over tasks of the mean over templates."""
        tasks = self.tasks(finetuning).values()
        return math.fsum(task.accuracy for task in tasks) / len(tasks)


def record_file(study: Path, name: str) -> Path:
    """Where a run's record is: its name with every slash made two underscores."""
    return study / RECORDS / f"{name.replace('/', '__')}.json"


def write_record(study: Path, values: Mapping[str, Any]) -> None:
    """Write a record, whole."""
    file = record_file(study, values["name"])
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, json.dumps({"format_version": FORMAT_VERSION, **values}, ensure_ascii=False) + "\n")


def read_record(study: Path, name: str) -> Record | None:
    """A run's record, None if there is none.

    Raises:
        ValueError: it cannot be read, or is no record of this run.
    """
    file = record_file(study, name)
    if not file.is_file():
        return None
    values = read_json(file)
    if (
        values.get("format_version") != FORMAT_VERSION
        or values.get("name") != name
        or values.get("status") not in get_args(Status)
        or "fingerprint" not in values
    ):
        raise ValueError(
            f"{file} is no record of {name} that this metro-t0 reads: remove it, and it is made again"
        )
    return Record(values)


def training_summary(run: RunRecord) -> dict[str, Any]:
    """Of a training run: steps, tokens, seconds, speed, the last validation, and its curve by metric."""
    last = run.last("train")
    validations = run.metrics["validation"]
    kept = _thinned(validations)
    names = sorted({key for line in validations for key, value in line.items() if isinstance(value, float)})
    _, speeds = run.curve("train", "tokens_per_second")
    return {
        "steps": last.get("step"),
        "tokens": last.get("tokens"),
        "seconds": last.get("seconds"),
        "tokens_per_second": round(float(np.median(speeds)), 1) if len(speeds) else None,
        "skipped_updates": last.get("skipped_updates"),
        "last": {name: _rounded(validations[-1].get(name)) for name in names if name != "seconds"}
        if validations
        else {},
        "curve": {
            "tokens": [line["tokens"] for line in kept],
            **{name: [_rounded(line.get(name)) for line in kept] for name in names if name != "seconds"},
        },
    }


def evaluation_summary(evaluation: EvaluationRecord) -> dict[str, Any]:
    """Of an evaluation: each task's chance level and outcomes, and what is missing of the suite."""
    tasks = []
    for task in evaluation.results["tasks"]:
        templates, packed = [], []
        for entry in task["templates"]:
            found = evaluation.template_predictions(task["task"], entry["template"])
            if found is None or not found.items:
                continue
            templates.append(entry["template"])
            packed.append({item.row: item.prediction == item.gold for item in found.items})
        if not templates:
            continue
        rows = sorted({row for column in packed for row in column})
        tasks.append(
            {
                "task": task["task"],
                "chance": round(float(task["chance"]), 6),
                "templates": templates,
                "rows": len(rows),
                "right": [_bits([column.get(row, False) for row in rows]) for column in packed],
                "asked": None
                if all(len(column) == len(rows) for column in packed)
                else [_bits([row in column for row in rows]) for column in packed],
            }
        )
    return {
        "suite": evaluation.results.get("suite"),
        "limit": evaluation.results.get("limit"),
        "missing": [entry["task"] for entry in evaluation.results.get("missing", [])],
        "failures": [entry["task"] for entry in evaluation.results.get("failures", [])],
        "truncated_prompts": evaluation.results.get("truncated_prompts"),
        "prompts": evaluation.results.get("prompts"),
        "checksums": evaluation.results.get("checksums"),
        "tasks": tasks,
    }


def _bits(values: Sequence[bool]) -> str:
    return np.packbits(np.array(values, dtype=bool)).tobytes().hex()


def _unpacked(task: Mapping[str, Any]) -> np.ndarray:
    def columns(packed: Sequence[str]) -> np.ndarray:
        rows = [np.unpackbits(np.frombuffer(bytes.fromhex(one), dtype=np.uint8)) for one in packed]
        return np.stack(rows, axis=1)[: task["rows"]].astype(np.float64)

    right = columns(task["right"])
    if task["asked"] is not None:
        right[columns(task["asked"]) == 0] = np.nan
    return right


def _thinned(lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    places = np.unique(np.linspace(0, len(lines) - 1, min(len(lines), _MOST_POINTS)).astype(int))
    return [lines[place] for place in places] if lines else []


def _rounded(value: Any) -> Any:
    return float(f"{value:.5g}") if isinstance(value, float) and math.isfinite(value) else None
