"""The scanner finds what ``ast`` finds."""

from __future__ import annotations

import ast
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from metro_t0.data.docstring_scanner import FoundDocstring, UnreadableSourceError, scan_docstrings


def _by_tree(source: str) -> list[tuple[str, str]]:
    def walk(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                name = prefix + child.name
                if docstring := ast.get_docstring(child, clean=False):
                    yield name, docstring
                yield from walk(child, name + ("." if isinstance(child, ast.ClassDef) else ".<locals>."))
            else:
                yield from walk(child, prefix)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    docstring = ast.get_docstring(tree, clean=False)
    return ([("", docstring)] if docstring else []) + list(walk(tree, ""))


def _by_scanner(source: str) -> list[tuple[str, str]]:
    return [(found.qualified_name, found.docstring) for found in scan_docstrings(source) if found.docstring]


def test_agrees_with_the_syntax_tree_on_difficult_source() -> None:
    source = (Path(__file__).parent / "difficult_source.txt").read_text()
    names = dict(_by_tree(source))
    assert len(names) == 9 and "Outer.conditional" in names and "alone" in names
    assert dict(_by_scanner(source)) == names


def test_gives_kind_and_signature() -> None:
    source = 'def f(\n    a, b="):"\n) -> int:\n    """Text."""\nclass C(Base):\n    "Text."\n'
    assert list(scan_docstrings(source)) == [
        FoundDocstring("f", "function", '( a, b="):" ) -> int', "Text."),
        FoundDocstring("C", "class", None, "Text."),
    ]


def test_agrees_with_the_syntax_tree_over_packages_of_the_standard_library() -> None:
    root = Path(sysconfig.get_path("stdlib"))
    paths = [
        path
        for name in ("asyncio", "email", "json", "unittest")
        for path in sorted((root / name).glob("*.py"))
    ]
    paths += [
        root / name for name in ("argparse.py", "subprocess.py", "threading.py", "enum.py", "typing.py")
    ]
    expected, found = set(), set()
    for path in paths:
        source = path.read_text(encoding="utf-8")
        expected |= {(path.name, *pair) for pair in _by_tree(source)}
        found |= {(path.name, *pair) for pair in _by_scanner(source)}
    assert len(expected) > 800
    assert found == expected


@pytest.mark.parametrize("source", ['x = """never closed', "def f(a,\n", 'def f():\n    """never closed\n'])
def test_says_when_nothing_more_can_be_trusted(source: str) -> None:
    with pytest.raises(UnreadableSourceError):
        list(scan_docstrings('def good():\n    """Text."""\n' + source))
