"""Finds the docstrings of a Python source file without building its syntax tree.

``ast.parse`` reads about 2 MB of source a second, and the packages of one installation hold more than 100 MB.
This scanner looks only at strings, comments and ``def``/``class`` headers, finds the same docstrings (the
tests compare the two over the standard library), and is about ten times faster. Nothing is executed.

    for found in scan_docstrings(source):
        print(found.qualified_name, found.kind, found.signature, found.docstring)
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["module", "class", "function"]

# What can hide a string or a header inside another one, and the headers themselves. A compound statement ends
# the scopes above it, so that the function in `if x:\n    def f()` is no part of the one before it.
# Every alternative starts with a fixed character, which lets the engine skip all other text quickly.
_TOKEN = re.compile(
    r"\#[^\n]*|\"\"\"|'''|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
    r"|\n([ \t]*)(?:(?:async[ \t]+)?(def|class)[ \t]+(\w+)"
    r"|(?:if|elif|else|try|except|finally|with|for|while)\b)",
    re.DOTALL,
)
_STRING_END = {
    '"""': re.compile(r'[^"\\]*(?:(?:\\.|"(?!""))[^"\\]*)*"""', re.DOTALL),
    "'''": re.compile(r"[^'\\]*(?:(?:\\.|'(?!''))[^'\\]*)*'''", re.DOTALL),
    '"': re.compile(r'[^"\\\n]*(?:\\.[^"\\\n]*)*"', re.DOTALL),
    "'": re.compile(r"[^'\\\n]*(?:\\.[^'\\\n]*)*'", re.DOTALL),
}
_HEADER_TOKEN = re.compile(
    r"\#[^\n]*|\"\"\"|'''|\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'|[()\[\]{}:]", re.DOTALL
)
_BEFORE_DOCSTRING = re.compile(r"(?:[ \t]*(?:\#[^\n]*)?\r?\n)*[ \t]*(?=[rRuU]?[\"'])")
_DOCSTRING_START = re.compile(r"(?P<prefix>[rRuU]?)(?P<quote>\"\"\"|'''|\"|')")
_AFTER_DOCSTRING = re.compile(r"[ \t]*(?:[#;\r\n]|\Z)")
_TRIPLE_QUOTES = ('"""', "'''")
_SPACES = re.compile(r"\s+")


@dataclass(frozen=True)
class FoundDocstring:
    """One docstring: its place in the file and its text, escapes resolved and not dedented."""

    qualified_name: str
    kind: Kind
    signature: str | None
    docstring: str


class UnreadableSourceError(ValueError):
    """The source has a string or header with no end, so nothing behind it can be trusted."""


def _string_end(source: str, position: int, quote: str) -> int:
    match = _STRING_END[quote].match(source, position)
    if match is None:
        raise UnreadableSourceError(f"a string that starts with {quote} has no end")
    return match.end()


def _header_end(source: str, position: int) -> int:
    """The position after the colon of the ``def`` or ``class`` header whose name ends at ``position``."""
    depth = 0
    while match := _HEADER_TOKEN.search(source, position):
        position = match.end()
        token = match.group()
        if token in ("(", "[", "{"):
            depth += 1
        elif token in (")", "]", "}"):
            depth -= 1
        elif token in _TRIPLE_QUOTES:
            position = _string_end(source, position, token)
        elif token == ":" and depth == 0:
            return position
    raise UnreadableSourceError("a header has no end")


def _docstring_at(source: str, position: int) -> tuple[str, int] | None:
    """The docstring of the body that starts at ``position`` and the position behind it, if there is one."""
    gap = _BEFORE_DOCSTRING.match(source, position)
    start = _DOCSTRING_START.match(source, gap.end()) if gap else None
    if start is None:
        return None
    end = _string_end(source, start.end(), start["quote"])
    # Anything more on the line (an operator, a second literal) makes it an expression, seldom a docstring.
    if not _AFTER_DOCSTRING.match(source, end):
        return None
    if start["prefix"] in "rR" and start["prefix"]:
        return source[start.end() : end - len(start["quote"])], end
    literal = source[start.start() : end]
    if "\\" not in literal:
        return source[start.end() : end - len(start["quote"])], end
    try:
        return str(ast.literal_eval(literal)), end
    except (SyntaxError, ValueError) as error:
        raise UnreadableSourceError(f"a docstring is no valid literal: {error}") from None


def scan_docstrings(source: str) -> Iterator[FoundDocstring]:
    """Docstrings of the module and of every class and function in it, in the order of the file.

    Args:
        source: text of a Python file.

    Raises:
        UnreadableSourceError: a string or a header has no end; what stands before it has been given already.
    """
    source = "\n" + source.removeprefix("\ufeff")
    position = 0
    if found := _docstring_at(source, 1):
        yield FoundDocstring("", "module", None, found[0])
        position = found[1]
    scopes: list[tuple[int, str, str]] = []
    while match := _TOKEN.search(source, position):
        position = match.end()
        indentation, keyword, name = match.groups()
        if indentation is None:
            if match.group() in _TRIPLE_QUOTES:
                position = _string_end(source, position, match.group())
            continue
        indent = len(indentation.expandtabs(8))
        while scopes and scopes[-1][0] >= indent:
            scopes.pop()
        if keyword is None:
            continue
        header_start = position
        position = _header_end(source, position)
        scopes.append((indent, keyword, name))
        if found := _docstring_at(source, position):
            signature = (
                _SPACES.sub(" ", source[header_start : position - 1]).strip() if keyword == "def" else None
            )
            kind: Kind = "function" if keyword == "def" else "class"
            yield FoundDocstring(_qualified_name(scopes), kind, signature, found[0])
            position = found[1]


def _qualified_name(scopes: list[tuple[int, str, str]]) -> str:
    """The name as ``__qualname__`` has it: ``Outer.method``, ``function.<locals>.inner``."""
    parts: list[str] = []
    for index, (_, keyword, name) in enumerate(scopes):
        parts.append(name)
        if keyword == "def" and index + 1 < len(scopes):
            parts.append("<locals>")
    return ".".join(parts)
