"""The benchmarks run, and what the README says they printed is what their files hold."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str) -> str:
    found = subprocess.run(
        [sys.executable, *command], cwd=ROOT, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


def test_the_readme_holds_the_table_of_the_results() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert run("benchmarks/table.py").strip() in readme


@pytest.mark.slow
def test_the_step_is_measured_beside_its_peer(tmp_path: Path) -> None:
    out = tmp_path / "step.json"
    shape = ["--preset", "tiny", "--rows", "2", "--length", "64", "--rounds", "1", "--precision", "fp32"]
    printed = run("benchmarks/pretrain_step.py", *shape, "--out", str(out))
    record = json.loads(out.read_text(encoding="utf-8"))
    assert len(record["steps"]) == 5
    for name, step in record["steps"].items():
        assert name in printed and step["tokens_per_second"] > 0
        assert sum(step[phase] for phase in ("data", "forward", "backward", "optimizer")) == pytest.approx(
            1.0, abs=0.01
        )
    assert record["span_corruption_beside_t5"] > 0


@pytest.mark.slow
def test_tokenisation_is_measured(tmp_path: Path) -> None:
    source = tmp_path / "topics.txt"
    source.write_text("\n".join(topics.values()), encoding="utf-8")
    printed = run(
        "benchmarks/tokenizer.py", str(source), "--vocab-size", "2000", "--megabytes", "0.4", "--rounds", "1"
    )
    for name in ("transcribed", "ours", "SentencePiece alone", "encode_texts", "export", "times"):
        assert name in printed
