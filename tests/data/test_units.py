"""Sources cut into units give the documents of the sources, whatever the size of a unit."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.data.corpora import SplitDocuments, read_documents, resolve_sources
from metro_t0.data.units import reading_units

words = st.text("abcé \r\t\u2028", min_size=0, max_size=12)


def cut(path: Path, unit_bytes: int, split: SplitDocuments = "file") -> tuple[int, list[str]]:
    units = reading_units(
        resolve_sources([path]), split_documents=split, text_column="text", unit_bytes=unit_bytes
    )
    return len(units), [document.text for unit in units for document in unit.documents()]


def whole(path: Path, split: SplitDocuments = "file") -> list[str]:
    return [document.text for document in read_documents([path], split_documents=split)]


@given(st.lists(st.lists(words, max_size=4), max_size=12), st.integers(1, 60))
def test_text_cut_at_blank_lines(
    tmp_path_factory: pytest.TempPathFactory, documents: list[list[str]], unit_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("text") / "a.txt"
    text = "\n\n".join("\n".join(lines) for lines in documents) + "\nend\n"
    path.write_bytes(text.encode())
    assert cut(path, unit_bytes, "blank-line")[1] == whole(path, "blank-line")


@given(st.lists(words, min_size=1, max_size=20), st.integers(1, 80))
def test_json_lines_cut_at_line_ends(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], unit_bytes: int
) -> None:
    path = tmp_path_factory.mktemp("json") / "a.jsonl"
    lines = [json.dumps({"text": text}, ensure_ascii=False) for text in [*texts, "end"]]
    path.write_bytes("\n".join(lines).encode())
    number, found = cut(path, unit_bytes)
    assert found == whole(path)
    assert number > 1 or path.stat().st_size <= unit_bytes + max(len(line.encode()) for line in lines) + 1


def test_small_files_share_a_unit_and_compressed_ones_are_whole(tmp_path: Path) -> None:
    for number in range(10):
        (tmp_path / f"{number}.txt").write_text(f"document {number}")
    (tmp_path / "x.jsonl.gz").write_bytes(gzip.compress(b'{"text": "a"}\n' * 100))
    assert cut(tmp_path, 25) == (6, whole(tmp_path))


def test_a_broken_line_is_named_by_its_number_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n' * 10 + "{broken\n" + '{"text": "fine"}\n' * 10)
    with pytest.raises(ValueError, match=f"^{path}:11: broken JSON"):
        cut(path, 50)


def test_a_changed_file_has_another_fingerprint(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("one")
    [unit] = reading_units(resolve_sources([path]), split_documents="file", text_column="text")
    before = unit.fingerprint()
    assert before == unit.fingerprint()
    path.write_text("other")
    assert before != unit.fingerprint()
