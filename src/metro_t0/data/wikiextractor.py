"""Reader of WikiExtractor's output: articles as text between ``<doc ...>`` and ``</doc>``, or as JSON lines.

for article in documents(Path("extracted")):   # extracted/AA/wiki_00, extracted/AA/wiki_01.bz2, ...
    ...

An article begins with its title on a line of its own, as the text form has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from metro_t0.data.compressed import file_errors, open_bytes

_FILE_NAME = re.compile(r"wiki_\d+(\.bz2|\.gz|\.xz|\.zst)?")
_OPENING = re.compile(r'<doc id="[^"]*".*>')


def wiki_files(path: Path) -> list[Path]:
    """The files ``wiki_00``, ``wiki_01.bz2``, ... of a folder and the folders in it, by name; a file is itself.

    Raises:
        ValueError: there is no such path, or the folder holds no such file.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise ValueError(f"{path} does not exist; name a folder that WikiExtractor wrote, or a file of it")
    found = sorted(file for file in path.rglob("wiki_*") if _FILE_NAME.fullmatch(file.name))
    if not found:
        raise ValueError(f"{path} holds no file wiki_00, wiki_01, ...; is it WikiExtractor's output folder?")
    return found


def documents(path: Path) -> Iterator[str]:
    """Stream the articles of a folder or file, one article held at a time.

    Raises:
        ValueError: a file is damaged, is not UTF-8, ends inside an article, or has an opening or closing line
            where none belongs; names file and line.
    """
    for file in wiki_files(path):
        with file_errors(file):
            yield from _read_file(file)


def _read_file(path: Path) -> Iterator[str]:
    article: list[str] | None = None
    opened = 0
    for number, line in _lines(path):
        where = f"{path}:{number}"
        if article is None and line.startswith("{"):
            yield _from_json(line, where)
        elif _OPENING.fullmatch(line):
            if article is not None:
                raise ValueError(
                    f"{where}: an article begins inside the one of line {opened}; extract it again"
                )
            article, opened = [], number
        elif line == "</doc>":
            if article is None:
                raise ValueError(f"{where}: </doc> closes no article; extract the file again")
            yield "\n".join(article).strip("\n")
            article = None
        elif article is not None:
            article.append(line)
        elif line and not line.isspace():
            raise ValueError(f"{where}: text outside an article; is this WikiExtractor's output?")
    if article is not None:
        raise ValueError(
            f"{path}:{opened}: the file ends inside the article that begins here; extract it again"
        )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with closing(open_bytes(path)) as stream:
        for number, raw in enumerate(stream, start=1):
            try:
                yield number, raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise ValueError(f"{path}:{number}: not UTF-8; convert it first (iconv -t UTF-8)") from error


def _from_json(line: str, where: str) -> str:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where}: broken JSON ({error}); extract the file again") from error
    title, text = record.get("title"), record.get("text")
    if not isinstance(title, str) or not isinstance(text, str):
        raise ValueError(f"{where}: an article needs 'title' and 'text'; is this WikiExtractor's output?")
    # Unlike the text form, JSON lines hold the title beside the text.
    return f"{title}\n\n{text}".strip("\n")
