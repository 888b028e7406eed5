"""The benchmarks run, and what the README says they printed is what their files hold."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from metro_t0.tokenization.training import train_tokenizer

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


@pytest.mark.slow
def test_prompts_are_measured_on_rows_of_ones_own(tmp_path: Path) -> None:
    rows = [{"text": f"the boat number {row} is wide and cold", "label": row % 2} for row in range(300)]
    (tmp_path / "rows" / "boats" / "default").mkdir(parents=True)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / "rows" / "boats" / "default" / "train.jsonl").write_text(text, encoding="utf-8")
    templates = {
        "one": {"jinja": "{{ text }} Good? ||| {{ answer_choices[label] }}", "answer_choices": "no ||| yes"},
        "two": {"jinja": "{{ headline }} ||| {{ label }}"},
    }
    (tmp_path / "templates" / "boats").mkdir(parents=True)
    (tmp_path / "templates" / "boats" / "templates.yaml").write_text(json.dumps({"templates": templates}))
    train_tokenizer([row["text"] for row in rows] * 3, 80, tmp_path / "tokenizer")
    folders = ["--data-root", str(tmp_path / "rows"), "--templates", str(tmp_path / "templates")]
    out = tmp_path / "prompts.json"
    settings = ["--tokenizer", str(tmp_path / "tokenizer"), "--rounds", "1", "--out", str(out)]
    printed = run("benchmarks/prompts.py", *folders, *settings)
    assert "1 datasets, 1 templates, 300 examples" in printed
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["rendered_a_second"] > record["rendered_a_second_compiling"] > 0
    assert set(record["built_a_second"]) == {"1", "2"}


@pytest.mark.slow
def test_ranking_is_measured_beside_the_plain_way(tmp_path: Path) -> None:
    train_tokenizer(topics.values(), 600, tmp_path / "tokenizer")
    arguments = ["--tokenizer", str(tmp_path / "tokenizer"), "--rows", "2", "--rounds", "1"]
    printed = run("benchmarks/rank.py", *arguments, "--json", str(tmp_path / "rank.json"))
    record = json.loads((tmp_path / "rank.json").read_text(encoding="utf-8"))
    assert all(row["times"] > 0 and row["changed"] == 0 for row in record["measured"].values())
    for answers in (2, 4, 10):
        assert f"{answers} answers, random pieces" in printed
    assert printed.count("predictions that differ 0 of 4") == 3


@pytest.mark.slow
def test_lm_eval_s_tasks_are_measured_beside_its_own_path(tmp_path: Path) -> None:
    for needed in ("lm_eval", "accelerate"):
        pytest.importorskip(needed)
    train_tokenizer(topics.values(), 600, tmp_path / "tokenizer")
    words = " ".join(topics.values()).split()
    entailed = [
        {"premise": words[n], "hypothesis": " ".join(words[n : n + 3]), "label": n % 2} for n in range(8)
    ]
    asked = [
        {"question": words[n], "answerKey": "B", "choices": {"text": words[n : n + 4], "label": [*"ABCD"]}}
        for n in range(0, 32, 4)
    ]
    for place, rows in (("super_glue/rte", entailed), ("ai2_arc/ARC-Challenge", asked)):
        folder = tmp_path / "rows" / place
        folder.mkdir(parents=True)
        with gzip.open(folder / "validation.jsonl.gz", "wt", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\n" for row in rows)
    out = tmp_path / "lm-eval.json"
    printed = run(
        "benchmarks/lm_eval_adapter.py", "--tokenizer", str(tmp_path / "tokenizer"),
        "--data-root", str(tmp_path / "rows"), "--limit", "6", "--rounds", "1", "--json", str(out),
    )  # fmt: skip
    for name, task in json.loads(out.read_text(encoding="utf-8"))["tasks"].items():
        assert name in printed and task["documents"] == 6
        assert task["adapter"]["acc"] == task["lm-eval's own"]["acc"]
        assert task["largest_relative_difference"] < 1e-4


@pytest.mark.slow
def test_generation_is_measured_beside_its_peers(tmp_path: Path) -> None:
    out = tmp_path / "generate.json"
    short = ["--batches", "1", "--prompt-tokens", "8", "--new-tokens", "3", "--rounds", "1", "--clock", "cpu"]
    printed = run("benchmarks/generate.py", *short, "--json", str(out))
    (result,) = json.loads(out.read_text(encoding="utf-8"))["results"]
    assert result["same_tokens_as_the_old_way"] is True
    assert len(result["tokens_per_second"]) == 6 and min(result["tokens_per_second"].values()) > 0
    for way in result["tokens_per_second"]:
        assert way in printed
