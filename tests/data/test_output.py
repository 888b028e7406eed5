"""Output folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from metro_t0.data.output import check_vacant, new_directory


def test_the_folder_appears_at_the_end(tmp_path: Path) -> None:
    out = tmp_path / "made" / "too" / "out"
    with new_directory(out) as folder:
        (folder / "a").write_text("a")
        assert folder.parent == out.parent, "a sibling, so that renaming is one step"
        assert not out.exists()
    assert [path.name for path in out.iterdir()] == ["a"]
    assert [path.name for path in out.parent.iterdir()] == ["out"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_after_an_error(tmp_path: Path, error: type[BaseException]) -> None:
    (tmp_path / "kept").mkdir()
    with pytest.raises(error), new_directory(tmp_path / "kept" / "made" / "out") as folder:
        (folder / "deep").mkdir()
        (folder / "deep" / "a").write_text("a")
        raise error
    assert [path.name for path in tmp_path.rglob("*")] == ["kept"]


def test_an_empty_folder_is_taken(tmp_path: Path) -> None:
    with new_directory(tmp_path) as folder:
        (folder / "a").write_text("a")
    assert (tmp_path / "a").read_text() == "a"


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a")
    with pytest.raises(ValueError, match=f"^{tmp_path} already holds something; "):
        check_vacant(tmp_path)
    with pytest.raises(ValueError, match="is a file"), new_directory(tmp_path / "run"):
        pytest.fail("refused before anything is written")
    with (
        pytest.raises(ValueError, match=f"cannot write to {tmp_path}/run/sub: "),
        new_directory(tmp_path / "run/sub/o"),
    ):
        pytest.fail("refused before anything is written")
    assert (tmp_path / "run").read_text() == "a"


def test_a_folder_that_was_filled_meanwhile_is_kept(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ValueError, match="already holds something"), new_directory(out):
        out.mkdir()
        (out / "theirs").write_text("theirs")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs"]
