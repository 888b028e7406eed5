"""Lines as they come: of a file, of a pipe, in pieces."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.cli.standard_input import windows

TEXT = st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=9)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(lines=st.lists(TEXT, max_size=12), size=st.integers(1, 5), cut=st.integers(1, 7), ends=st.booleans())
def test_all_lines_of_a_pipe_in_order(lines: list[str], size: int, cut: int, ends: bool) -> None:
    reader, writer = os.pipe()
    data = "\n".join(lines).encode() + (b"\n" if ends else b"")

    def write() -> None:
        with os.fdopen(writer, "wb", buffering=0) as pipe:
            for start in range(0, len(data), cut):
                pipe.write(data[start : start + cut])

    thread = threading.Thread(target=write)
    thread.start()
    with os.fdopen(reader, "rb") as stream:
        found = list(windows(stream, size))
    thread.join()
    assert all(1 <= len(window) <= size for window in found)
    assert [line for window in found for line in window] == [line for line in lines if line.strip()]


def test_whole_lines_of_a_pipe_do_not_wait_for_the_rest() -> None:
    reader, writer = os.pipe()
    with os.fdopen(reader, "rb") as stream, os.fdopen(writer, "wb", buffering=0) as pipe:
        found = windows(stream, 10)
        pipe.write(b"one\r\n\ntwo\nthr")
        assert next(found) == ["one", "two"]
        pipe.write(b"ee\n")
        assert next(found) == ["three"]
        pipe.write(b"four")
        pipe.close()
        assert list(found) == [["four"]]


def test_a_file_fills_its_windows(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("".join(f"{n}\n" for n in range(25)))
    with (tmp_path / "lines").open("rb") as stream:
        assert [len(window) for window in windows(stream, 10)] == [10, 10, 5]


def test_what_stands_before_a_line_that_is_no_utf8_is_given() -> None:
    found = windows(io.BytesIO("gut\nschön\n".encode() + b"sch\xf6n\nlater\n"), 1)
    assert [next(found), next(found)] == [["gut"], ["schön"]]
    with pytest.raises(ValueError, match=r"not UTF-8: line 3"):
        next(found)
