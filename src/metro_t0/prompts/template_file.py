"""Reads the YAML of a promptsource ``templates.yaml`` safely and checks its shape; for ``template.py``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

_TAGS = ("!Template", "!TemplateMetadata")
_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):
    """The safe loader, which also knows promptsource's two tags: both stand for plain mappings."""


for _tag in _TAGS:
    _Loader.add_constructor(_tag, lambda loader, node: loader.construct_mapping(node, deep=True))


@dataclass(frozen=True)
class TemplateFileContent:
    """A checked templates file.

    Attributes:
        dataset: as the file says; empty when it does not.
        subset: as the file says, or None.
        templates: (line in the file counted from 1, fields of ``Template``) in the order of the file.
    """

    dataset: str
    subset: str | None
    templates: list[tuple[int, dict[str, Any]]]


def read_template_file(path: Path) -> TemplateFileContent:
    """Reads and checks a templates file.

    Raises:
        ValueError: in one line, what is wrong where: no such file, not UTF-8, not YAML, not this format.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is not UTF-8 (byte {error.start + 1})") from None
    try:
        loader = _Loader(text)
        try:
            return _check(path, loader)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}:{mark.line + 1}" if mark else str(path)
        raise ValueError(f"{where}: is not valid YAML: {getattr(error, 'problem', None) or error}") from None


def _check(path: Path, loader: Any) -> TemplateFileContent:
    root = loader.get_single_node()
    fields = {key.value: node for key, node in root.value} if isinstance(root, yaml.MappingNode) else {}
    templates = fields.get("templates")
    if not isinstance(templates, yaml.MappingNode) or not templates.value:
        raise ValueError(f"{path}: has no 'templates:' mapping of template ids to templates")
    names = {
        name: loader.construct_object(fields[name], deep=True)
        for name in ("dataset", "subset")
        if name in fields
    }
    entries = []
    for key, node in templates.value:
        line = node.start_mark.line + 1
        entries.append(
            (line, _entry(f"{path}:{line}", str(key.value), loader.construct_object(node, deep=True)))
        )
    return TemplateFileContent(
        dataset=str(names.get("dataset") or ""),
        subset=str(names["subset"]) if names.get("subset") else None,
        templates=entries,
    )


def _entry(where: str, key: str, content: Any) -> dict[str, Any]:
    if not isinstance(content, Mapping):
        raise ValueError(f"{where}: template {key!r} is not a mapping with 'jinja:' and 'name:'")
    name = key if content.get("name") is None else str(content["name"])
    jinja, choices = content.get("jinja"), content.get("answer_choices")
    if not isinstance(jinja, str):
        raise ValueError(f"{where}: template {name!r} has no text under 'jinja:'")
    if choices is not None and not isinstance(choices, str):
        raise ValueError(
            f"{where}: template {name!r}: 'answer_choices:' must be one quoted text such as \"yes ||| no\", "
            f"not {choices!r}"
        )
    metadata = content.get("metadata") or {}
    if not isinstance(metadata, Mapping):
        raise ValueError(f"{where}: template {name!r}: 'metadata:' is not a mapping")
    return {
        "id": str(content.get("id") or key),
        "name": name,
        "jinja": jinja,
        "answer_choices": choices,
        "reference": str(content.get("reference") or ""),
        "metadata": {
            "original_task": metadata.get("original_task"),
            "choices_in_prompt": metadata.get("choices_in_prompt"),
            "metrics": tuple(str(metric) for metric in metadata.get("metrics") or ()),
            "languages": tuple(str(language) for language in metadata.get("languages") or ()),
        },
    }
