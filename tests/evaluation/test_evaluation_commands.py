"""The commands rank, generate, evaluate and report, run as a user runs them."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import yaml
from evaluation_folders import write_evaluation, write_lines, write_run
from small_models import make_model, make_tokenizer

from metro_t0.cli.main import main
from metro_t0.evaluation.loading import load_model
from metro_t0.evaluation.ranking.rank import rank


@dataclass
class Done:
    returncode: int
    stdout: str
    stderr: str


def command(*arguments: str | Path, stdin: str = "") -> Done:
    """The command line with these arguments, in this process: starting Python and torch anew would take seconds."""
    out, err = io.StringIO(), io.StringIO()
    given = io.TextIOWrapper(io.BytesIO(stdin.encode("utf-8")), encoding="utf-8")
    with (
        mock.patch.object(sys, "argv", ["metro-t0", *map(str, arguments)]),
        mock.patch.object(sys, "stdin", given),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code: Any = 0
        except SystemExit as stop:
            code = stop.code or 0
    return Done(code, out.getvalue(), err.getvalue())


def refused(done: Done, message: str) -> None:
    """One line on standard error that says what is wrong, and exit code 2."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1 and lines[0].startswith("metro-t0: ") and message in lines[0], done.stderr


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run: curves and a model."""
    run = write_run(tmp_path_factory.mktemp("runs") / "finetune", objective="prompted", steps=50)
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    make_model(tokenizer).save_pretrained(run / "model")
    tokenizer.save_pretrained(run / "model")
    return run


QUESTIONS: list[dict[str, Any]] = [
    {"input": "does it follow", "choices": ["yes", "no", "maybe"], "id": 7},
    {"input": "which river", "choices": ["the old clock", "a small engine"]},
    {"input": "does it follow " * 40, "choices": ["yes"]},
]


def test_rank_adds_likelihoods_and_prediction(run: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "questions.jsonl", QUESTIONS)
    out = tmp_path / "answers" / "answers.jsonl"
    done = command("rank", run, tmp_path / "questions.jsonl", "--out", out)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "1 of 3 prompts were longer" in done.stderr
    answers = [json.loads(line) for line in out.read_text().splitlines()]
    model, tokenizer = load_model(run)
    wanted = rank(model, tokenizer, [q["input"] for q in QUESTIONS], [q["choices"] for q in QUESTIONS])
    for answer, question, result in zip(answers, QUESTIONS, wanted, strict=True):
        assert all(answer[key] == value for key, value in question.items()), "what the line held is kept"
        assert answer["log_likelihood"] == pytest.approx(result.log_likelihoods, rel=1e-5)
        assert answer["prediction"] == result.prediction
    piped = json.loads(command("rank", run, "-", stdin=json.dumps(QUESTIONS[0]) + "\n").stdout)
    assert piped["log_likelihood"] == pytest.approx(answers[0]["log_likelihood"], rel=1e-5)


@pytest.mark.parametrize("batch_tokens", ["1", "37", "400", "1000000", ""])
def test_rank_gives_the_official_likelihoods(golden: Path, tmp_path: Path, batch_tokens: str) -> None:
    """In every order and batch size."""
    cases = json.loads((golden / "rank" / "cases.json").read_text(encoding="utf-8"))
    order = np.random.default_rng(len(batch_tokens)).permutation(len(cases))
    asked = [{"input": cases[n]["input"], "choices": cases[n]["choices"]} for n in order]
    write_lines(tmp_path / "questions.jsonl", asked)
    options = ["--batch-tokens", batch_tokens] if batch_tokens else []
    done = command("rank", golden / "hf_tiny", tmp_path / "questions.jsonl", *options)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    for n, answer in zip(order, answers, strict=True):
        assert answer["input"] == cases[n]["input"]
        assert answer["log_likelihood"] == pytest.approx(cases[n]["log_likelihood"], rel=1e-4, abs=1e-4)
        assert answer["prediction"] == cases[n]["prediction"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{broken", "questions.jsonl, line 2: "),
        (b'{"choices": ["a"]}', 'questions.jsonl, line 2: has no "input"'),
        (b'{"input": "x", "choices": []}', 'questions.jsonl, line 2: "choices" must be a list'),
        (b'{"input": "\xff"}', "questions.jsonl, line 2: "),
    ],
)
def test_rank_names_the_broken_line(run: Path, tmp_path: Path, line: bytes, message: str) -> None:
    (tmp_path / "questions.jsonl").write_bytes(json.dumps(QUESTIONS[0]).encode() + b"\n" + line + b"\n")
    out = tmp_path / "out.jsonl"
    refused(command("rank", run, tmp_path / "questions.jsonl", "--out", out), message)
    assert not out.exists()


def test_rank_refuses_what_is_not_there(run: Path, tmp_path: Path) -> None:
    refused(command("rank", run, tmp_path / "none.jsonl"), "cannot read")
    refused(command("rank", run, "-", stdin=""), "standard input holds no line")
    refused(command("rank", tmp_path / "nowhere", "-", stdin=json.dumps(QUESTIONS[0])), "no model at")


def test_a_mistake_is_one_line_and_exit_code_2_in_a_shell(run: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "metro_t0.cli.main", "rank", run, tmp_path / "none.jsonl"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    refused(Done(done.returncode, done.stdout, done.stderr), "cannot read")


def test_generate_from_arguments_and_standard_input(run: Path) -> None:
    prompts = ["does it follow that her brother carried a clock", "which"]
    done = command("generate", run, *prompts, "--max-new-tokens", "6")
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 2
    piped = command("generate", run, "--max-new-tokens", "6", "--json", stdin="\n".join(prompts))
    records = [json.loads(line) for line in piped.stdout.splitlines()]
    assert [record["input"] for record in records] == prompts
    assert [" ".join(record["output"].split()) for record in records] == done.stdout.splitlines()
    refused(command("generate", run, stdin=" \n"), "standard input is empty")
    refused(command("generate", run, "which", "--temperature", "0"), "temperature must be above 0")


def test_generate_samples_reproducibly(run: Path) -> None:
    arguments = ("generate", run, "which", "--temperature", "5", "--max-new-tokens", "12")
    first, again, other = (command(*arguments, "--seed", seed).stdout for seed in ("1", "1", "2"))
    assert first == again != other


def test_evaluate_prints_a_table_or_json(run: Path, tmp_path: Path) -> None:
    write_lines(tmp_path / "test.jsonl", [{"text": f"clock {n}", "label": n % 2} for n in range(12)])
    entry = {
        "name": "plain",
        "answer_choices": "yes ||| no",
        "jinja": "{{ text }}? ||| {{ answer_choices[label] }}",
    }
    (tmp_path / "t.yaml").write_text(yaml.safe_dump({"dataset": "clocks", "templates": {"1": entry}}))
    task = {"dataset": "clocks", "evaluation": "test.jsonl", "templates": "t.yaml"}
    suite = tmp_path / "suite.yaml"
    suite.write_text(yaml.safe_dump({"name": "small", "tasks": [task]}))
    done = command("evaluate", run, "--suite", suite, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "a" / "results.json").read_text())
    assert "clocks" in done.stdout and "50.0" in done.stdout and "12 prompts" in done.stdout
    assert f"{100 * results['tasks'][0]['mean']:.1f}" in done.stdout
    assert results["tasks"][0]["verdict"] in done.stdout
    as_json = command("evaluate", run, "--suite", suite, "--out", tmp_path / "b", "--limit", "5", "--json")
    assert json.loads(as_json.stdout) == json.loads((tmp_path / "b" / "results.json").read_text())
    assert json.loads(as_json.stdout)["prompts"] == 5
    refused(command("evaluate", run, "--suite", suite, "--out", tmp_path / "a"), "already holds")
    refused(command("evaluate", run, "--suite", tmp_path / "no.yaml", "--out", tmp_path / "c"), "no.yaml")


def test_report_writes_beside_the_run(run: Path, tmp_path: Path) -> None:
    done = command("report", run, "--title", "A title of ours")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(run / "report.html")
    assert "A title of ours" in (run / "report.html").read_text()
    evaluation = write_evaluation(tmp_path / "evaluation")
    done = command("report", run, "--evaluation", evaluation, "--out", tmp_path / "page.html")
    assert done.returncode == 0, done.stderr
    assert "Zero-shot results" in (tmp_path / "page.html").read_text()
    refused(command("report", tmp_path / "nowhere"), "no run at")
    refused(command("report"), "nothing to report")


@pytest.mark.parametrize("verb", ["rank", "generate", "evaluate", "report"])
def test_help_shows_an_example(verb: str) -> None:
    done = command(verb, "--help")
    assert done.returncode == 0
    assert f"metro-t0 {verb} runs/" in done.stdout
