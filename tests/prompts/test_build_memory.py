"""A build's memory does not grow with its files."""

from __future__ import annotations

import json
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from metro_t0.prompts.mixture import load_mixture


def _megabytes(pid: int) -> float:
    """What a process has in memory of its own, files that it maps aside."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1e3 for line in status.splitlines() if "RssAnon" in line), 0.0)


@pytest.mark.slow
def test_memory_is_bounded(
    tmp_path: Path, write_templates: Callable[..., Path], boat_rows: Any, small_tokenizer: Any
) -> None:
    text = " ".join(row["text"] for row in boat_rows(100))
    with (tmp_path / "large.jsonl").open("w") as file:
        for row in range(60_000):
            file.write(json.dumps({"text": f"{row} {text}", "label": row % 2}) + "\n")
    assert (tmp_path / "large.jsonl").stat().st_size > 150e6
    write_templates("t.yaml", question=("{{ text }} Good? ||| {{ answer_choices[label] }}", "no ||| yes"))
    task = {"dataset": "boats", "train": "large.jsonl", "templates": "t.yaml"}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"tasks": [task]}))
    build = multiprocessing.get_context("fork").Process(
        target=load_mixture(tmp_path / "mix.yaml").build,
        args=(small_tokenizer, tmp_path / "out"),
        kwargs={"processes": 2},
    )
    build.start()
    peak, start = 0.0, _megabytes(build.pid or 0)
    while build.is_alive():
        peak = max(peak, _megabytes(build.pid or 0))
        time.sleep(0.02)
    assert build.exitcode == 0
    assert peak - start < 120
