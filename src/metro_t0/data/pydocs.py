"""The embedded corpus: the documentation that every Python installation carries.

``iterate_pydocs()`` gives the language reference's topics (``pydoc_data.topics``), the standard library's
docstrings (those of its compiled modules too) and the docstrings of the packages that this project and its
dependencies bring, as far as they are installed. Source files are scanned, never imported. For one
installation the answer is always the same, in the same order; nothing is downloaded.

    for entry in iterate_pydocs():
        entry.library, entry.qualified_name, entry.kind, entry.text

What is left out, so that the text is English and of even quality: test folders and vendored copies; files
in which docstrings are less than a tenth; examples of code (``docstring_text.py``); entries of under eight
words; exact duplicates; of each library what is beyond ``MAX_CHARACTERS_PER_LIBRARY``, public and outer
modules first.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import re
import sysconfig
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from metro_t0.data.docstring_scanner import FoundDocstring, UnreadableSourceError, scan_docstrings
from metro_t0.data.docstring_text import plain_text

PydocKind = Literal["module", "class", "function", "topic"]

# fmt: off
PACKAGES = (
    "numpy", "pandas", "torch", "transformers", "sympy", "networkx", "matplotlib", "datasets",
    "huggingface_hub", "tokenizers", "safetensors", "pydantic", "jinja2", "rich", "typer", "click", "PIL",
    "fontTools", "mpmath", "pyarrow", "fsspec", "packaging", "pygments", "pyparsing", "dateutil",
    "mpl_toolkits", "contourpy", "filelock", "anyio", "tqdm", "dill", "multiprocess", "regex", "yaml",
    "sentencepiece",
)
# fmt: on
MAX_CHARACTERS_PER_LIBRARY = 4_000_000
MIN_WORDS = 8
_MIN_DOCSTRING_SHARE = 0.1
_LONGEST_SHORT_TEXT = 400
_SHORTEST_DOCSTRING = 3 * MIN_WORDS - 1  # words of two letters and the spaces between them
# fmt: off
_SKIPPED_FOLDERS = frozenset((
    "__pycache__", "test", "tests", "testing", "_testing", "idle_test", "vendor", "_vendor", "extern",
    "externals", "site-packages", "dist-packages", "idlelib", "lib2to3", "turtledemo", "ensurepip",
    "distutils", "benchmarks",
))
_COMPILED_MODULES = (
    "builtins", "array", "asyncio", "binascii", "bisect", "bz2", "cmath", "collections", "contextvars",
    "csv", "datetime", "decimal", "errno", "fcntl", "functools", "gc", "heapq", "io", "itertools", "json",
    "lzma", "marshal", "math", "mmap", "operator", "os", "pickle", "posix", "pwd", "random", "re",
    "resource", "select", "signal", "socket", "sqlite3", "ssl", "struct", "sys", "syslog", "termios",
    "threading", "time", "tracemalloc", "types", "unicodedata", "weakref", "xml.etree.ElementTree",
    "zlib", "zoneinfo",
)
# fmt: on
_ADDED_DOCSTRING = re.compile(r"\badd_(?:docstr|docstr_all|newdoc)\(")
_SIGNATURE_LINE = re.compile(r"[\w.]+(\(.*\))(?:\s*->.*)?\s*(?:--)?")
_FORMAT_FIELD = re.compile(r"\{\w*\}")
_WORD = re.compile(r"[^\W\d_]{2,}")


@dataclass(frozen=True, slots=True)
class PydocEntry:
    """One docstring or language-reference topic, as plain text.

    Attributes:
        library: top-level package; ``python`` for the standard library and the language reference.
        module: dotted name of the module it stands in.
        qualified_name: name inside the module (``Outer.method``), empty for the module; a topic's title.
        kind: what is described; methods are functions.
        text: paragraphs, one a line, without code examples and markup.
        signature: ``(a, b=1) -> int`` as the source has it, for functions whose source or docstring tells it.
    """

    library: str
    module: str
    qualified_name: str
    kind: PydocKind
    text: str
    signature: str | None


@dataclass
class PydocCounts:
    """What an iteration met: files read, files it could not read, entries left out, characters a library."""

    files: int = 0
    broken_files: int = 0
    duplicates: int = 0
    too_short: int = 0
    characters: dict[str, int] = field(default_factory=dict)


def iterate_pydocs(
    counts: PydocCounts | None = None, *, characters_per_library: int = MAX_CHARACTERS_PER_LIBRARY
) -> Iterator[PydocEntry]:
    """All entries of this installation, library by library, in an order that depends on nothing else.

    Args:
        counts: filled as the iteration goes on, for those who want to know what was left out.
        characters_per_library: a library ends with the entry that reaches this many characters of text.
    """
    counts = counts if counts is not None else PydocCounts()
    seen: set[bytes] = set()
    for library, entries in _libraries(counts):
        characters = 0
        for entry in entries:
            if len(_WORD.findall(entry.text[:_LONGEST_SHORT_TEXT])) < MIN_WORDS:
                counts.too_short += 1
                continue
            digest = hashlib.blake2b(entry.text.encode("utf-8", "replace"), digest_size=16).digest()
            if digest in seen:
                counts.duplicates += 1
                continue
            seen.add(digest)
            characters += len(entry.text)
            counts.characters[library] = characters
            yield entry
            if characters >= characters_per_library:
                break


def _libraries(counts: PydocCounts) -> Iterator[tuple[str, Iterator[PydocEntry]]]:
    yield "python", _python(counts)
    for package in PACKAGES:
        for root in _package_roots(package):
            yield package, _files(package, root, package, counts)


def _package_roots(package: str) -> list[Path]:
    """Folders of an installed top-level package, found without importing it."""
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return []
    locations = (spec.submodule_search_locations if spec else None) or []
    return [Path(location) for location in locations if Path(location).is_dir()]


def _python(counts: PydocCounts) -> Iterator[PydocEntry]:
    yield from _files("python", Path(sysconfig.get_path("stdlib")), "", counts)
    yield from _compiled()
    yield from _topics()


def _topics() -> Iterator[PydocEntry]:
    # Some distributions leave the reference out of their Python.
    with contextlib.suppress(ImportError):
        topics: dict[str, str] = importlib.import_module("pydoc_data.topics").topics
        for title in sorted(topics):
            yield PydocEntry("python", "pydoc_data.topics", title, "topic", plain_text(topics[title]), None)


def _compiled() -> Iterator[PydocEntry]:
    """Docstrings of the standard library's compiled functions and classes, which no source file holds."""
    for name in _COMPILED_MODULES:
        try:
            module = importlib.import_module(name)
        except ImportError:
            continue  # a module of another platform, or left out of this Python
        for attribute in sorted(vars(module)):
            member = vars(module)[attribute]
            if getattr(member, "__module__", None) not in (name, "_" + name, None) or attribute.startswith(
                "__"
            ):
                continue
            yield from _compiled_member(name, attribute, member)
            if inspect.isclass(member) and not _has_source(member):
                for method in sorted(vars(member)):
                    yield from _compiled_member(name, f"{attribute}.{method}", vars(member)[method])


def _has_source(member: object) -> bool:
    return "__firstlineno__" in vars(member) or any(
        isinstance(value, types.FunctionType) for value in vars(member).values()
    )


def _compiled_member(module: str, qualified_name: str, member: object) -> Iterator[PydocEntry]:
    is_class = inspect.isclass(member)
    is_compiled = (
        inspect.isbuiltin(member) or inspect.ismethoddescriptor(member) or inspect.isgetsetdescriptor(member)
    )
    if not (is_compiled or (is_class and not _has_source(member))) or isinstance(member, types.FunctionType):
        return
    docstring = getattr(member, "__doc__", None)
    if isinstance(docstring, str):
        signature = getattr(member, "__text_signature__", None)
        yield PydocEntry(
            "python",
            module,
            qualified_name,
            "class" if is_class else "function",
            plain_text(docstring),
            signature,
        )


def _files(library: str, root: Path, package: str, counts: PydocCounts) -> Iterator[PydocEntry]:
    raw: set[str] = set()
    for path in _source_files(root):
        try:
            source = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            counts.broken_files += 1
            continue
        counts.files += 1
        if _docstring_share(source) < _MIN_DOCSTRING_SHARE:
            continue
        relative = path.relative_to(root).with_suffix("")
        parts = relative.parts[:-1] if relative.name == "__init__" else relative.parts
        module = ".".join((package, *parts)) if package else ".".join(parts)
        readers: list[Callable[[str], Iterator[FoundDocstring]]] = [scan_docstrings]
        if _ADDED_DOCSTRING.search(source):
            readers.append(_added_docstrings)
        for reader in readers:
            try:
                for found in reader(source):
                    if len(found.docstring) < _SHORTEST_DOCSTRING:
                        counts.too_short += 1
                    elif found.docstring in raw:
                        counts.duplicates += 1
                    elif text := plain_text(found.docstring):
                        raw.add(found.docstring)
                        yield _entry(library, module, found, text)
            except (UnreadableSourceError, SyntaxError, RecursionError):
                counts.broken_files += 1


def _entry(library: str, module: str, found: FoundDocstring, text: str) -> PydocEntry:
    signature = found.signature
    if signature is None and found.kind == "function":
        # Compiled functions tell their signature in the first line.
        first, _, rest = text.partition("\n")
        if (match := _SIGNATURE_LINE.fullmatch(first.strip())) and rest.strip():
            signature, text = match[1], rest.strip()
    return PydocEntry(library, module, found.qualified_name, found.kind, text, signature)


def _source_files(root: Path) -> list[Path]:
    """Python files below a folder: public before private, outer before inner, then by name."""

    def order(path: Path) -> tuple[bool, int, str]:
        parts = path.relative_to(root).parts
        private = any(part.startswith("_") and part != "__init__.py" for part in parts)
        return private, len(parts), "/".join(parts)

    found: list[Path] = []
    for directory, folders, names in os.walk(root):
        folders[:] = [name for name in folders if name not in _SKIPPED_FOLDERS]
        found += [
            Path(directory, name) for name in names if name.endswith(".py") and not name.startswith("test_")
        ]
    return sorted(found, key=order)


def _docstring_share(source: str) -> float:
    """A quick guess at how much of a source text is docstrings: what stands between triple quotes."""
    quoted = sum(map(len, source.split('"""')[1::2]))
    if not quoted and "'''" in source:
        quoted = sum(map(len, source.split("'''")[1::2]))
    return quoted / max(len(source), 1)


def _added_docstrings(source: str) -> Iterator[FoundDocstring]:
    """Docstrings given to compiled functions by calls such as ``add_newdoc("numpy", "name", "text")``."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call) or len(node.args) < 2:
            continue
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        docstring = _text_of(node.args[-1]) if _ADDED_DOCSTRING.search(f"{called}(".lstrip("_")) else None
        if docstring:
            name = _added_name(node.args)
            yield FoundDocstring(name, "function", None, docstring)


def _added_name(arguments: list[ast.expr]) -> str:
    """The last part of the documented name, as in ``torch.abs``, ``"abs"`` or ``"numpy", "abs"``."""
    named = arguments[1] if len(arguments) > 2 else arguments[0]
    if isinstance(named, ast.Attribute):
        return named.attr
    return _text_of(named) or ""


def _text_of(node: ast.expr) -> str | None:
    """The text of a literal, a sum of literals, a literal with ``.format(...)``, or a tuple's last text."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else None
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        left, right = _text_of(node.left), _text_of(node.right)
        return None if left is None or right is None else left + right
    if (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("format", "replace")
    ):
        text = _text_of(node.func.value)
        return None if text is None else _FORMAT_FIELD.sub("", text).replace("{{", "{").replace("}}", "}")
    if isinstance(node, ast.Tuple) and node.elts:
        return _text_of(node.elts[-1])
    return None
