"""A mixture: tasks under caps, from a YAML file to token ids on disk; also the file of an evaluation suite.

    mixture = load_mixture("my_mixture.yaml")
    mixture.check()                                      # every template gives examples? ValueError if not
    data = mixture.build(tokenizer, Path("prompted"))    # renders, tokenizes, writes
    data = PromptedData.load(Path("prompted"))           # later
    rows = data.train.select(data.epoch_indices(epoch=0, seed=0))

The file (paths are relative to it)::

    name: my-mixture                 # default: the file's name
    cap: 500000                      # examples of a dataset in an epoch, shared by its templates; null = all
    templates: promptsource/templates      # a promptsource folder, or one file in its format
    data_root: data                  # for sources that only name a split
    check_choices: true              # an answer that is not among the choices is an error (METRO-T0: false)
    validation_fraction: 0.01        # rows held out where a task names no validation rows
    tasks:
      - dataset: super_glue/rte      # or  dataset: super_glue  and  subset: rte
        train: data/rte.jsonl.gz     # JSON lines, CSV or Parquet
        validation: {hub: {id: aps/super_glue, subset: rte, split: validation}}     # a Hub dataset
        evaluation: {split: test}    # DATA_ROOT/super_glue/rte/test.jsonl.gz
      - dataset: my_task
        name: my-task-twice          # default: the dataset; must be unique
        train: my_task.csv
        templates: my_templates.yaml       # promptsource's format, see template.py
        use: [plain question]        # all (default), original-task, or a list of names
        rename: {sentence: text}     # column of the data: the name that the templates use

Finetuning reads ``train`` and ``validation``; an evaluation suite reads ``evaluation``, else ``validation``.

What becomes of the rows (METRO-T0's ``collect_t0_train.py``, except where it says so):

- Each row goes through each template. A rendering is dropped, and counted in the card, when it has no input
  ("empty"), no target, or more than one ``|||``. A template that drops every row of its task is an error.
- With ``check_choices`` (our addition) a target that is not among the template's answer choices is dropped
  too. Some published templates answer with more than the choice (imdb's "Negation template ..."), and
  METRO-T0 does not look, so a faithful T0 mixture says ``check_choices: false``.
- Input ``<s> tokens </s>`` and target ``tokens </s>``, runs of whitespace first made one space. What is
  longer than the maximum keeps its beginning and the ``</s>``; how many were cut is in the card.
- An epoch takes at most ``cap // templates`` examples of each template, whatever the dataset's size (the
  original T0 caps only datasets beyond the cap), and all of a smaller one, so that sampling is in
  proportion to the capped sizes.
- Validation rows (our choice) are those that the task names, else a share of its train rows, at least one,
  that no template trains on; at most 1000 rows a task, drawn by the seed.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from metro_t0.prompts.build import build
from metro_t0.prompts.build_plan import UNIT_EXAMPLES, BuildSettings, Tokenizer
from metro_t0.prompts.prompted_data import PromptedData
from metro_t0.prompts.rendering import check
from metro_t0.prompts.sources import HubDataset, LocalFile, Source, data_root_file
from metro_t0.prompts.tasks import Task, choose_templates, open_templates
from metro_t0.prompts.template import DatasetTemplates, TemplateFolder

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Mixture", "PromptedData", "load_mixture"]

METRO_CAP = 500_000
"""Examples of one dataset in an epoch (METRO-T0 ``collect_t0_train.py``)."""

_PARTS = ("train", "validation", "evaluation")
_MIXTURE_KEYS = (
    "name",
    "cap",
    "templates",
    "data_root",
    "check_choices",
    "validation_fraction",
    "tasks",
)
_TASK_KEYS = ("name", "dataset", "subset", *_PARTS, "templates", "use", "rename")
_HUB_KEYS = ("id", "subset", "split")


@dataclass(frozen=True)
class Mixture:
    """Tasks and how much of each.

    Attributes:
        name: for reports.
        tasks: with names of their own.
        cap: examples of one dataset in an epoch, shared by its templates; None = all of them.
        check_choices: whether a target must be among the answer choices.
        validation_fraction: share of the train rows held out of tasks without validation rows.
    """

    name: str
    tasks: tuple[Task, ...]
    cap: int | None = METRO_CAP
    check_choices: bool = True
    validation_fraction: float = 0.01

    def check(self) -> None:
        """Renders rows until every template has given an example.

        Raises:
            ValueError: a template gives none for any row of its task (says why), or a row cannot be rendered.
        """
        check(self.tasks, check_choices=self.check_choices)

    def build(
        self,
        tokenizer: Tokenizer,
        out: str | Path,
        *,
        max_input_length: int = 512,
        max_target_length: int = 512,
        seed: int = 0,
        drop_long: bool = False,
        epochs: int | None = None,
        processes: int | None = 1,
        resumable: bool = True,
        unit_examples: int = UNIT_EXAMPLES,
        console: Console | None = None,
    ) -> PromptedData:
        """Renders and tokenizes all rows of all tasks, and writes them with a card that counts them.

        The same files, settings and seed give the same content in the same order, on any number of processes and
        after any interruption.

        Args:
            tokenizer: see :class:`~metro_t0.prompts.build_plan.Tokenizer`.
            out: folder to make; it appears when it is whole.
            max_input_length: tokens of an input, ``<s>`` and ``</s>`` included.
            max_target_length: tokens of a target, ``</s>`` included.
            seed: of the held-out rows and of what templates draw.
            drop_long: drop examples longer than that, as METRO-T0 does, instead of cutting them.
            epochs: render of large datasets only the rows that so many epochs visit; None = all rows.
            processes: how many render and tokenize; None = all cores.
            resumable: whether finished work is kept after an error, for the same call to go on with.
            unit_examples: about how many examples a process makes, and so loses at most, at a time.
            console: for a progress bar and a line on what was cut and dropped; None = silent.

        Raises:
            ValueError: ``out`` already holds something, a task has no rows to train on, a worker was killed, the
            disk is full, or what :meth:`check` raises.
        """
        settings = BuildSettings(
            name=self.name,
            cap=self.cap,
            check_choices=self.check_choices,
            validation_fraction=self.validation_fraction,
            max_input_length=max_input_length,
            max_target_length=max_target_length,
            seed=seed,
            drop_long=drop_long,
            epochs=epochs,
        )
        build(
            self.tasks,
            tokenizer,
            Path(out),
            settings,
            processes=processes,
            resumable=resumable,
            unit_examples=unit_examples,
            console=console,
        )
        return PromptedData.load(out)


def load_mixture(
    path: str | Path, *, templates: str | Path | None = None, data_root: str | Path | None = None
) -> Mixture:
    """Reads a mixture (or evaluation suite) file.

    Args:
        path: YAML, see this module's first lines.
        templates: takes the place of the file's own ``templates:``.
        data_root: takes the place of the file's own ``data_root:``.

    Raises:
        ValueError: in one line, what is wrong where (an unknown key is named with the nearest known one).
    """
    path = Path(path)
    content = _read_yaml(path)
    _check_keys(content, _MIXTURE_KEYS, str(path))
    tasks = content.get("tasks")
    if not isinstance(tasks, list) or not tasks:
        raise ValueError(f"{path}: has no 'tasks:' list")
    reader = _TaskReader(
        folder=path.parent,
        templates=Path(templates) if templates else _path(content, "templates", path.parent, str(path)),
        data_root=Path(data_root) if data_root else _path(content, "data_root", path.parent, str(path)),
    )
    read: list[Task] = []
    for number, entry in enumerate(tasks, start=1):
        task = reader.read(entry, f"{path}, task {number}")
        if any(task.name == other.name for other in read):
            raise ValueError(
                f"{path}, task {number}: another task is called {task.name!r}: give it a 'name:'"
            )
        read.append(task)
    mixture = Mixture(
        name=str(content.get("name") or path.stem),
        tasks=tuple(read),
        cap=content.get("cap", METRO_CAP),
        check_choices=content.get("check_choices", True),
        validation_fraction=content.get("validation_fraction", 0.01),
    )
    _check_settings(mixture, path)
    return mixture


def _check_settings(mixture: Mixture, path: Path) -> None:
    cap, fraction = mixture.cap, mixture.validation_fraction
    if not (cap is None or (type(cap) is int and cap > 0)):
        raise ValueError(f"{path}: 'cap:' must be a whole number above 0, or null for no cap, not {cap!r}")
    if type(mixture.check_choices) is not bool:
        raise ValueError(f"{path}: 'check_choices:' must be true or false, not {mixture.check_choices!r}")
    if type(fraction) not in (int, float) or not 0 <= fraction < 1:
        raise ValueError(f"{path}: 'validation_fraction:' must be from 0 to below 1, not {fraction!r}")
    for task in mixture.tasks:
        if cap is not None and cap < len(task.templates):
            raise ValueError(
                f"{path}: 'cap: {cap}' leaves no example for each of the {len(task.templates)} templates of "
                f"task {task.name!r}: raise it, or name fewer templates under 'use:'"
            )


@dataclass
class _TaskReader:
    """Reads the entries under ``tasks:``; templates files are opened once."""

    folder: Path
    templates: Path | None
    data_root: Path | None

    def __post_init__(self) -> None:
        self._opened: dict[Path, TemplateFolder | DatasetTemplates] = {}

    def read(self, entry: Any, where: str) -> Task:
        if not isinstance(entry, Mapping):
            raise ValueError(f"{where}: is not a mapping with 'dataset:'")
        _check_keys(entry, _TASK_KEYS, where)
        key, dataset, subset = self._dataset(entry, where)
        templates = _path(entry, "templates", self.folder, where) or self.templates
        if templates is None:
            raise ValueError(f"{where}: no 'templates:' for {key!r}, neither of the task nor of the file")
        if templates not in self._opened:
            self._opened[templates] = open_templates(templates)
        try:
            chosen = choose_templates(self._opened[templates], key, _use(entry, where))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        sources = {
            part: self._source(entry[part], dataset, subset, f"{where}, '{part}:'")
            for part in _PARTS
            if entry.get(part) is not None
        }
        if not sources:
            raise ValueError(f"{where}: names no rows: add 'train:', 'validation:' or 'evaluation:'")
        rename = entry.get("rename") or {}
        if not isinstance(rename, Mapping) or not all(
            isinstance(v, str) for v in (*rename, *rename.values())
        ):
            raise ValueError(f"{where}: 'rename:' must be a mapping such as {{sentence: text}}")
        return Task(str(entry.get("name") or key), dataset, subset, chosen, rename=dict(rename), **sources)

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
                return LocalFile(_resolve(given, self.folder))
            except ValueError as error:
                raise ValueError(f"{where}: {error}") from None
        if not isinstance(given, Mapping) or len(given) != 1:
            raise ValueError(f"{where}: must be a file, {{hub: {{id: ..., split: ...}}}} or {{split: ...}}")
        _check_keys(given, ("hub", "split"), where)
        if "split" in given:
            if self.data_root is None:
                raise ValueError(
                    f"{where}: names a split only, and there is no 'data_root:' to find it under"
                )
            return data_root_file(self.data_root, dataset, subset, str(given["split"]))
        hub = given["hub"]
        if not isinstance(hub, Mapping) or not isinstance(hub.get("id"), str):
            raise ValueError(f"{where}: 'hub:' must hold 'id:', and may hold 'subset:' and 'split:'")
        _check_keys(hub, _HUB_KEYS, f"{where}, 'hub:'")
        return HubDataset(**{name: str(value) for name, value in hub.items() if value is not None})


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


def _check_keys(given: Mapping[Any, Any], known: Collection[str], where: str) -> None:
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


def _path(entry: Mapping[str, Any], key: str, folder: Path, where: str) -> Path | None:
    value = entry.get(key)
    if value is None:
        return None
    if not isinstance(value, str):
        raise ValueError(f"{where}: '{key}:' must be a path, not {value!r}")
    return _resolve(value, folder)


def _resolve(path: str, folder: Path) -> Path:
    return folder / Path(path).expanduser()
