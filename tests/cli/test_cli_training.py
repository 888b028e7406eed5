"""``metro-t0 pretrain`` and ``finetune``: a mistake is one line and exit code 2, and nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metro_t0.cli.main import main

PRETRAIN = ["pretrain", "--data", "nowhere", "--out", "run"]
FINETUNE = ["finetune", "model", "--mixture", "mixture.yaml", "--out", "run"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (PRETRAIN, "say what to train: --preset NAME or --config FILE"),
        ([*PRETRAIN, "--preset", "tyny"], "there is no preset 'tyny'; the nearest is 'tiny'"),
        ([*PRETRAIN, "--preset", "tiny", "training.stesp=3"], "the nearest is 'training.steps'"),
        (
            [*PRETRAIN, "--preset", "tiny"],
            "nowhere is not a folder; make a prepared corpus with: metro-t0 prepare",
        ),
        ([*PRETRAIN, "--preset", "tiny", "--config", "a.yaml"], "a preset's name or a configuration file"),
        ([*PRETRAIN, "--resume"], "there is no run to resume in run"),
        (
            [*PRETRAIN, "--preset", "tiny", "--budget", "2M"],
            "'2M' is no budget: write a time (90s, 20m, 8h, 2d)",
        ),
        ([*PRETRAIN, "--preset", "tiny", "--budget", "0m"], "a budget of 0m holds nothing"),
        ([*FINETUNE, "--budget", "5m", "training.steps=3"], "--budget and training.steps both say how long"),
        (
            [*PRETRAIN, "--preset", "tiny", "training.trackers=[tensorbord]"],
            "training.trackers.0: input should",
        ),
        ([*FINETUNE, "--preset", "tiny"], "preset tiny is a pretrain configuration"),
        (FINETUNE, "model is neither a run directory nor a model folder"),
        ([*FINETUNE, "--resume"], "there is no run to resume in run"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["metro-t0", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in said and said.count("\n") == 1
    assert not list(tmp_path.iterdir())
