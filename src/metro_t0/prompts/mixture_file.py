"""Reads the YAML of mixtures and evaluation suites into tasks; the format is described in ``mixture.py``.

content = read_mixture_file("t0", places=Places(templates=None, data_root=Path("data")))
content.tasks, content.absent, content.settings
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from metro_t0.prompts.published import PUBLISHED
from metro_t0.prompts.task_entry import Places, TaskReader, check_keys, path_of, resolve, weight_of
from metro_t0.prompts.tasks import Task

SETTINGS = ("cap", "check_choices", "validation_fraction")

_MIXTURE_KEYS = ("name", "include", *SETTINGS, "templates", "data_root", "tasks")


@dataclass
class MixtureFileContent:
    """What a mixture file and the ones that it includes say.

    Attributes:
        name: of the mixture.
        settings: the ``SETTINGS`` that are said; those of an including file go before those of the included.
        tasks: with rows to be had, included ones first.
        absent: (task without rows, why there are none).
        order: names of all of them as the files have them.
    """

    name: str
    settings: dict[str, Any] = field(default_factory=dict)
    tasks: list[Task] = field(default_factory=list)
    absent: list[tuple[Task, str]] = field(default_factory=list)
    order: list[str] = field(default_factory=list)

    def names(self) -> set[str]:
        """Names of all tasks."""
        return {task.name for task in (*self.tasks, *(task for task, _ in self.absent))}


def read_mixture_file(path: Path, places: Places, *, including: tuple[Path, ...] = ()) -> MixtureFileContent:
    """Reads the file of a mixture or suite, or a published one by its name.

    Args:
        path: the file, or a published name.
        places: take the place of the file's own.
        including: files whose inclusion led here.

    Raises:
        ValueError: in one line, what is wrong where (an unknown key is named with the nearest known one).
    """
    if not path.is_file():
        path = places.published(str(path)) or path
    if path in including:
        raise ValueError(f"{path}: includes itself (by way of {', '.join(map(str, including))})")
    content = _read_yaml(path)
    check_keys(content, _MIXTURE_KEYS, str(path))
    entries, includes = content.get("tasks"), content.get("include")
    if not isinstance(entries, list) and (includes is None or entries is not None):
        raise ValueError(f"{path}: has no 'tasks:' list")
    if not entries and not includes:
        raise ValueError(f"{path}: has no 'tasks:' list")
    result = MixtureFileContent(str(content.get("name") or path.stem))
    _include(includes, path, places, (*including, path), result)
    result.settings.update({key: content[key] for key in SETTINGS if key in content})
    reader = TaskReader(
        folder=path.parent,
        templates=places.templates or path_of(content, "templates", path.parent, str(path)),
        data_root=places.data_root or path_of(content, "data_root", path.parent, str(path)),
        places=places,
    )
    for number, entry in enumerate(entries or [], start=1):
        where = f"{path}, task {number}"
        task, reason = reader.read(entry, where)
        _add(result, task, reason, where)
    return result


def _include(
    includes: Any, path: Path, places: Places, including: tuple[Path, ...], result: MixtureFileContent
) -> None:
    """Adds the tasks and settings of the mixtures named under ``include:``."""
    if includes is None:
        return
    known = f"names of published mixtures ({', '.join(PUBLISHED)}) or files"
    if not isinstance(includes, list):
        raise ValueError(f"{path}: 'include:' must be a list of {known}")
    for entry in includes:
        where = f"{path}, 'include:'"
        given = entry if isinstance(entry, Mapping) else {"mixture": entry}
        check_keys(given, ("mixture", "weight"), where)
        name, weight = given.get("mixture"), weight_of(given, where)
        if not isinstance(name, str):
            raise ValueError(f"{where} must be a list of {known}, not {entry!r}")
        found = places.published(name) or resolve(name, path.parent)
        content = read_mixture_file(found, places, including=including)
        result.settings.update(content.settings)
        for task, reason in [(task, None) for task in content.tasks] + list(content.absent):
            weighed = dataclasses.replace(task, weight=task.weight * weight)
            _add(result, weighed, reason, f"{where} {name}")


def _add(result: MixtureFileContent, task: Task, reason: str | None, where: str) -> None:
    if task.name in result.names():
        raise ValueError(f"{where}: another task is called {task.name!r}: give it a 'name:'")
    result.order.append(task.name)
    if reason is None:
        result.tasks.append(task)
    else:
        result.absent.append((task, reason))


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"mixture file {path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise ValueError(f"mixture file {path}: is not UTF-8 (byte {error.start + 1})") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or str(error).splitlines()[0]
        raise ValueError(f"mixture file {path}{line}: is not valid YAML: {problem}") from None
    if not isinstance(content, Mapping):
        raise ValueError(f"mixture file {path}: is not a mapping with 'tasks:'")
    return content
