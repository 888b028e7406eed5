"""Evaluations that are killed, go on, fail in part, and are not mixed up with others."""

from __future__ import annotations

import json
import multiprocessing
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from evaluation_folders import write_lines
from small_models import make_model, make_tokenizer

from metro_t0.evaluation.evaluation_folder import EvaluationFolder, check_unfinished
from metro_t0.evaluation.predictions import Prediction, TemplatePredictions, read_predictions
from metro_t0.evaluation.suites import EvaluationSettings, evaluate

ITEM = Prediction(0, "prompt", ["yes", "no"], [-1.0, -2.0], [2, 2], 0, 1)
ASKED = ({"model": "ab" * 32, "limit": None}, {"task": "cd" * 32})
TEMPLATES = 8


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_suite(folder: Path, tasks: dict[str, list[dict[str, Any]]]) -> Path:
    """Tasks of the same templates on rows of their own."""
    entries = []
    templates = {
        str(n): {
            "name": f"wording {n}",
            "answer_choices": "yes ||| no",
            "jinja": f"{{{{ text }}}} {'clock ' * n}? ||| {{{{ answer_choices[label] }}}}",
        }
        for n in range(TEMPLATES)
    }
    folder.mkdir(exist_ok=True)
    (folder / "t.yaml").write_text(yaml.safe_dump({"dataset": "it", "templates": templates}))
    for name, rows in tasks.items():
        write_lines(folder / f"{name}.jsonl", rows)
        entries.append({"name": name, "dataset": name, "evaluation": f"{name}.jsonl", "templates": "t.yaml"})
    (folder / "suite.yaml").write_text(yaml.safe_dump({"tasks": entries}))
    return folder / "suite.yaml"


def rows(count: int) -> list[dict[str, Any]]:
    return [{"text": f"the river {n % 7} " * (1 + n % 5), "label": n % 2} for n in range(count)]


def timeless(results: dict[str, Any]) -> dict[str, Any]:
    results = json.loads(json.dumps(results))
    for key in ("seconds", "written", "examples_per_second", "model"):
        results.pop(key)
    for task in results["tasks"]:
        task.pop("seconds")
    return results


def test_a_killed_evaluation_goes_on(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite", {f"task-{n}": rows(400) for n in range(6)})
    out = tmp_path / "out"
    command = [
        sys.executable,
        "-m",
        "metro_t0.cli.main",
        "evaluate",
        model_folder,
        "--suite",
        suite,
        "--out",
        out,
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(out.glob("predictions/*/*.jsonl.gz")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in out.glob("predictions/*/*.jsonl.gz")}
    assert 0 < len(kept) < 6 * TEMPLATES and not (out / "results.json").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "going on: " in done.stderr and "prompts were ranked before" in done.stderr
    assert all(path.stat().st_mtime_ns == written for path, written in kept.items()), "nothing was done twice"
    whole = evaluate(model_folder, suite, tmp_path / "whole")
    assert timeless(json.loads((out / "results.json").read_text())) == timeless(whole)


def test_a_damaged_file_of_predictions_is_made_again(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite", {"task": rows(20)})
    first = evaluate(model_folder, suite, tmp_path / "out")
    (tmp_path / "out" / "results.json").unlink()
    path = next((tmp_path / "out" / "predictions").glob("*/*.gz"))
    path.write_bytes(path.read_bytes()[:40])
    assert timeless(evaluate(model_folder, suite, tmp_path / "out")) == timeless(first)
    assert len(read_predictions(tmp_path / "out" / "predictions")) == TEMPLATES


def test_a_task_that_fails_is_named_and_tried_again(model_folder: Path, tmp_path: Path) -> None:
    broken = [*rows(9), {"text": "the end", "label": 7}]
    suite = write_suite(tmp_path / "suite", {"good": rows(10), "bad": broken, "fine": rows(12)})
    command = ["evaluate", str(model_folder), "--suite", str(suite), "--out", str(tmp_path / "out")]
    command = [sys.executable, "-m", "metro_t0.cli.main", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "bad failed, the others go on: " in done.stderr
    assert done.stdout.count("failed: bad: ") == 1 and "row 10" in done.stdout
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [task["task"] for task in results["tasks"]] == ["good", "fine"]
    assert [failure["task"] for failure in results["failures"]] == ["bad"]
    assert (results["overall"]["tasks"], results["overall"]["expected_tasks"]) == (2, 3)
    write_lines(tmp_path / "suite" / "bad.jsonl", rows(9))
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "going on: 176 of 248 prompts" in again.stderr
    mended = json.loads((tmp_path / "out" / "results.json").read_text())
    assert [task["task"] for task in mended["tasks"]] == ["good", "bad", "fine"] and not mended["failures"]


def test_predictions_of_something_else_are_not_taken(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite", {"task": rows(20)})
    evaluate(model_folder, suite, tmp_path / "out")
    (tmp_path / "out" / "results.json").unlink()
    with pytest.raises(
        ValueError, match=r"begun with limit null, and it is 5 now: give the same again to go on"
    ):
        evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(limit=5))
    write_lines(tmp_path / "suite" / "task.jsonl", rows(19))
    with pytest.raises(ValueError, match="begun with rows and templates of task "):
        evaluate(model_folder, suite, tmp_path / "out")
    write_lines(tmp_path / "suite" / "task.jsonl", rows(20))
    with pytest.raises(ValueError, match="begun with max_input_length 512, and it is 64 now"):
        evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(max_input_length=64))
    other = tmp_path / "other-model"
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    make_model(tokenizer, seed=5).save_pretrained(other)
    tokenizer.save_pretrained(other)
    with pytest.raises(ValueError, match="begun with model "):
        evaluate(other, suite, tmp_path / "out")
    shutil.rmtree(tmp_path / "out" / "predictions")
    assert evaluate(model_folder, suite, tmp_path / "out")["prompts"] == 20 * TEMPLATES


def test_finished_results_are_kept(tmp_path: Path) -> None:
    with EvaluationFolder(tmp_path / "out", *ASKED) as folder:
        folder.add(TemplatePredictions("task", "template", [ITEM]))
        folder.finish({"failures": []})
    with pytest.raises(ValueError, match=r"already holds results\.json"):
        check_unfinished(tmp_path / "out")
    with (
        pytest.raises(ValueError, match=r"already holds results\.json"),
        EvaluationFolder(tmp_path / "out", *ASKED),
    ):
        raise AssertionError
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file; give a directory"):
        check_unfinished(tmp_path / "file")
    with (
        pytest.raises(ValueError, match="cannot write to"),
        EvaluationFolder(tmp_path / "file" / "below", *ASKED),
    ):
        raise AssertionError


def hold(out: Path, ready: Any, done: Any) -> None:
    with EvaluationFolder(out, *ASKED):
        ready.set()
        done.wait(60)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=hold, args=(tmp_path / "out", ready, done))
    other.start()
    assert ready.wait(60)
    with (
        pytest.raises(ValueError, match="another process is writing"),
        EvaluationFolder(tmp_path / "out", *ASKED),
    ):
        raise AssertionError
    done.set()
    other.join(60)
    assert other.exitcode == 0
    with EvaluationFolder(tmp_path / "out", *ASKED) as folder:
        assert folder.predictions("task", "template") is None
