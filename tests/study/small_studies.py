"""Studies of a second a run: a network of 16, a task of 24 rows under two templates, made by the tests themselves."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

SMALL = {
    "model.d_model": 16,
    "model.d_kv": 8,
    "model.d_ff": 32,
    "model.num_heads": 2,
    "model.num_layers": 1,
    "model.num_decoder_layers": 1,
    "model.num_auxiliary_layers": 1,
    "model.num_positions": 64,
    "model.max_positions": 64,
    "training.precision": "fp32",
    "training.threads": 1,
    "training.batch_tokens": 512,
    "training.micro_batch_tokens": 512,
    "training.log_every": 1,
    "training.validation_rows": 4,
}
SMALL_FINETUNING = {
    "max_input_length": 48,
    "max_target_length": 8,
    "training.steps": 2,
    "training.batch_tokens": 256,
    "training.micro_batch_tokens": 256,
    "training.precision": "fp32",
    "training.threads": 1,
    "training.validation_rows": 4,
}
TOO_HIGH = {
    "base": "as it is",
    "values": {"too high": {"settings": {"optimizer.learning_rate": 1e30, "optimizer.clip_norm": 0.0}}},
}
_TEMPLATES = """dataset: weather
templates:
  one: !Template
    name: season
    jinja: "{{ report }} Which season is it? ||| {{ answer_choices[label] }}"
    answer_choices: "winter ||| summer"
  two: !Template
    name: which season
    jinja: "Winter or summer? {{ report }} ||| {{ answer_choices[label] }}"
    answer_choices: "winter ||| summer"
"""


def write_study(folder: Path, **values: Any) -> Path:
    """A study's file with its mixture, rows and templates beside it.

    Args:
        folder: made where it is not there.
        values: of the study, in place of the small ones; ``settings`` are added to.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for name, numbers in {"train": range(24), "test": range(24, 40)}.items():
        rows = [{"report": f"{n} degrees, {n % 7} wind.", "label": n % 2} for n in numbers]
        (folder / f"weather-{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "weather.yaml").write_text(_TEMPLATES)
    task = {"dataset": "weather", "train": "weather-train.jsonl", "evaluation": "weather-test.jsonl"}
    mixture = {"name": "weather", "tasks": [{**task, "templates": "weather.yaml"}]}
    (folder / "mixture.yaml").write_text(yaml.safe_dump(mixture))
    study: dict[str, Any] = {
        "base": "tiny",
        "axes": {"rtd-gate": None},
        "seeds": [1],
        "tokens": 1500,
        "finetunings": {
            "weather": {"mixture": "mixture.yaml", "suite": "mixture.yaml", "settings": SMALL_FINETUNING}
        },
        **values,
        "settings": {**SMALL, **values.get("settings", {})},
    }
    file = folder / "study.yaml"
    file.write_text(yaml.safe_dump(study, sort_keys=False), encoding="utf-8")
    return file


def ablate(study: Path, corpus: Path, out: Path, *arguments: str) -> subprocess.Popen[str]:
    """``metro-t0 ablate`` in a process of its own."""
    words = ["ablate", "--study", str(study), "--data", str(corpus), "--out", str(out), *arguments]
    return subprocess.Popen(
        [sys.executable, "-m", "metro_t0.cli.main", *words],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def without_clock(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record less what depends on the time of day and the machine's speed."""

    def cleared(value: Any) -> Any:
        if isinstance(value, dict):
            clock = ("seconds", "seconds_here", "tokens_per_second", "environment", "measured")
            return {name: cleared(one) for name, one in value.items() if name not in clock}
        return [cleared(one) for one in value] if isinstance(value, list) else value

    found: dict[str, Any] = cleared(dict(record))
    return found
