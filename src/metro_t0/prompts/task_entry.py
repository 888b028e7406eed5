"""Reads one entry under ``tasks:`` of a mixture or suite; the format is described in ``mixture.py``.

reader = TaskReader(folder=Path("."), templates=None, data_root=Path("data"), places=Places())
task, reason = reader.read({"dataset": "super_glue/rte"}, "mixture.yaml, task 1")     # reason: why it has no rows
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jinja2.exceptions import TemplateSyntaxError

from metro_t0.prompts.published import find_templates, published_file, templates_folder
from metro_t0.prompts.sandbox import compiled_expression
from metro_t0.prompts.sources import (
    HubDataset,
    LocalFile,
    Source,
    SplitsTogether,
    data_root_file,
    data_root_splits,
)
from metro_t0.prompts.tasks import Task, TaskFacts, choose_templates, open_templates
from metro_t0.prompts.template import DatasetTemplates, Template, TemplateFolder

_PARTS = ("train", "validation", "evaluation")
_FACTS = (
    *("kind", "train_size", "labels", "hub_source", "verified", "licence", "licence_source"),
    *("group", "evaluation_size"),
)
_TASK_KEYS = (
    *("name", "dataset", "subset", *_PARTS, "shots", "own_file", "templates", "templates_of", "use"),
    *("rename", "relabel", "columns", "weight", "cap", "hub", *_FACTS),
)
_HUB_KEYS = ("id", "subset", "split")
_HUB_PLACE_KEYS = ("id", "subset", "train", "validation", "rename")


@dataclass(frozen=True)
class Places:
    """Where templates and rows are, instead of what the files say, and what they are read for.

    Attributes:
        templates: folder or file of templates.
        data_root: folder of rows, see ``sources.data_root_file``.
        evaluates: a suite is read: tasks have the rows that they are scored on, and need none to train on.
        split: of a suite, instead of the splits that its tasks name.
        own_files: of a suite, files of rows by the name that a task has for them under ``own_file:``.
        published: file of a name under ``include:``, None for one that is not published.
    """

    templates: Path | None = None
    data_root: Path | None = None
    evaluates: bool = False
    split: str | None = None
    own_files: Mapping[str, Path] = field(default_factory=dict)
    published: Callable[[str], Path | None] = published_file


@dataclass
class TaskReader:
    """Reads the entries under ``tasks:``; templates files are opened once."""

    folder: Path
    templates: Path | None
    data_root: Path | None
    places: Places

    def __post_init__(self) -> None:
        self._opened: dict[Path, TemplateFolder | DatasetTemplates] = {}

    def read(self, entry: Any, where: str) -> tuple[Task, str | None]:
        """The task of an entry, and why its rows are not to be had (None when they are)."""
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where}: is not a mapping with 'dataset:'")
        check_keys(entry, _TASK_KEYS, where)
        key, dataset, subset = self._dataset(entry, where)
        hub = _hub_place(entry, where)
        find = self._to_evaluate if self.places.evaluates else self._to_train
        sources, reason = find(entry, dataset, subset, hub, where)
        templates, fault = self._templates_of(entry, str(entry.get("templates_of") or key), where)
        if fault is not None and not self.places.evaluates:
            raise ValueError(f"{where}: {fault}")
        rename = _rename(entry, where)
        if any(isinstance(source, HubDataset) for source in sources.values()):
            rename = {**rename, **_rename(hub, f"{where}, 'hub:'")}
        task = Task(
            str(entry.get("name") or key),
            dataset,
            subset,
            templates,
            rename=rename,
            relabel=_relabel(entry, where),
            columns=_columns(entry, where),
            weight=weight_of(entry, where),
            cap=_task_cap(entry, where),
            facts=_facts(entry, hub, where),
            **sources,
        )
        if task.cap is not None and task.cap < len(task.templates):
            raise ValueError(
                f"{where}: 'cap: {task.cap}' leaves no example for each of its {len(task.templates)} templates"
            )
        return task, reason or fault

    def _to_train(
        self, entry: Mapping[str, Any], dataset: str, subset: str | None, hub: Mapping[str, Any], where: str
    ) -> tuple[dict[str, Source], str | None]:
        """Sources of a mixture's task, and why there are none (None when there are)."""
        sources = {
            part: self._source(entry[part], dataset, subset, f"{where}, '{part}:'")
            for part in _PARTS
            if entry.get(part) is not None
        }
        if sources:
            return sources, None
        if self.data_root is not None:
            return self._under_data_root(dataset, subset)
        if hub:
            return _on_hub(hub, where), None
        return {}, _no_place(entry, where)

    def _to_evaluate(
        self, entry: Mapping[str, Any], dataset: str, subset: str | None, hub: Mapping[str, Any], where: str
    ) -> tuple[dict[str, Source], str | None]:
        """Sources of a suite's task, and why it has no rows to score (None when it has)."""
        given = entry.get("evaluation", entry.get("validation"))
        named = given["split"] if isinstance(given, Mapping) and set(given) == {"split"} else None
        source: Source | None
        if given is not None and named is None:
            if self.places.split:
                raise ValueError(f"{where}: names its rows, not a split of them: leave --split out")
            source = self._source(given, dataset, subset, where)
        else:
            own_file = self.places.own_files.get(str(entry.get("own_file")))
            split = self.places.split or str(named or hub.get("validation") or "validation")
            source, reason = self._split(split, own_file, entry, dataset, subset, hub, where)
            if source is None:
                return {}, reason
        sources: dict[str, Source] = {"evaluation": source}
        shots = entry.get("shots")
        if isinstance(shots, str):
            sources["shots"] = self._source(shots, dataset, subset, f"{where}, 'shots:'")
        elif shots is not None:
            if not isinstance(shots, Mapping) or set(shots) != {"split"}:
                raise ValueError(f"{where}, 'shots:': must be a file or {{split: ...}}")
            source, _ = self._split(str(shots["split"]), None, entry, dataset, subset, hub, where)
            if source is not None:
                sources["shots"] = source
        return sources, None

    def _split(
        self,
        split: str,
        own_file: Path | None,
        entry: Mapping[str, Any],
        dataset: str,
        subset: str | None,
        hub: Mapping[str, Any],
        where: str,
    ) -> tuple[Source | None, str | None]:
        """A split to evaluate on, or why it is not to be had."""
        if own_file is not None:
            return LocalFile(own_file, split), None
        if self.data_root is not None:
            try:
                return data_root_file(self.data_root, dataset, subset, split), None
            except ValueError as error:
                return None, f"{error}; {entry['hub_source']}" if entry.get("own_file") else str(error)
        if hub:
            return HubDataset(hub["id"], str(hub["subset"]) if hub.get("subset") else None, split), None
        if "hub" not in entry:
            raise ValueError(
                f"{where}: names a split only, and there is no 'data_root:' to find it under: add one, or --data-root"
            )
        return None, _no_place(entry, where)

    def _templates_of(
        self, entry: Mapping[str, Any], key: str, where: str
    ) -> tuple[tuple[Template, ...], str | None]:
        """The templates of a task, and what is wrong where there are none of these names."""
        templates = path_of(entry, "templates", self.folder, where) or self.templates
        if templates is None:
            try:
                templates = find_templates()
            except ValueError as error:
                raise ValueError(f"{where}: no 'templates:' for {key!r}: {error}") from None
        templates = templates_folder(templates)
        if templates not in self._opened:
            self._opened[templates] = open_templates(templates)
        try:
            return choose_templates(self._opened[templates], key, _use(entry, where)), None
        except ValueError as error:
            return (), str(error)

    def _under_data_root(self, dataset: str, subset: str | None) -> tuple[dict[str, Source], str | None]:
        """Sources under the data root; splits that do not begin with ``train`` are never trained on."""
        assert self.data_root is not None
        splits = data_root_splits(self.data_root, dataset, subset)
        train = tuple(split for name, split in splits.items() if name.startswith("train"))
        if not train:
            there = f"only {', '.join(splits)}" if splits else "nothing"
            return {}, f"{there} in {self.data_root / dataset / (subset or 'default')}"
        sources: dict[str, Source] = {"train": train[0] if len(train) == 1 else SplitsTogether(train)}
        if "validation" in splits:
            sources["validation"] = splits["validation"]
        return sources, None

    def _dataset(self, entry: Mapping[str, Any], where: str) -> tuple[str, str, str | None]:
        dataset, subset = entry.get("dataset"), entry.get("subset")
        if not isinstance(dataset, str) or not dataset:
            raise ValueError(f"{where}: has no 'dataset:'")
        if subset is not None:
            return f"{dataset}/{subset}", dataset, str(subset)
        name, _, rest = dataset.partition("/")
        return dataset, name, rest or None

    def _source(self, given: Any, dataset: str, subset: str | None, where: str) -> Source:
        if isinstance(given, str):
            try:
                return LocalFile(resolve(given, self.folder))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        if not isinstance(given, Mapping) or len(given) != 1:
            raise ValueError(f"{where}: must be a file, {{hub: {{id: ..., split: ...}}}} or {{split: ...}}")
        check_keys(given, ("hub", "split"), where)
        if "split" in given:
            if self.data_root is None:
                raise ValueError(
                    f"{where}: names a split only, and there is no 'data_root:' to find it under"
                )
            return data_root_file(self.data_root, dataset, subset, str(given["split"]))
        hub = given["hub"]
        if not isinstance(hub, Mapping) or not isinstance(hub.get("id"), str):
            raise ValueError(f"{where}: 'hub:' must hold 'id:', and may hold 'subset:' and 'split:'")
        check_keys(hub, _HUB_KEYS, f"{where}, 'hub:'")
        return HubDataset(**{name: str(value) for name, value in hub.items() if value is not None})


def _hub_place(entry: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """The entry's ``hub:``; empty when it has none or is null."""
    hub = entry.get("hub")
    if hub is None:
        return {}
    if not isinstance(hub, Mapping) or not isinstance(hub.get("id"), str):
        raise ValueError(f"{where}: 'hub:' must hold 'id:', and may hold {', '.join(_HUB_PLACE_KEYS[1:])}")
    check_keys(hub, _HUB_PLACE_KEYS, f"{where}, 'hub:'")
    return hub


def _no_place(entry: Mapping[str, Any], where: str) -> str:
    """Why an entry that names no rows has none. Raises ValueError when it should have named some."""
    if "hub" not in entry:
        raise ValueError(f"{where}: names no rows: add 'train:', 'validation:' or 'evaluation:'")
    return str(entry.get("hub_source") or "no place on the Hub is named")


def _on_hub(hub: Mapping[str, Any], where: str) -> dict[str, Source]:
    train = str(hub.get("train") or "train")
    if not train.startswith("train"):
        raise ValueError(
            f"{where}, 'hub:': 'train: {train}' is no split to train on: it does not begin with train"
        )
    subset = str(hub["subset"]) if hub.get("subset") else None
    sources: dict[str, Source] = {"train": HubDataset(hub["id"], subset, train)}
    if hub.get("validation"):
        sources["validation"] = HubDataset(hub["id"], subset, str(hub["validation"]))
    return sources


def _facts(entry: Mapping[str, Any], hub: Mapping[str, Any], where: str) -> TaskFacts:
    labels = entry.get("labels") or {}
    for key in ("train_size", "evaluation_size"):
        size = entry.get(key)
        if not (size is None or (type(size) is int and size >= 0)):
            raise ValueError(f"{where}: '{key}:' must be a whole number, not {size!r}")
    if not isinstance(labels, Mapping) or not all(isinstance(names, list) for names in labels.values()):
        raise ValueError(f"{where}: 'labels:' must be a mapping such as {{label: [bad, good]}}")
    return TaskFacts(
        kind=str(entry.get("kind") or ""),
        train_size=entry.get("train_size"),
        labels={str(column): tuple(map(str, names)) for column, names in labels.items()},
        hub=hub.get("id"),
        hub_source=str(entry.get("hub_source") or ""),
        verified=bool(entry.get("verified", False)),
        licence=str(entry.get("licence") or ""),
        licence_source=str(entry.get("licence_source") or ""),
        group=str(entry.get("group") or ""),
        evaluation_size=entry.get("evaluation_size"),
    )


def _columns(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    columns = entry.get("columns") or {}
    if not isinstance(columns, Mapping) or not all(isinstance(value, str) for value in columns.values()):
        raise ValueError(f"{where}: 'columns:' must be a mapping such as {{answerKey: \"'ABCD'[answer]\"}}")
    for name, expression in columns.items():
        try:
            compiled_expression(expression)
        except TemplateSyntaxError as error:
            raise ValueError(
                f"{where}, 'columns:': {name!r} is not a valid expression: {error.message}"
            ) from None
    return {str(name): expression for name, expression in columns.items()}


def _rename(entry: Mapping[str, Any], where: str) -> dict[str, str]:
    rename = entry.get("rename") or {}
    if not isinstance(rename, Mapping) or not all(isinstance(v, str) for v in (*rename, *rename.values())):
        raise ValueError(f"{where}: 'rename:' must be a mapping such as {{sentence: text}}")
    return dict(rename)


def _relabel(entry: Mapping[str, Any], where: str) -> dict[str, tuple[int, ...]]:
    relabel = entry.get("relabel") or {}
    if not isinstance(relabel, Mapping) or not all(
        isinstance(classes, list) and all(type(number) is int for number in classes)
        for classes in relabel.values()
    ):
        raise ValueError(f"{where}: 'relabel:' must be a mapping such as {{label: [1, 0]}}")
    return {str(column): tuple(classes) for column, classes in relabel.items()}


def weight_of(entry: Mapping[str, Any], where: str) -> float:
    """The ``weight:`` of an entry, 1 by default; raises ValueError when it is not a number above 0."""
    weight = entry.get("weight", 1.0)
    if type(weight) not in (int, float) or not 0 < weight <= 1000:
        raise ValueError(f"{where}: 'weight:' must be a number above 0 (and at most 1000), not {weight!r}")
    return float(weight)


def _task_cap(entry: Mapping[str, Any], where: str) -> int | None:
    cap: Any = entry.get("cap")
    if cap is None:
        return None
    if type(cap) is not int or cap < 1:
        raise ValueError(f"{where}: 'cap:' must be a whole number above 0, not {cap!r}")
    return int(cap)


def check_keys(given: Mapping[Any, Any], known: Collection[str], where: str) -> None:
    """Raises ValueError for a key that is not known, naming the nearest one that is."""
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise ValueError(f"{where}: unknown key {key!r} ({hint})")


def _use(entry: Mapping[str, Any], where: str) -> str | list[str]:
    use = entry.get("use", "all")
    if isinstance(use, str):
        return use
    if not isinstance(use, list) or not use:
        raise ValueError(
            f"{where}: 'use:' must be all, original-task or a list of template names, not {use!r}"
        )
    return [str(name) for name in use]


def path_of(entry: Mapping[str, Any], key: str, folder: Path, where: str) -> Path | None:
    """The path under a key, relative to the file; None when it is not given. Raises ValueError for what is no path."""
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{where}: '{key}:' must be a path, not {value!r}")
    return resolve(value, folder)


def resolve(path: str, folder: Path) -> Path:
    """A path as a file names it: relative to its folder, ``~`` is home."""
    return folder / Path(path).expanduser()
