"""Turns a raw docstring into plain text: dedented, code and markup left out, wrapped lines joined.

Used by ``pydocs.py``. A paragraph becomes one line, because pretraining blocks end every line in ``</s>``.

    plain_text('Frobnicate the\\n    :class:`Widget`.\\n\\n    >>> frobnicate()')  # 'Frobnicate the Widget.'
"""

from __future__ import annotations

import inspect
import re

_FENCE = re.compile(r"^[ \t]*(```|~~~).*?^[ \t]*\1[ \t]*$|^[ \t]*(?:```|~~~).*\Z", re.MULTILINE | re.DOTALL)
_CODE_DIRECTIVE = re.compile(
    r"\.\. (?:code|code-block|sourcecode|math|plot|ipython|doctest|testcode|testsetup|testoutput"
    r"|image|figure|deprecated|versionadded|versionchanged|currentmodule|autosummary|table)::"
)
_ROLE = re.compile(r":[a-zA-Z][\w:+.-]*:`~?!?([^`<]*?)\s*(?:<[^`>]*>)?`")
_LINK = re.compile(r"`([^`<>]+?)\s*<[^`<>]+>`_{0,2}|\[([^\[\]]+)\]\((?:https?:|\.|/|#)[^()\s]*\)")
_RULE = re.compile(r"[^\w\s]{3,}[^\w]*")
_ITEM = re.compile(
    r"[-*+•] |\d+[.)] |\[\d+\]|\.\. |:[\w ]+:|\|"  # bullets, numbers, footnotes, directives, fields, tables
    r"|[*\w]+ ?\([^)]{1,80}\) ?:|\w+: "  # parameters in Google's way
    r"|(?P<apart>[*\w][*\w., ]{0,60} :(?: |$))"  # and in NumPy's, where the description stands apart
)
_WRAPPED_LENGTH = 55


def plain_text(docstring: str) -> str:
    """The prose of a docstring; indentation of nested lines stays, examples of code and tables' rules go."""
    text = inspect.cleandoc(docstring)
    if "```" in text or "~~~" in text:
        text = _FENCE.sub("", text)
    if "`" in text or "](" in text:
        text = _LINK.sub(lambda match: match[1] or match[2], _ROLE.sub(r"\1", text)).replace("`", "")
    return "\n".join(_join_wrapped(_without_code(text.splitlines()))).strip()


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_code(lines: list[str]) -> list[str]:
    """Leaves out doctests, literal blocks behind ``::``, code directives and ruled lines."""
    kept: list[str] = []
    skip_deeper_than: int | None = None
    in_doctest = False
    for line in lines:
        stripped = line.strip()
        if not stripped:
            in_doctest = False
            kept.append("")
            continue
        if skip_deeper_than is not None:
            if _indent(line) > skip_deeper_than:
                continue
            skip_deeper_than = None
        if in_doctest or stripped.startswith((">>", "In [")):
            in_doctest = True
        elif _CODE_DIRECTIVE.match(stripped):
            skip_deeper_than = _indent(line)
        elif stripped.endswith("::") and not stripped.startswith(".. "):
            skip_deeper_than = _indent(line)
            if stripped != "::":
                kept.append(line.rstrip()[:-1])
        elif not _RULE.fullmatch(stripped):
            kept.append(line.rstrip())
    return kept


def _join_wrapped(lines: list[str]) -> list[str]:
    """Joins the lines of a paragraph, and of a list item with its continuation; blank lines become one."""
    joined: list[str] = []
    last = ""  # the last physical line, "" where nothing may be joined to it
    first_indent, item, whole_item = 0, False, False
    rest_indent: int | None = None
    for line in lines:
        stripped = line.strip()
        if not stripped:
            if joined and joined[-1]:
                joined.append("")
            last = ""
            continue
        indent = _indent(line)
        starts_item = _ITEM.match(stripped)
        allowed = (
            indent == first_indent if not item else indent > first_indent and rest_indent in (None, indent)
        )
        wrapped = len(last) >= _WRAPPED_LENGTH or whole_item
        if last and not starts_item and allowed and wrapped:
            joined[-1] += " " + stripped
            rest_indent = indent
        else:
            joined.append(line)
            first_indent, item, rest_indent = indent, starts_item is not None, None
            whole_item = starts_item is not None and starts_item["apart"] is None
        last = line
    return joined
