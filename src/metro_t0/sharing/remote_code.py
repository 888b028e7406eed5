"""The files that travel with a model, so that transformers runs it on a machine without metro-t0.

    write_remote_code(Path("my-model"))     # encoder_decoder.py, tokenizer.py and all that they import, side by side

transformers loads such files one beside the other and looks for relative imports of one dot. What a file imports of
another room becomes such an import; what stays at home, imported inside a function, becomes an import that may fail.
"""

from __future__ import annotations

import ast
from pathlib import Path

PACKAGE = Path(__file__).parent.parent
ROOMS = ("modeling", "tokenization")
ENTRIES = ("modeling/configuration.py", "modeling/encoder_decoder.py", "tokenization/tokenizer.py")
MODEL_CLASSES = {
    "AutoConfig": "configuration.MetroT0Config",
    "AutoModelForSeq2SeqLM": "encoder_decoder.MetroT0ForConditionalGeneration",
}
"""``auto_map`` of ``config.json``."""
TOKENIZER_CLASSES = {"AutoTokenizer": ["tokenizer.FairseqT5Tokenizer", None]}
"""``auto_map`` of ``tokenizer_config.json``: the slow class; there is no fast one."""

_NOTICE = (
    "# A file of metro-t0 (MIT License), copied here so that transformers can run the model without it.\n"
)


def write_remote_code(folder: Path) -> list[str]:
    """Write the files that the network and its tokenizer need into a folder that is there; gives their names."""
    written: dict[str, str] = {}
    waiting = [PACKAGE / entry for entry in ENTRIES]
    while waiting:
        path = waiting.pop()
        source, needed = flattened(path.read_text(encoding="utf-8"), path.relative_to(PACKAGE))
        content = _NOTICE + source
        # Two rooms may not hold files of one name that both travel: they would lie side by side.
        if written.setdefault(path.name, content) != content:
            raise AssertionError(f"two files named {path.name} travel with a model")
        waiting += [PACKAGE / name for name in needed if Path(name).name not in written]
    for name, content in written.items():
        (folder / name).write_text(content, encoding="utf-8")
    return sorted(written)


def flattened(source: str, path: Path) -> tuple[str, list[str]]:
    """A file's text with its imports as they must be where all files lie side by side.

    Args:
        source: the text.
        path: of the file, from the package's folder on (``modeling/layers.py``).

    Returns:
        The text, and the files (likewise) that it now imports from beside it.
    """
    lines = source.splitlines(keepends=True)
    needed: list[str] = []
    imports = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ImportFrom)]
    # From the last line up, so that the line numbers above stay true.
    for node in sorted(imports, key=lambda node: -node.lineno):
        if (module := _module(node, path)) is None:
            continue
        assert node.end_lineno is not None
        first, last = node.lineno - 1, node.end_lineno
        names = ", ".join(
            f"{alias.name} as {alias.asname}" if alias.asname else alias.name for alias in node.names
        )
        indent = " " * node.col_offset
        if module[0] in ROOMS:
            needed.append("/".join(module) + ".py")
            replaced = [f"{indent}from .{module[-1]} import {names}\n"]
        else:
            if not indent:
                raise AssertionError(f"{path} imports {'.'.join(module)}, which does not travel with a model")
            # transformers refuses a file whose plain imports are not installed, even those inside of functions.
            replaced = [
                f"{indent}try:\n",
                f"{indent}    from metro_t0.{'.'.join(module)} import {names}\n",
                f"{indent}except ImportError as error:\n",
                f'{indent}    raise ImportError("this needs metro-t0: pip install metro-t0") from error\n',
            ]
        lines[first:last] = replaced
    return "".join(lines), needed


def _module(node: ast.ImportFrom, path: Path) -> tuple[str, ...] | None:
    """Which module of the package a ``from`` takes names from, as (room, file); None where it is another library's."""
    named = tuple((node.module or "").split("."))
    if node.level == 0:
        return named[1:] if named[0] == "metro_t0" else None
    return (*path.parts[: len(path.parts) - node.level], *named)
