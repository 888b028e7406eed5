"""Work that can be gone on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from metro_t0.data.work import WorkFolder


def test_the_output_appears_at_the_end_and_the_work_goes(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with WorkFolder(out) as work:
        assert not work.continued
        with work.piece("read/a") as folder:
            (folder / "x").write_text("1")
            assert not work.has("read/a")
        assert work.has("read/a")
        with work.whole() as folder:
            (folder / "y").write_text("2")
            assert not out.exists()
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "y").read_text() == "2"


def test_an_error_leaves_nothing_unless_the_work_is_worth_keeping(tmp_path: Path) -> None:
    out = tmp_path / "new" / "out"
    with pytest.raises(KeyError), WorkFolder(out) as work, work.piece("a"):
        raise KeyError
    assert not list(tmp_path.iterdir())
    kept = pytest.raises(
        ValueError, match=r"broken \(what is done is kept in .*\.out\.work; the same command"
    )
    with kept, WorkFolder(out) as work:
        with work.piece("read/a") as folder:
            (folder / "x").write_text("1")
        work.keep = True
        with work.piece("read/b"):
            raise ValueError("broken")
    with WorkFolder(out) as work:
        assert work.continued and work.has("read/a") and not work.has("read/b")
        work.forget("read", ["b"])
        assert not work.has("read/a")


def test_half_a_piece_of_a_killed_process_is_swept_away(tmp_path: Path) -> None:
    (tmp_path / ".out.work" / "read" / "a.part").mkdir(parents=True)
    (tmp_path / ".out.work" / "whole").mkdir()
    with WorkFolder(tmp_path / "out") as work:
        assert not list(work.path.glob("read/*")) and not work.has("whole")


def test_two_processes_do_not_write_one_output(tmp_path: Path) -> None:
    refused = pytest.raises(ValueError, match="another process is writing")
    with WorkFolder(tmp_path / "out"), refused, WorkFolder(tmp_path / "out"):
        pass
