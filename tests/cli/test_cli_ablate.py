"""``metro-t0 ablate``: a mistake is one line and exit code 2, and nothing is left behind."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from metro_t0.cli.main import main

STUDY = """base: tiny
axes: {rtd-gate: }
tokens: 1000
"""


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--preset", "paper-axes"], "a study needs its corpus: give --data"),
        (["--budget", "1h"], "a study needs its corpus: give --data"),
        (["--dry-run"], "a study needs its corpus: give --data"),
        ([], "there is no study in out"),
        (["--data", "corpus"], "say which study: --preset NAME or --study FILE"),
        (["--data", "corpus", "--preset", "paper-axes", "--study", "study.yaml"], "say which study"),
        (
            ["--data", "corpus", "--preset", "paper"],
            "there is no study 'paper': give a file, or one of metro-vs",
        ),
        (["--data", "corpus", "--study", "nowhere.yaml"], "there is no study 'nowhere.yaml'"),
        (
            ["--data", "corpus", "--study", "broken.yaml"],
            "there is no axis 'rtd-gaet'; the nearest is 'rtd-gate'",
        ),
        (
            ["--data", "corpus", "--study", "study.yaml", "model.d_ff=8"],
            "only settings of training can be given",
        ),
        (
            ["--data", "corpus", "--study", "study.yaml", "training.seed=8"],
            "training.seed cannot be set in a study",
        ),
        (["--data", "corpus", "--study", "study.yaml", "--budget", "soon"], "'soon'"),
        (
            ["--data", "corpus", "--study", "study.yaml"],
            "corpus is not a folder; make a prepared corpus with",
        ),
        (["--data", "corpus", "--study", "study.yaml", "--dry-run"], "corpus is not a folder"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "broken.yaml").write_text(STUDY.replace("gate", "gaet"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["metro-t0", "ablate", "--out", "out", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert message in said and said.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"study.yaml", "broken.yaml"}
