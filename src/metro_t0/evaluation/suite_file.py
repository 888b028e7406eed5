"""Suites: which rows under which templates an evaluation scores; ``t0`` and ``mmlu`` by name, or a file.

    suite = load_suite("t0", templates=Path("promptsource/templates"), data_root=Path("data"))
    suite.tasks, suite.missing              # the tasks whose rows are there, and why those of others are not

A suite's file has the format of mixtures (``metro_t0.prompts.mixture``); its tasks need no rows to train on. What only
suites use of it::

    tasks:
      - dataset: anli
        evaluation: {split: dev_r1}      # a file, a Hub dataset, or a split (default: validation): of the data
        hub: {id: facebook/anli}         # root if there is one, else of this place on the Hub
        evaluation_size: 1000            # rows of the whole split: results say which part of it they stand on
        group: inference                 # results of a group are also summed up
        templates_of: super_glue/cb      # templates of another dataset
        columns: {answerKey: "'ABCD'[answer]"}     # columns made of the others by Jinja expressions
        shots: {split: dev}              # solved examples to put before a question (or a file)
        own_file: story-cloze            # rows that a user names on the command line (--story-cloze FILE)

``include: [mmlu, other.yaml]`` takes in other suites.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from metro_t0.prompts.mixture_file import read_mixture_file
from metro_t0.prompts.task_entry import Places
from metro_t0.prompts.tasks import Task

PUBLISHED = ("t0", "mmlu")
"""Suites by name, data files of this package."""

STORY_CLOZE = "story-cloze"


@dataclass(frozen=True)
class Suite:
    """What an evaluation scores.

    Attributes:
        name: for reports.
        tasks: those whose rows and templates are there.
        missing: name of each other task -> why it cannot be scored.
        order: names of all tasks, as the file has them.
    """

    name: str
    tasks: tuple[Task, ...]
    missing: Mapping[str, str] = field(default_factory=dict)
    order: tuple[str, ...] = ()


def published_suite(name: str) -> Path | None:
    """The file of a suite that has a name, or None."""
    return Path(__file__).with_name("suite_files") / f"{name}.yaml" if name in PUBLISHED else None


def load_suite(
    suite: str | Path,
    *,
    templates: Path | None = None,
    data_root: Path | None = None,
    split: str | None = None,
    story_cloze: Path | None = None,
) -> Suite:
    """Reads a suite and finds the rows of its tasks.

    Args:
        suite: ``t0``, ``mmlu``, or a file.
        templates: takes the place of the file's own ``templates:``.
        data_root: takes the place of the file's own ``data_root:``.
        split: takes the place of the splits that tasks name.
        story_cloze: StoryCloze's CSV of 2016, validation, as its authors send it.

    Raises:
        ValueError: in one line, what is wrong where, or why no task can be scored.
    """
    if not Path(suite).is_file() and published_suite(str(suite)) is None:
        raise ValueError(
            f"no suite {str(suite)!r}: give {' or '.join(PUBLISHED)}, or a file (YAML) that is there"
        )
    places = Places(
        templates,
        data_root,
        evaluates=True,
        split=split,
        own_files={} if story_cloze is None else {STORY_CLOZE: story_cloze},
        published=published_suite,
    )
    content = read_mixture_file(Path(suite), places)
    missing = {task.name: reason for task, reason in content.absent}
    if not content.tasks:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in missing.items())
        raise ValueError(f"suite {content.name!r}: no task can be scored: {reasons}")
    return Suite(content.name, tuple(content.tasks), missing, tuple(content.order))
