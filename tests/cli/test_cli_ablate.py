"""``metro-t0 ablate``: a mistake is one line and exit code 2, and nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metro_t0.cli.main import main

STUDY = ["ablate", "--out", "out"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (STUDY, "there is no study in out"),
        ([*STUDY, "--preset", "paper-axes"], "a study needs its corpus: give --data"),
        ([*STUDY, "--dry-run"], "a study needs its corpus: give --data"),
        ([*STUDY, "--data", "corpus"], "say which study: --preset NAME or --study FILE"),
        ([*STUDY, "--data", "corpus", "--preset", "a", "--study", "b"], "say which study"),
        ([*STUDY, "--data", "corpus", "--preset", "paper"], "there is no study 'paper'"),
        ([*STUDY, "--data", "corpus", "--study", "nowhere.yaml"], "there is no study 'nowhere.yaml'"),
        (
            [*STUDY, "--data", "corpus", "--preset", "paper-axes", "model.d_model=8"],
            "only settings of training",
        ),
        ([*STUDY, "--data", "corpus", "--preset", "paper-axes", "--budget", "soon"], "'soon'"),
        ([*STUDY, "--data", "corpus", "--preset", "paper-axes"], "corpus is not a folder"),
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
