"""WikiExtractor's two forms, in folders and compressed, and what a broken file is told."""

from __future__ import annotations

import bz2
import json
from pathlib import Path

import pytest

from metro_t0.data.wikiextractor import documents

HEAD = '<doc id="{0}" url="https://en.wikipedia.org/wiki?curid={0}" title="{1}">\n'
OWL = HEAD.format(1, "Owl") + "Owl\n\nOwls hunt at night.\n{x} is no JSON.\n\nThey see well.\n\n</doc>\n"
ELM = HEAD.format(2, 'The "Elm"') + 'The "Elm"\n\nA tree.\n\n</doc>\n'


def test_folders_in_order_of_name_with_titles_first(tmp_path: Path) -> None:
    for folder in ("AB", "AA"):
        (tmp_path / folder).mkdir()
    (tmp_path / "AB/wiki_00.bz2").write_bytes(bz2.compress(ELM.encode()))
    (tmp_path / "AA/wiki_00").write_text(OWL)
    record = {"id": "3", "revid": "9", "url": "u", "title": "Ash", "text": "A tree,\nof wood."}
    (tmp_path / "AA/wiki_01").write_text(json.dumps(record) + "\n")
    (tmp_path / "AA/notes.txt").write_text("not an article")
    assert list(documents(tmp_path)) == [
        "Owl\n\nOwls hunt at night.\n{x} is no JSON.\n\nThey see well.",
        "Ash\n\nA tree,\nof wood.",
        'The "Elm"\n\nA tree.',
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (OWL[:-7], r"wiki_00:1: the file ends inside the article"),
        (OWL + HEAD.format(2, "Elm") + OWL, r"wiki_00:11: an article begins inside the one of line 10"),
        (OWL + "</doc>\n", r"wiki_00:10: </doc> closes no article"),
        (OWL + "stray\n", r"wiki_00:10: text outside an article"),
        ('{"title": "Owl"}\n', r"wiki_00:1: an article needs 'title' and 'text'"),
        ('{"title": "Owl\n', r"wiki_00:1: broken JSON"),
    ],
)
def test_broken_files_are_named_with_the_line(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "wiki_00").write_text(content)
    with pytest.raises(ValueError, match=message):
        list(documents(tmp_path))


def test_a_bz2_file_that_ends_early_is_named(tmp_path: Path) -> None:
    whole = bz2.compress(OWL.encode())
    (tmp_path / "wiki_00.bz2").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"wiki_00\.bz2: the compressed file is damaged or ends early"):
        list(documents(tmp_path))


def test_folders_without_articles_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no file wiki_00"):
        list(documents(tmp_path))
    with pytest.raises(ValueError, match="does not exist"):
        list(documents(tmp_path / "missing"))
