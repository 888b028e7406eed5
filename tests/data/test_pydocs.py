"""The embedded corpus of this very installation."""

from __future__ import annotations

import re
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from metro_t0.data import pydocs
from metro_t0.data.pydocs import MIN_WORDS, PydocCounts, PydocEntry, iterate_pydocs

CHARACTERS = 150_000


@pytest.fixture(scope="module")
def entries() -> list[PydocEntry]:
    return list(iterate_pydocs(characters_per_library=CHARACTERS))


def test_every_required_library_gives_real_text(entries: list[PydocEntry]) -> None:
    characters = Counter[str]()
    for entry in entries:
        characters[entry.library] += len(entry.text)
    for library in ("python", "numpy", "torch", "transformers", "datasets", "matplotlib", "pydantic"):
        assert CHARACTERS <= characters[library] < 2 * CHARACTERS


def test_entries_are_dedented_distinct_and_long_enough(entries: list[PydocEntry]) -> None:
    assert len({entry.text for entry in entries}) == len(entries)
    assert not any(entry.text[0].isspace() or entry.text[-1].isspace() for entry in entries)
    assert min(len(re.findall(r"[a-zA-Z]{2,}", entry.text)) for entry in entries) >= MIN_WORDS
    assert all((entry.kind == "module") == (entry.qualified_name == "") for entry in entries)


def test_same_order_every_time(entries: list[PydocEntry]) -> None:
    again = list(iterate_pydocs(characters_per_library=20_000))
    numpy = [entry for entry in again if entry.library == "numpy"]
    assert numpy == [entry for entry in entries if entry.library == "numpy"][: len(numpy)]


def test_topics_and_compiled_modules_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pydocs, "PACKAGES", ())
    python = {(entry.module, entry.qualified_name): entry for entry in iterate_pydocs()}
    assert python["math", "isclose"].text.startswith("Determine whether two floating point numbers are close")
    assert python["math", "isclose"].signature is not None
    assert python["builtins", "str.split"].kind == "function"
    assert python["builtins", "dict"].kind == "class"
    if "pydoc_data.topics" in sys.modules:
        assert python["pydoc_data.topics", "lambda"].kind == "topic"


def _package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes]) -> list[PydocEntry]:
    for name, content in files.items():
        path = tmp_path / "somelibrary" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(pydocs, "PACKAGES", ("somelibrary", "notinstalled"))
    return [entry for entry in iterate_pydocs(characters_per_library=2000) if entry.library == "somelibrary"]


TEXT = b'"""This text has certainly more than eight words in it, %s."""\n'


def test_public_files_come_first_and_test_folders_never(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["_private.py", "deep/er/module.py", "__init__.py", "zebra.py", "tests/here.py", "deep/test_x.py"]
    found = _package(tmp_path, monkeypatch, {name: TEXT % name.encode() for name in names})
    assert [entry.module for entry in found] == [
        "somelibrary",
        "somelibrary.zebra",
        "somelibrary.deep.er.module",
        "somelibrary._private",
    ]


def test_broken_files_are_counted_and_the_rest_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "__init__.py": b"",
        "a.py": b"\xff\xfe not text",
        "b.py": TEXT % b"b" + b'x = """no end\n',
        "c.py": TEXT % b"c",
        "d.py": TEXT % b"c",
        "e.py": b'"""Too short."""\n',
    }
    _package(tmp_path, monkeypatch, files)
    counts = PydocCounts()
    found = list(iterate_pydocs(counts, characters_per_library=2000))
    assert [entry.module for entry in found if entry.library == "somelibrary"] == [
        "somelibrary.b",
        "somelibrary.c",
    ]
    assert counts.broken_files == 2
    assert counts.duplicates >= 1 and counts.too_short >= 1


def test_docstrings_added_by_calls_are_read_without_running_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = b'''
raise SystemExit("this file must not run")
add_newdoc("somelibrary.core", "ones", """ones(shape, dtype=None)

Gives a new array of the given shape that is filled with ones.""")
add_docstr(somelibrary.absolute, r"""absolute(input) -> Tensor

Computes the absolute value of each element in the input.""" + r"""

{more} And the rest of the text.""".format(**common))
'''
    found = _package(tmp_path, monkeypatch, {"__init__.py": b"", "docs.py": source})
    assert [(entry.qualified_name, entry.signature) for entry in found] == [
        ("ones", "(shape, dtype=None)"),
        ("absolute", "(input)"),
    ]
    assert found[1].text.endswith("input.\n\n And the rest of the text.")


@pytest.mark.slow
def test_the_whole_corpus_is_large_and_quickly_read() -> None:
    start = time.process_time()
    characters = sum(len(entry.text) for entry in iterate_pydocs())
    assert characters > 15_000_000
    assert time.process_time() - start < 30  # about 12 s on a core of its own
