"""``metro-t0 rank`` gives the official likelihoods, however its lines are ordered and batched."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import pytest

from metro_t0.cli.main import main


def write(path: Path, lines: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


def check_answers(text: str, cases: list[dict[str, object]]) -> None:
    answers = [json.loads(line) for line in text.splitlines()]
    for answer, case in zip(answers, cases, strict=True):
        assert answer["input"] == case["input"]
        assert answer["log_likelihood"] == pytest.approx(case["log_likelihood"], rel=1e-4, abs=1e-4)
        assert answer["prediction"] == case["prediction"]


@pytest.fixture
def cases(golden: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((golden / "rank" / "cases.json").read_text(encoding="utf-8"))
    return found


@pytest.mark.parametrize("batch_tokens", [None, 1, 2, 37, 150, 700, 10**9])
def test_official_answers_at_every_budget_and_order(
    golden: Path,
    cases: list[dict[str, object]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    batch_tokens: int | None,
) -> None:
    shuffled = random.Random(batch_tokens).sample(cases, len(cases))
    for name, order in (("forward", cases), ("backward", cases[::-1]), ("shuffled", shuffled)):
        questions = [{"input": case["input"], "choices": case["choices"]} for case in order]
        words = [str(golden / "hf_tiny"), str(write(tmp_path / f"{name}.jsonl", questions))]
        words += ["--out", str(tmp_path / f"{name}-answers.jsonl")]
        words += [] if batch_tokens is None else ["--batch-tokens", str(batch_tokens)]
        monkeypatch.setattr(sys, "argv", ["metro-t0", "rank", *words])
        with pytest.raises(SystemExit) as stop:
            main()
        assert not stop.value.code
        check_answers((tmp_path / f"{name}-answers.jsonl").read_text(encoding="utf-8"), order)


def test_official_answers_in_a_shell(golden: Path, cases: list[dict[str, object]], tmp_path: Path) -> None:
    questions = write(
        tmp_path / "questions.jsonl", [{"input": case["input"], "choices": case["choices"]} for case in cases]
    )
    done = subprocess.run(
        [sys.executable, "-m", "metro_t0.cli.main", "rank", golden / "hf_tiny", questions],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    check_answers(done.stdout, cases)


def test_a_place_that_cannot_be_written_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Said before the model is even looked for."""
    questions = write(tmp_path / "questions.jsonl", [{"input": "which", "choices": ["yes"]}])
    out = questions / "answers.jsonl"
    monkeypatch.setattr(
        sys, "argv", ["metro-t0", "rank", str(tmp_path / "none"), str(questions), "--out", str(out)]
    )
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"metro-t0: cannot write {out}: ")
