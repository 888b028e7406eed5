"""Strict settings out of YAML: every key is known, no type is converted, and a mistake is one line.

class Oven(Settings):
    degrees: int = 180

read_settings(Oven, "degrees: 200", "oven.yaml")
read_settings(Oven, "degres: 200", "oven.yaml")     # ValueError that names the nearest key
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast, get_args, get_origin

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError


class Settings(BaseModel):
    """Base of every section: unknown keys and silently converted types are refused, values never change."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


SettingsType = TypeVar("SettingsType", bound=Settings)


class YamlLoader(yaml.SafeLoader):
    """YAML 1.2's floats: PyYAML reads ``1e-4`` as a string, as learning rates are often written."""


YamlLoader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9][0-9_]*)(\.[0-9_]*)?([eE][-+]?[0-9]+)$"),
    list("-+0123456789"),
)


def read_settings(kind: type[SettingsType], text: str, where: str) -> SettingsType:
    """Read YAML into a strict class of settings, with the same errors as a configuration's.

    Args:
        kind: the class.
        text: the YAML.
        where: how messages name it.

    Raises:
        ValueError: no YAML, an unknown key (named with the nearest one), or a value that does not fit.
    """
    values = parse_yaml(text, where)
    check_keys(kind, values, where)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{where}: {one_line(error)}") from None


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """A YAML mapping, its floats as YAML 1.2 has them; ValueError names ``where``."""
    try:
        values = yaml.load(text, Loader=YamlLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{where} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{where} must hold a mapping of settings")
    return cast(dict[str, Any], values)


def check_keys(kind: type[BaseModel], values: Mapping[str, Any], where: str) -> None:
    """Raises ValueError that names the first unknown key and the nearest known one."""
    known = sorted(set(_key_paths(kind)))
    for path in _unknown_keys(kind, values, ""):
        raise ValueError(f"{where}: there is no setting {path!r}; the nearest is {_nearest(path, known)!r}")


def one_line(error: ValidationError) -> str:
    """What pydantic found wrong first."""
    first = error.errors()[0]
    path = ".".join(str(part) for part in first["loc"] if part not in {"metro", "span-corruption"})
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in {"value_error", "missing"}:
        return f"{path}: {message}" if first["type"] == "missing" else message
    return f"{path}: {message[0].lower()}{message[1:]}, not {first['input']!r}"


def _sections(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes that a field's annotation allows."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]


def _is_named(annotation: Any) -> bool:
    """Whether a field holds sections by names that the file chooses."""
    return get_origin(annotation) is dict


def _key_paths(kind: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in kind.model_fields.items():
        yield prefix + name
        for section in _sections(field.annotation):
            yield from _key_paths(section, f"{prefix}{name}.{'NAME.' if _is_named(field.annotation) else ''}")


def _unknown_keys(kind: type[BaseModel], values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key, value in values.items():
        field = kind.model_fields.get(key)
        if field is None:
            yield f"{prefix}{key}"
            continue
        sections = _sections(field.annotation)
        if not isinstance(value, Mapping) or not sections:
            continue
        named = _is_named(field.annotation)
        for path, inner in (
            [(f"{prefix}{key}.{name}.", one) for name, one in value.items()]
            if named
            else [(f"{prefix}{key}.", value)]
        ):
            if isinstance(inner, Mapping):
                yield from _unknown_in(sections, inner, path)


def _unknown_in(sections: Sequence[type[BaseModel]], values: Mapping[str, Any], prefix: str) -> Iterator[str]:
    """Of sections that a field allows, the one that ``kind`` picks, where there are several."""
    chosen = [s for s in sections if s.model_fields.get("kind") is None or len(sections) == 1]
    chosen = chosen or [s for s in sections if values.get("kind") == s.model_fields["kind"].default]
    if chosen:
        yield from _unknown_keys(chosen[0], values, prefix)


def _nearest(path: str, known: Sequence[str]) -> str:
    """A near key of the same section where there is one, else the nearest of all, by whole path or name."""
    section, _, name = path.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    if near := difflib.get_close_matches(path, siblings, n=1, cutoff=0.75):
        return near[0]
    return max(
        known,
        key=lambda k: max(
            difflib.SequenceMatcher(None, path, k).ratio(),
            0.95 * difflib.SequenceMatcher(None, name, k.rpartition(".")[2]).ratio(),
        ),
    )
