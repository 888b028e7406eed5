"""A study's folder: locks between real processes, and what may be begun where."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from metro_t0.study.study_folder import StudyFolder

_HOLDER = """
import sys
from pathlib import Path
from metro_t0.study.study_folder import StudyFolder

folder = StudyFolder(Path(sys.argv[1]))
if sys.argv[2] == "claimed":
    with folder.claimed("a/base/seed-1") as mine:
        print(mine, flush=True)
        sys.stdin.read()
else:
    print("waits", flush=True)
    with folder.only("mixtures"):
        print("inside", flush=True)
        sys.stdin.read()
"""


@contextmanager
def holder(folder: Path, lock: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that takes a lock and keeps it until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(folder), lock],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        for pipe in (process.stdin, process.stdout):
            assert pipe is not None
            pipe.close()


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("end", ["by itself", "killed"])
def test_a_run_is_one_process_s_for_as_long_as_that_lives(end: str, tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    with holder(folder.path, "claimed") as other:
        assert said(other) == "True"
        with folder.claimed("a/base/seed-1") as mine:
            assert not mine
        with folder.claimed("a/base/seed-2") as mine:
            assert mine
        if end == "killed":
            other.send_signal(signal.SIGKILL)
        assert other.stdin is not None
        other.stdin.close()
        other.wait(timeout=60)
        with folder.claimed("a/base/seed-1") as mine:
            assert mine
            with holder(folder.path, "claimed") as third:
                assert said(third) == "False"


def test_others_wait_where_only_one_may_be(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "out")
    with holder(folder.path, "only") as other:
        assert (said(other), said(other)) == ("waits", "inside")
        with holder(folder.path, "only") as third:
            assert said(third) == "waits"
            other.kill()
            assert said(third) == "inside"


def test_only_a_new_or_a_begun_folder_is_a_study_s(tmp_path: Path) -> None:
    folder = StudyFolder(tmp_path / "a" / "out")
    assert folder.stored() is None and not folder.path.exists()
    with folder.only("study"):
        assert folder.stored() is None  # locks alone are no study
    folder.begin({"study": {"name": "é"}})
    assert folder.stored() == {"format_version": 1, "study": {"name": "é"}}
    assert not [path for path in folder.path.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not readable JSON"),
        ("[]", "does not hold a JSON object"),
        ('{"format_version": 99}', "give another folder"),
        ("{}", "give another folder"),
    ],
)
def test_a_foreign_study_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "study.json").write_text(content)
    with pytest.raises(ValueError, match=message):
        StudyFolder(tmp_path).stored()


def test_what_cannot_be_a_folder_is_told(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("mine")
    with pytest.raises(ValueError, match="is a file; give a folder"):
        StudyFolder(file).stored()
    for folder in (StudyFolder(file), StudyFolder(file / "below")):
        with pytest.raises(ValueError, match="cannot write to"):
            folder.begin({})
        with pytest.raises(ValueError, match="cannot write to"), folder.claimed("a/base/seed-1"):
            raise AssertionError("there is no lock to hold")
    assert file.read_text() == "mine"
