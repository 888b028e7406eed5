"""Every single prediction of an evaluation, in a file a template: what people read, compare and count again.

    write_predictions(folder, predictions)               # folder/<task>/<template>-<hash>.jsonl.gz, whole or not at all
    for predictions in read_predictions(results / "predictions"):
        predictions.task, predictions.template, predictions.items[0].prompt

A file is gzipped JSON lines: first the task and the template, then a row of the data a line. It is written aside and
renamed, so one that is there is whole: an evaluation that was killed goes on after the ones that it finds.
"""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Content = TypeVar("Content")


@dataclass(frozen=True)
class Prediction:
    """One row of a task under one template.

    Attributes:
        row: its place in the task's data, from 0.
        prompt: what the model read (before it was cut to the length that the model reads).
        choices: the answers offered.
        log_likelihoods: a choice, the official score: summed log-probabilities of its tokens and ``</s>``.
        lengths: tokens of each choice, ``</s>`` counted.
        prediction: index of the chosen answer, by the official score.
        gold: index of the correct answer, the first where choices are equal.
        unprompted: log-likelihood of each choice after the empty prompt; None unless calibrated scores were asked for.
        truncated: the prompt was longer than the model reads.
    """

    row: int
    prompt: str
    choices: list[str]
    log_likelihoods: list[float]
    lengths: list[int]
    prediction: int
    gold: int
    unprompted: list[float] | None = None
    truncated: bool = False


@dataclass(frozen=True)
class TemplatePredictions:
    """All predictions of one template of one task.

    Attributes:
        task: name of the task.
        template: name of the template.
        items: in the order of the rows.
        dropped: rows that gave no example, by reason.
        seconds: what ranking took, its share where several templates were ranked together.
    """

    task: str
    template: str
    items: list[Prediction]
    dropped: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0


def predictions_file(folder: Path, task: str, template: str) -> Path:
    """Where a template's predictions are, below an evaluation's ``predictions/``."""
    return folder / _file_name(task) / f"{_file_name(template)}.jsonl.gz"


def write_predictions(folder: Path, predictions: TemplatePredictions) -> Path:
    """Writes a template's file aside and renames it."""
    path = predictions_file(folder, predictions.task, predictions.template)
    head = {name: value for name, value in vars(predictions).items() if name != "items"}
    write_lines(path, [head, *map(dataclasses.asdict, predictions.items)])
    return path


def write_lines(path: Path, lines: Sequence[object]) -> None:
    """Writes gzipped JSON lines aside and renames the file; makes its folder. Equal lines are equal files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.writing")
    # No time stamp in it.
    with aside.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", filename="", mtime=0) as file:
        file.writelines(json.dumps(line, ensure_ascii=False).encode() + b"\n" for line in lines)
    aside.replace(path)


def read_lines(path: Path, make: Callable[[dict[str, Any], list[dict[str, Any]]], Content]) -> Content:
    """What ``make`` makes of the first line and of the others of a file of :func:`write_lines`.

    Raises:
        ValueError: the file is broken, or holds something else.
    """
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            head, *items = map(json.loads, file)
        return make(head, items)
    except (OSError, EOFError, ValueError, TypeError) as error:
        raise ValueError(f"{path} does not hold what an evaluation wrote: {error}") from error


def read_template_predictions(path: Path) -> TemplatePredictions:
    """Reads one file.

    Raises:
        ValueError: it is broken.
    """
    return read_lines(
        path, lambda head, items: TemplatePredictions(**head, items=[Prediction(**item) for item in items])
    )


def read_predictions(folder: Path) -> list[TemplatePredictions]:
    """Reads all files below a folder, in the order of their names; empty when there is none.

    Raises:
        ValueError: a file is broken.
    """
    return [read_template_predictions(path) for path in sorted(folder.glob("*/*.jsonl.gz"))]


def predict(scores: Sequence[float]) -> int:
    """Index of the highest score, the first on ties, as officially."""
    return list(scores).index(max(scores))


def rescored(item: Prediction, scoring: str) -> int:
    """The index that another way of scoring chooses.

    ``official``: the sum. ``length-normalised``: the sum over the number of tokens, ``</s>`` counted. ``calibrated``:
    the sum less that after the empty prompt.

    Raises:
        ValueError: no such scoring, or calibrated scores were not computed.
    """
    if scoring == "official":
        return predict(item.log_likelihoods)
    if scoring == "length-normalised":
        return predict([score / n for score, n in zip(item.log_likelihoods, item.lengths, strict=True)])
    if scoring == "calibrated" and item.unprompted is not None:
        return predict([a - b for a, b in zip(item.log_likelihoods, item.unprompted, strict=True)])
    raise ValueError(f"there are no {scoring!r} scores; known: official, length-normalised, calibrated")


def _file_name(name: str) -> str:
    """A name that every file system takes, and that no other name shares."""
    readable = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")[:60]
    return f"{readable or 'unnamed'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"
