"""A mixture: tasks under caps, from a YAML file to token ids on disk; also the file of an evaluation suite.

    mixture = load_mixture("my_mixture.yaml")
    mixture.check()                                      # every template gives examples? ValueError if not
    data = mixture.build(tokenizer, Path("prompted"))    # renders, tokenizes, writes
    data = PromptedData.load(Path("prompted"))           # later
    rows = data.train.select(data.epoch_indices(epoch=0, seed=0))

The file (paths are relative to it)::

    name: my-mixture                 # default: the file's name
    include: [t0, other.yaml]        # all tasks of other mixtures; {mixture: t0, weight: 0.5} weighs them
    cap: metro                       # see below; default: metro
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
        relabel: {label: [1, 0]}     # class 0 of the data is what the templates call 1, class 1 is 0
        weight: 2                    # twice as many examples in an epoch, see below
        cap: 1000                    # instead of the mixture's
      - dataset: amazon_polarity     # no rows named: DATA_ROOT/amazon_polarity/default/train*.jsonl.gz, else
        hub: {id: owner/name, subset: null, train: train, validation: null, rename: {}}     # the Hub
        kind: sentiment              # what is known of it, for the plan and for checks: task family,
        train_size: 3600000          # rows of the whole train split,
        labels: {label: [negative, positive]}     # names of classes; the Hub's must be these
        hub_source: https://...      # (also licence, licence_source, verified: who says so, and whether it was seen)

Without ``templates:`` they are looked for as ``published.py`` says. A mixture's own settings go before those of what it
includes. Under a data root each split whose name begins with ``train`` is trained on, and no other.

Caps are examples of a dataset in an epoch, shared by its templates (``cap // templates`` of each):

- ``metro``: 500,000, as METRO-T0 does it. ``N``: N. ``null``: no bound.
- ``t0``: 500,000 for datasets of more than 500,000 rows (``train_size:``, else the rows counted), none for others: the
  original T0's rule.
- A task's own ``cap:`` goes before the mixture's. ``weight:`` then multiplies what an epoch takes of each template:
  with 2 an uncapped example comes twice an epoch and a capped template gives two windows, with 0.5 half a window.

Finetuning reads ``train`` and ``validation``; an evaluation suite reads ``evaluation``, else ``validation``.

What becomes of the rows (METRO-T0's ``collect_t0_train.py``, except where it says so):

- Each row goes through each template. A rendering is dropped, and counted in the card, when it has no input
  ("empty"), no target, or more than one ``|||``. A template that drops every row of its task is an error.
- With ``check_choices`` (our addition) a target that is not among the template's answer choices is dropped
  too. Some published templates answer with more than the choice (imdb's "Negation template ..."), and
  METRO-T0 does not look, so a faithful T0 mixture says ``check_choices: false``.
- Input ``<s> tokens </s>`` and target ``tokens </s>``, runs of whitespace first made one space. What is
  longer than the maximum keeps its beginning and the ``</s>``; how many were cut is in the card.
- An epoch takes at most the cap's examples of each template, and all of a smaller one, so that sampling is in
  proportion to the capped sizes.
- Validation rows (our choice) are those that the task names, else a share of its train rows, at least one,
  that no template trains on; at most 1000 rows a task, drawn by the seed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro_t0.prompts.build import build
from metro_t0.prompts.build_plan import UNIT_EXAMPLES, BuildSettings, Tokenizer
from metro_t0.prompts.mixture_file import read_mixture_file
from metro_t0.prompts.prompted_data import PromptedData
from metro_t0.prompts.rendering import check
from metro_t0.prompts.sources import HubDataset
from metro_t0.prompts.task_entry import Places
from metro_t0.prompts.tasks import Task

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Mixture", "PromptedData", "load_mixture"]

METRO_CAP = 500_000
"""Examples of one dataset in an epoch (METRO-T0 ``collect_t0_train.py``)."""


@dataclass(frozen=True)
class Mixture:
    """Tasks and how much of each.

    Attributes:
        name: for reports.
        tasks: with names of their own.
        cap: examples of one dataset in an epoch, shared by its templates; None = all of them.
        check_choices: whether a target must be among the answer choices.
        validation_fraction: share of the train rows held out of tasks without validation rows.
        absent: tasks of the mixture that are left out since their rows are not there; they have none.
        cap_rule: ``cap`` as it was given: a number, ``metro``, ``t0`` or ``none``.
    """

    name: str
    tasks: tuple[Task, ...]
    cap: int | None = METRO_CAP
    check_choices: bool = True
    validation_fraction: float = 0.01
    absent: tuple[Task, ...] = ()
    cap_rule: str = ""

    @property
    def missing(self) -> tuple[str, ...]:
        """Names of the tasks that are left out since their rows are not there."""
        return tuple(task.name for task in self.absent)

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
            missing=self.missing,
            cap_rule=self.cap_rule,
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
    path: str | Path,
    *,
    templates: str | Path | None = None,
    data_root: str | Path | None = None,
    cap: int | str | None = None,
    allow_missing: bool = False,
) -> Mixture:
    """Reads a mixture (or evaluation suite): a published one by its name, or a file.

    Args:
        path: ``t0``, ``t0+``, ``t0++`` or a YAML file, see this module's first lines.
        templates: takes the place of the file's own ``templates:``.
        data_root: takes the place of the file's own ``data_root:``.
        cap: takes the place of the file's own ``cap:``: a number, ``metro``, ``t0`` or ``none``.
        allow_missing: whether tasks without rows may be left out; ``Mixture.missing`` then names them, and the caps
            of the others stay those of the whole mixture.

    Raises:
        ValueError: in one line, what is wrong where (an unknown key is named with the nearest known one), or which
        datasets are not there.
    """
    places = Places(Path(templates) if templates else None, Path(data_root) if data_root else None)
    content = read_mixture_file(Path(path), places)
    if content.absent and not (allow_missing and content.tasks):
        listed = "; ".join(f"{task.name} ({reason})" for task, reason in content.absent)
        raise ValueError(
            f"mixture {content.name!r}: {len(content.absent)} of its "
            f"{len(content.absent) + len(content.tasks)} datasets are not there: {listed}. Bring them under a "
            "--data-root, or leave them out with --allow-missing"
        )
    settings = dict(content.settings)
    rule = settings.get("cap", METRO_CAP) if cap is None else cap
    tasks = [*content.tasks, *(task for task, _ in content.absent)]
    of_mixture, capped = _apply_cap(rule, tasks, str(path))
    mixture = Mixture(
        name=content.name,
        tasks=tuple(capped[: len(content.tasks)]),
        cap=of_mixture,
        check_choices=settings.get("check_choices", True),
        validation_fraction=settings.get("validation_fraction", 0.01),
        absent=tuple(capped[len(content.tasks) :]),
        cap_rule=_rule_name(rule),
    )
    _check_settings(mixture, Path(path))
    return mixture


def _apply_cap(rule: Any, tasks: list[Task], where: str) -> tuple[int | None, list[Task]]:
    """The mixture's cap under a rule, and the tasks with the caps that the rule gives them."""
    rule = int(rule) if isinstance(rule, str) and rule.isdigit() else rule
    if rule == "metro":
        return METRO_CAP, tasks
    if rule in (None, "none"):
        return None, tasks
    if rule == "t0":
        return None, [_under_t0_rule(task) for task in tasks]
    if type(rule) is int and rule > 0:
        return rule, tasks
    raise ValueError(
        f"{where}: 'cap:' must be a whole number above 0, metro, t0, or null (none) for no cap, not {rule!r}"
    )


def _under_t0_rule(task: Task) -> Task:
    if task.cap is not None or (task.train is None and task.facts.train_size is None):
        return task
    size = task.facts.train_size
    if size is None and task.train is not None:
        if isinstance(task.train, HubDataset):
            raise ValueError(
                f"task {task.name!r}: 'cap: t0' depends on its size: say 'train_size:', or give it a 'cap:'"
            )
        size = task.train.count()
    return replace(task, cap=METRO_CAP) if size is not None and size > METRO_CAP else task


def _rule_name(rule: Any) -> str:
    return "none" if rule is None else str(rule)


def _check_settings(mixture: Mixture, path: Path) -> None:
    cap, fraction = mixture.cap, mixture.validation_fraction
    if type(mixture.check_choices) is not bool:
        raise ValueError(f"{path}: 'check_choices:' must be true or false, not {mixture.check_choices!r}")
    if type(fraction) not in (int, float) or not 0 <= fraction < 1:
        raise ValueError(f"{path}: 'validation_fraction:' must be from 0 to below 1, not {fraction!r}")
    for task in mixture.tasks:
        if cap is not None and task.cap is None and cap < len(task.templates):
            raise ValueError(
                f"{path}: 'cap: {cap}' leaves no example for each of the {len(task.templates)} templates of "
                f"task {task.name!r}: raise it, or name fewer templates under 'use:'"
            )
