"""Ranking on several processes, started for real, gives what one process gives; an error of one ends all."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

import pytest
from evaluation_folders import write_lines
from small_models import make_model, make_tokenizer

TESTS = Path(__file__).parents[2]
sys.path.append(str(TESTS / "distributed"))

from launch import metro_t0, said_by_command, torchrun  # noqa: E402
from ranking_in_processes import CHOICES, PROMPTS  # noqa: E402

from metro_t0.evaluation.loading import load_model  # noqa: E402
from metro_t0.evaluation.ranking.processes import Processes, rank_together  # noqa: E402
from metro_t0.evaluation.ranking.rank import rank  # noqa: E402

PROGRAM = TESTS / "distributed" / "ranking_in_processes.py"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(folder)
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_two_processes_give_what_one_gives(folder: Path, tmp_path: Path) -> None:
    done = torchrun(2, PROGRAM, tmp_path / "out", folder)
    assert done.returncode == 0, done.stderr
    model, tokenizer = load_model(folder)
    wanted = rank(model, tokenizer, PROMPTS, CHOICES)
    for process in range(2):
        found = json.loads((tmp_path / f"out.{process}").read_text(encoding="utf-8"))
        for got, result in zip(found["results"], wanted, strict=True):
            assert got["log_likelihoods"] == pytest.approx(result.log_likelihoods, rel=1e-5)
            assert {**got, "log_likelihoods": result.log_likelihoods} == dataclasses.asdict(result)
        assert found["few"][0]["prediction"] == wanted[0].prediction, "more processes than prompts"
        assert found["advanced"] == len(PROMPTS)
        assert found["gathered"] == [index * index for index in range(9)]
        assert found["heard"] == "process 0"


def test_one_process_is_the_plain_call(folder: Path) -> None:
    model, tokenizer = load_model(folder)
    advanced: list[int] = []
    with Processes() as alone:
        results = rank_together(alone, model, tokenizer, PROMPTS, CHOICES, advance=advanced.append)
        assert alone.gather([1, 2]) == [1, 2] and alone.broadcast("x") == "x"
    for result, wanted in zip(results, rank(model, tokenizer, PROMPTS, CHOICES), strict=True):
        assert result.log_likelihoods == pytest.approx(wanted.log_likelihoods, rel=1e-5)
    assert sum(advanced) == len(PROMPTS)


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("mistake", "ValueError: the last process is at fault"),
        ("bug", "ValueError: another process failed: TypeError: the last process is at fault"),
    ],
)
@pytest.mark.slow
def test_an_error_of_one_process_is_everyones(folder: Path, tmp_path: Path, kind: str, words: str) -> None:
    done = torchrun(2, PROGRAM, tmp_path / "out", folder, kind)
    assert done.returncode != 0
    assert words in done.stderr
    assert not list(tmp_path.glob("out*"))


def test_the_command_on_two_processes(folder: Path, tmp_path: Path) -> None:
    questions = [
        {"input": p, "choices": c, "id": n} for n, (p, c) in enumerate(zip(PROMPTS, CHOICES, strict=True))
    ]
    file, out = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    write_lines(file, questions)
    done = metro_t0(2, "rank", folder, file, "--out", out)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    model, tokenizer = load_model(folder)
    for answer, question, result in zip(
        answers, questions, rank(model, tokenizer, PROMPTS, CHOICES), strict=True
    ):
        assert answer["id"] == question["id"] and answer["prediction"] == result.prediction
        assert answer["log_likelihood"] == pytest.approx(result.log_likelihoods, rel=1e-5)


@pytest.mark.slow
def test_a_mistake_on_two_processes_is_one_line(folder: Path, tmp_path: Path) -> None:
    done = metro_t0(2, "rank", folder, tmp_path / "none.jsonl")
    assert done.returncode != 0
    assert len(said_by_command(done)) == 1 and "cannot read" in said_by_command(done)[0]
