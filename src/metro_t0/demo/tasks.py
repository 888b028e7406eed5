"""Writes the demo's tasks: rows, templates, a mixture to finetune on and a suite to evaluate on.

    files = write_tasks(entries, Path("tasks"), rows=2000, evaluation_rows=200)
    files.mixture, files.suite          # YAML files as metro_t0.prompts.mixture describes them

The suite asks what finetuning never showed: whole families of questions (``HELD_OUT``), and of the families
that were trained on one template each (``held_out_template``), always about docstrings that no training row
was made of.
"""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from metro_t0.data.output import new_directory
from metro_t0.data.pydocs import PydocEntry
from metro_t0.demo import families
from metro_t0.demo.documents import PydocDocument, Side, parse_entries
from metro_t0.demo.families import Row, RowMaker
from metro_t0.prompts.template import load_template_file


@dataclass(frozen=True)
class Family:
    """A kind of question.

    Attributes:
        name: of its rows and of its file in ``templates/``.
        rows: makes them.
        held_out_template: the template that finetuning does not see; None for open-ended families, which cannot
            be ranked, and for families that are held out whole.
        share: of the rows that other families have. Long answers have many tokens, which all count alike in the
            loss, and would otherwise take most of it.
    """

    name: str
    rows: RowMaker
    held_out_template: str | None = None
    share: float = 1.0


TRAINED = (
    Family("library", families.library_rows, "belongs to which package"),
    Family("kind", families.kind_rows, "pick the kind"),
    Family("result", families.result_rows, "result of"),
    Family("match", families.match_rows, "right or wrong"),
    Family("name", families.name_rows, "find the name"),
    Family("mention", families.mention_rows, "is it mentioned"),
    Family("order", families.order_rows, "makes sense"),
    Family("summary", families.summary_rows, share=0.1),
)
HELD_OUT = (
    Family("library_pair", families.library_pair_rows),
    Family("parameter_library", families.parameter_library_rows),
    Family("from_library", families.from_library_rows),
    Family("statement", families.statement_rows),
    Family("parameter", families.parameter_rows),
    Family("name_fits", families.name_fits_rows),
    Family("which_text", families.which_text_rows),
    Family("next_sentence", families.next_sentence_rows),
)


@dataclass(frozen=True)
class TaskFiles:
    """What was written.

    Attributes:
        mixture: to finetune on.
        suite: to evaluate on.
        rows: (family, side) -> number of rows.
    """

    mixture: Path
    suite: Path
    rows: dict[tuple[str, Side], int]


def write_tasks(
    entries: Iterable[PydocEntry], out: Path, *, rows: int = 2000, evaluation_rows: int = 200, seed: int = 0
) -> TaskFiles:
    """Make all families' rows and write them with their templates.

    Args:
        entries: the docstrings.
        out: folder to make: ``mixture.yaml``, ``suite.yaml``, ``rows/``, ``templates/``.
        rows: the most of a family to train on; small families have fewer.
        evaluation_rows: likewise to evaluate on.
        seed: of what is drawn and shuffled.

    Raises:
        ValueError: ``out`` is there already, or the docstrings are too few for some family.
    """
    documents: dict[Side, list[PydocDocument]] = {"train": [], "evaluation": []}
    for document in parse_entries(entries):
        documents[document.side].append(document)
    counts: dict[tuple[str, Side], int] = {}
    with new_directory(out) as folder:
        (folder / "rows").mkdir()
        (folder / "templates").mkdir()
        for family in (*TRAINED, *HELD_OUT):
            _copy_templates(family, folder / "templates")
            sides: dict[Side, int] = {"evaluation": evaluation_rows}
            if family in TRAINED:
                sides["train"] = int(rows * family.share)
            for side, number in sides.items():
                made = _rows(family, documents[side], side, number, seed)
                _write_rows(folder / "rows" / f"{family.name}.{side}.jsonl", made)
                counts[family.name, side] = len(made)
        _write_yaml(folder / "mixture.yaml", _mixture(rows))
        _write_yaml(folder / "suite.yaml", _suite())
    return TaskFiles(out / "mixture.yaml", out / "suite.yaml", counts)


def _rows(
    family: Family, documents: Sequence[PydocDocument], side: Side, number: int, seed: int
) -> list[Row]:
    rng = random.Random(f"{seed}/{family.name}/{side}")
    made = list(family.rows(documents, rng, number))
    if not made:
        raise ValueError(
            f"this Python installation has too few docstrings for the {side} questions of family "
            f"{family.name!r}: install the project's dependencies beside it"
        )
    rng.shuffle(made)
    return made


def _copy_templates(family: Family, folder: Path) -> None:
    source = resources.files("metro_t0.demo").joinpath("templates", f"{family.name}.yaml")
    with resources.as_file(source) as path:
        shutil.copyfile(path, folder / f"{family.name}.yaml")


def _template_names(family: Family) -> list[str]:
    source = resources.files("metro_t0.demo").joinpath("templates", f"{family.name}.yaml")
    with resources.as_file(source) as path:
        return list(load_template_file(path))


def _mixture(rows: int) -> dict[str, Any]:
    tasks = []
    for family in TRAINED:
        names = [name for name in _template_names(family) if name != family.held_out_template]
        tasks.append({**_task(family), "train": f"rows/{family.name}.train.jsonl", "use": names})
    return {"name": "pydocs", "cap": rows, "check_choices": True, "validation_fraction": 0.02, "tasks": tasks}


def _suite() -> dict[str, Any]:
    tasks: list[dict[str, Any]] = []
    for family in HELD_OUT:
        tasks.append({"name": f"{family.name} (family not trained on)", **_task(family), "use": "all"})
    for family in TRAINED:
        if family.held_out_template:
            name = f"{family.name} (template not trained on)"
            tasks.append({"name": name, **_task(family), "use": [family.held_out_template]})
    for task in tasks:
        task["evaluation"] = f"rows/{task['dataset'].partition('/')[2]}.evaluation.jsonl"
    return {"name": "pydocs, held out", "tasks": tasks}


def _task(family: Family) -> dict[str, Any]:
    return {"dataset": f"pydocs/{family.name}", "templates": f"templates/{family.name}.yaml"}


def _write_rows(path: Path, rows: Iterable[Row]) -> None:
    lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_text("".join(lines), encoding="utf-8")


def _write_yaml(path: Path, content: dict[str, Any]) -> None:
    path.write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
