"""Reads what runs and evaluations leave behind: configuration, environment, metrics, results, predictions.

    run = read_run(Path("runs/pretrain"))
    steps, losses = run.curve("train", "loss")

A run that is still going, or was killed, can be read too: files that are not there yet are empty, and a
last line of ``metrics.jsonl`` that was cut is left out.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml

from metro_t0.evaluation.predictions import TemplatePredictions, predictions_file, read_template_predictions

Part = Literal["train", "validation"]
Record = dict[str, Any]
_RESULT_VERSIONS = (1, 2)


@dataclass(frozen=True)
class RunRecord:
    """One run directory.

    Attributes:
        path: the directory.
        config: ``config.yaml``, resolved.
        environment: ``environment.json``: versions, machine.
        data_card: card of the prepared corpus or mixture, where the run says where it lies or holds a copy.
        metrics: lines of ``metrics.jsonl``, by kind, in the order of steps; of a step logged twice (a
            resumed run repeats the steps since its checkpoint) the later line.
        samples: lines of ``samples.jsonl``, in the order of steps; none where the run wrote none.
    """

    path: Path
    config: Record
    environment: Record
    data_card: Record
    metrics: dict[Part, list[Record]]
    samples: list[Record] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.path.resolve().name

    def last(self, part: Part) -> Record:
        """The last line of a kind, empty if there is none."""
        return self.metrics[part][-1] if self.metrics[part] else {}

    def curve(self, part: Part, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Steps and values ``[points]`` of a metric, float64; not-finite values are kept as they are."""
        lines = [line for line in self.metrics[part] if _is_number(line.get(metric))]
        return (
            np.array([line["step"] for line in lines], dtype=np.float64),
            np.array([line[metric] for line in lines], dtype=np.float64),
        )

    def metric_names(self) -> list[str]:
        """Every number that was logged, in the order it was first seen."""
        lines = [line for part in self.metrics.values() for line in part]
        return list(dict.fromkeys(key for line in lines for key, value in line.items() if _is_number(value)))


@dataclass(frozen=True)
class EvaluationRecord:
    """What an evaluation wrote.

    Attributes:
        path: the directory.
        results: ``results.json``.
    """

    path: Path
    results: Record

    def predictions(self) -> Iterator[TemplatePredictions]:
        """Every template's predictions, in the order of the results, read one file at a time.

        Templates without a file are passed over.

        Raises:
            ValueError: a file is broken.
        """
        for task in self.results.get("tasks", []):
            for template in task["templates"]:
                found = self.template_predictions(task["task"], template["template"])
                if found is not None:
                    yield found

    def template_predictions(self, task: str, template: str) -> TemplatePredictions | None:
        """One template's predictions, None if there is no file of them.

        Raises:
            ValueError: the file is broken.
        """
        file = predictions_file(self.path / "predictions", task, template)
        return read_template_predictions(file) if file.is_file() else None


def read_run(path: Path) -> RunRecord:
    """Read a run directory.

    Raises:
        ValueError: it is none (no ``metrics.jsonl``), or one of its files is broken; the message names file
            and line.
    """
    if not path.is_dir():
        raise ValueError(f"no run at {path}: there is no such directory")
    if not (path / "metrics.jsonl").is_file():
        raise ValueError(f"{path} is not a run directory: it holds no metrics.jsonl")
    config = _read_yaml(path / "config.yaml")
    environment = read_json(path / "environment.json")
    metrics: dict[Part, dict[float, Record]] = {"train": {}, "validation": {}}
    for line in read_json_lines(path / "metrics.jsonl", may_be_cut=True):
        part = line.get("kind")
        if part in metrics and _is_number(line.get("step")):
            metrics[part][line["step"]] = line
    return RunRecord(
        path=path,
        config=config,
        environment=environment,
        data_card=_find_data_card(path, config, environment),
        metrics={part: [lines[step] for step in sorted(lines)] for part, lines in metrics.items()},
        samples=_read_samples(path / "samples.jsonl"),
    )


_SAMPLE_LISTS = {
    "original": (str,),
    "masked": (bool,),
    "replaced": (str, type(None)),
    "detection": (float, int, type(None)),
    "restored": (str, type(None)),
}


def _read_samples(path: Path) -> list[Record]:
    if not path.is_file():
        return []
    lines: dict[float, Record] = {}
    for number, line in _parse_json_lines(path.read_bytes(), str(path), may_be_cut=True):
        rows = line.get("rows")
        if not _is_number(line.get("step")) or not isinstance(rows, list) or not all(map(_is_sample, rows)):
            raise ValueError(f"{path}, line {number}: not a step and rows of samples")
        lines[line["step"]] = line
    return [lines[step] for step in sorted(lines)]


def _is_sample(row: object) -> bool:
    if not isinstance(row, dict) or not all(isinstance(row.get(name), list) for name in _SAMPLE_LISTS):
        return False
    alike = len({len(row[name]) for name in _SAMPLE_LISTS}) == 1
    return alike and all(isinstance(v, kinds) for name, kinds in _SAMPLE_LISTS.items() for v in row[name])


def is_evaluation(path: Path) -> bool:
    """Whether a directory is one that an evaluation wrote."""
    return (path / "results.json").is_file()


def read_evaluation(path: Path) -> EvaluationRecord:
    """Read the directory that an evaluation wrote; its predictions stay on the disk until they are asked for.

    Raises:
        ValueError: it holds no ``results.json``, or the file is broken or of a later version.
    """
    if not is_evaluation(path):
        raise ValueError(f"{path} holds no results.json: give the --out directory of an evaluation")
    results = read_json(path / "results.json")
    version = results.get("format_version", 1)
    if version not in _RESULT_VERSIONS:
        raise ValueError(
            f"{path / 'results.json'} has format version {version}; this metro-t0 reads "
            f"{' and '.join(map(str, _RESULT_VERSIONS))}"
        )
    return EvaluationRecord(path=path, results=results)


def read_json(path: Path) -> Record:
    """A JSON object from a file; empty if the file is not there.

    Raises:
        ValueError: the file is broken or holds something else.
    """
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not readable JSON: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a JSON object")
    return value


def read_json_lines(path: Path, *, may_be_cut: bool = False) -> list[Record]:
    """JSON objects, one a line; blank lines are passed over.

    Args:
        path: the file.
        may_be_cut: the last line may be half-written (a process was killed) and is then left out.

    Raises:
        ValueError: a line is broken; the message names file and line.
    """
    lines = path.read_bytes()
    return [record for _, record in _parse_json_lines(lines, str(path), may_be_cut=may_be_cut)]


def _parse_json_lines(content: bytes, name: str, *, may_be_cut: bool = False) -> Iterator[tuple[int, Record]]:
    lines = content.split(b"\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
            if not isinstance(value, dict):
                raise ValueError("not a JSON object")
        except ValueError as error:
            if may_be_cut and number == len(lines):
                return
            raise ValueError(f"{name}, line {number}: {error}") from error
        yield number, value


def read_questions(source: Path | bytes, name: str) -> list[Record]:
    """JSON lines of ``{"input": text, "choices": [text, ...]}``; other keys are kept.

    Args:
        source: a file, or its bytes.
        name: of the source, for messages.

    Raises:
        ValueError: there is no such file, or a line is broken (named), or there is none.
    """
    if isinstance(source, Path):
        try:
            source = source.read_bytes()
        except OSError as error:
            raise ValueError(f"cannot read {name}: {error.strerror}") from error
    questions: list[Record] = []
    for number, line in _parse_json_lines(source, name):
        where = f"{name}, line {number}"
        if not isinstance(line.get("input"), str):
            raise ValueError(f'{where}: has no "input" that is a string')
        choices = line.get("choices")
        if not isinstance(choices, list) or not choices or not all(isinstance(c, str) for c in choices):
            raise ValueError(f'{where}: "choices" must be a list of strings, at least one')
        questions.append(line)
    if not questions:
        raise ValueError(
            f'{name} holds no line; give lines like {{"input": "...", "choices": ["yes", "no"]}}'
        )
    return questions


def write_text(out: Path, text: str) -> None:
    """Write a file whole or not at all; its folder is made if need be."""
    out.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=out.parent, prefix=f".{out.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(out)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _read_yaml(path: Path) -> Record:
    if not path.is_file():
        return {}
    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not readable YAML: {' '.join(str(error).split())}") from error
    if not isinstance(value, dict):
        raise ValueError(f"{path} does not hold a mapping")
    return value


def _find_data_card(path: Path, config: Record, environment: Record) -> Record:
    """The card of the run's data: a copy in the run, or beside the data that the run names."""
    for record in (environment, config):
        if isinstance(card := record.get("data_card"), dict):
            return card
    places = [path / "data_card.json"]
    for record in (environment, config):
        if isinstance(data := record.get("data"), str):
            places.append(Path(data) / "card.json")
    for place in places:
        if place.is_file():
            return read_json(place)
    return {}
