"""A study's file: one recipe, what is changed about it, and how each run is looked at.

study = load_study("paper-axes")                # shipped: ``study_names()``
study = load_study("my-study.yaml")

The file::

    base: tiny                                  # the recipe: a pretraining preset
    settings: {training.batch_tokens: 4096}     # changes for every run, as dotted settings
    sizes:                                      # networks; every run is made at each
      narrow: {model.d_model: 64, model.d_kv: 16}
      wide: {model.d_model: 128}
    axes:                                       # each is changed alone
      rtd-weight:                               # a shipped axis (studies/axes.yaml)
      width:                                    # one's own
        base: as it is
        values:
          half: {settings: {model.d_ff: 128}}
          sixth: {settings: {model.num_auxiliary_layers: 1/6 of model.num_layers}}
          another recipe: {preset: tiny-t5, equal: [tokens, flops, time]}
    seeds: [1, 2, 3]
    tokens: 8_000_000                           # that the base reads in a run
    finetunings:                                # each on the pretrained model
      zero-shot: {mixture: mixture.yaml, suite: t0, limit: 100, settings: {training.steps: 500}}

Paths are relative to the file. An axis value is a set of changed settings, so whatever a configuration can say can be
an axis.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from metro_t0.config import FinetuneConfig, load_finetune_config
from metro_t0.settings import Settings, parse_yaml, read_settings

Equality = Literal["tokens", "flops", "time"]
Seed = Annotated[int, Field(ge=0)]
_FOLDER = resources.files("metro_t0.study") / "studies"
_AXES = "axes"
# A finetuning's name is that of a folder in a run's, beside these of our own.
_FINETUNING_NAME = re.compile(r"[A-Za-z0-9][\w.-]*")
_OUR_NAMES = ("pretrain", "pretrained")
_OUR_ENDING = "-ranked"
# What a study says in other words, by ``tokens:`` and ``seeds:``.
_OF_THE_STUDY = ("training.steps", "training.budget_tokens", "training.budget_seconds", "training.seed")


class Alternative(Settings):
    """One value of an axis: what is other than in the base.

    ``{base}`` in ``preset`` is the study's recipe. ``equal`` says what its runs have in common with the base's: as many
    tokens read, as many floating-point operations, or as much time; a run for each.
    """

    settings: dict[str, Any] = Field(default={})
    preset: str | None = None
    equal: list[Equality] = Field(default=["tokens"], min_length=1)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_once("equal", self.equal)
        _check_free(self.settings, _OF_THE_STUDY)
        return self


class Axis(Settings):
    """One design choice: the name of what the base does, and its alternatives."""

    base: str
    values: dict[str, Alternative] = Field(min_length=1)


class Finetuning(Settings):
    """A mixture to finetune on and a suite to rank afterwards; ``limit`` is of rows a task."""

    mixture: str
    suite: str
    preset: str = "finetune-tiny"
    settings: dict[str, Any] = Field(default={})
    limit: int | None = Field(default=None, gt=0)

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_free(self.settings, ("training.seed",))
        return self

    def config(self, seed: int) -> FinetuneConfig:
        """The finetuning's configuration.

        Raises:
            ValueError: there is no such preset or setting, or a value does not fit.
        """
        overrides = as_overrides({**self.settings, "training.seed": seed})
        return load_finetune_config(self.preset, overrides=overrides)


class Study(Settings):
    """See this module's first lines."""

    name: str = ""
    base: str
    settings: dict[str, Any] = Field(default={})
    sizes: dict[str, dict[str, Any]] = Field(default={})
    axes: dict[str, Axis | None]
    seeds: list[Seed] = Field(default=[1], min_length=1)
    tokens: int = Field(gt=0)
    finetunings: dict[str, Finetuning] = Field(default={})

    @model_validator(mode="after")
    def _check(self) -> Self:
        _check_once("seeds", self.seeds)
        for settings in (self.settings, *self.sizes.values()):
            _check_free(settings, _OF_THE_STUDY)
        for name in self.finetunings:
            if not _FINETUNING_NAME.fullmatch(name) or name in _OUR_NAMES or name.endswith(_OUR_ENDING):
                raise ValueError(
                    f"finetunings: {name!r} cannot be a folder's name beside the study's own: use letters, digits, "
                    f"hyphens and dots, but not {', '.join(_OUR_NAMES)} or an ending of {_OUR_ENDING}"
                )
        return self


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Dotted settings as ``load_config`` takes them; what YAML reads back is what was there, null and lists too."""
    return [f"{key}={json.dumps(value)}" for key, value in settings.items()]


def study_names() -> list[str]:
    """Names of the shipped studies."""
    files = (entry.name for entry in _FOLDER.iterdir())
    return sorted(
        name.removesuffix(".yaml") for name in files if name.endswith(".yaml") and name != f"{_AXES}.yaml"
    )


def load_study(study: str | Path) -> Study:
    """Read a study by its shipped name or from its file; every axis in it is spelled out.

    Raises:
        ValueError: there is no such study, or it is broken: an unknown key or axis is named with the nearest one.
    """
    if str(study) in study_names():
        file: Path | Traversable = _FOLDER / f"{study}.yaml"
    elif Path(study).is_file():
        file = Path(study)
    else:
        raise ValueError(
            f"there is no study {str(study)!r}: give a file, or one of {', '.join(study_names())}"
        )
    where = str(study)
    try:
        read = read_settings(Study, file.read_text(encoding="utf-8"), where)
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the study {where}: {error}") from None
    folder = file.parent if isinstance(file, Path) else None
    return read.model_copy(
        update={
            "name": read.name or Path(where).stem,
            "axes": {name: _spelled_out(name, axis, where) for name, axis in read.axes.items()},
            "finetunings": {
                name: one.model_copy(
                    update={"mixture": _place(one.mixture, folder), "suite": _place(one.suite, folder)}
                )
                for name, one in read.finetunings.items()
            },
        }
    )


def with_overrides(study: Study, overrides: Iterable[str]) -> Study:
    """The study with settings of training for every run, pretraining and finetuning alike.

    Args:
        study: as ``load_study`` gives it.
        overrides: ``training.threads=1`` and the like.

    Raises:
        ValueError: one is of another section, is the study's own to say (steps, seed), or is no ``key=value``.
    """
    settings: dict[str, Any] = {}
    for override in overrides:
        key, separator, value = override.partition("=")
        if not separator or not key.startswith("training."):
            raise ValueError(
                f"{override!r}: only settings of training can be given here, as training.threads=1; others belong into "
                "the study's file"
            )
        _check_free({key: None}, _OF_THE_STUDY)
        settings[key] = parse_yaml(f"value: {value}", override)["value"]
    return study.model_copy(
        update={
            "settings": {**study.settings, **settings},
            "finetunings": {
                name: one.model_copy(update={"settings": {**one.settings, **settings}})
                for name, one in study.finetunings.items()
            },
        }
    )


def shipped_axes() -> dict[str, Axis]:
    """The axes that a study can name without spelling them out."""

    class Axes(Settings):
        axes: dict[str, Axis]

    return read_settings(Axes, (_FOLDER / f"{_AXES}.yaml").read_text(encoding="utf-8"), _AXES).axes


def _check_once(what: str, values: Sequence[object]) -> None:
    if len(set(values)) < len(values):
        raise ValueError(f"{what}: name each once, not {list(values)}")


def _check_free(settings: Mapping[str, Any], taken: Sequence[str]) -> None:
    """Settings that the study would silently overwrite are no settings of it."""
    for key in settings:
        if key in taken:
            raise ValueError(
                f"{key} cannot be set in a study: 'tokens:' and 'seeds:' in its file say it, a finetuning's length its "
                "own training.steps"
            )


def _spelled_out(name: str, axis: Axis | None, where: str) -> Axis:
    if axis is not None:
        return axis
    shipped = shipped_axes()
    if name not in shipped:
        near = difflib.get_close_matches(name, shipped, n=1, cutoff=0.0)[0]
        raise ValueError(
            f"{where}: there is no axis {name!r}; the nearest is {near!r} (all: {', '.join(shipped)}). "
            "Give an axis of your own its 'base:' and 'values:'"
        )
    return shipped[name]


def _place(name: str, folder: Path | None) -> str:
    """A mixture or suite as it can be opened from anywhere: beside the study, or a published name."""
    if folder is not None:
        beside = folder / name
        return str(beside.resolve()) if beside.is_file() else name
    shipped = _FOLDER / name
    return str(shipped) if shipped.is_file() else name
