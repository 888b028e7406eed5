"""``metro-t0 mixture``: what a mixture of prompted tasks holds, and what is wrong with it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metro_t0.cli.mixture_build import build
from metro_t0.cli.task_options import CapOption, DataRootOption, MixtureArgument, TemplatesOption

if TYPE_CHECKING:
    from metro_t0.prompts.mixture import Mixture
    from metro_t0.prompts.mixture_check import Problem, Sample
    from metro_t0.prompts.mixture_plan import MixturePlan

app = typer.Typer(help="Mixtures of prompted tasks: what they hold, and what is wrong.", no_args_is_help=True)

app.command()(build)


@app.callback()
def mixture() -> None:
    """Mixtures of prompted tasks: show plans an epoch, check renders an example of each template, build makes a folder
    to finetune on.

    \b
      metro-t0 mixture show t0
      metro-t0 mixture check mixture.yaml
    """


@app.command()
def show(
    mixture: MixtureArgument,
    cap: CapOption = None,
    templates: TemplatesOption = None,
    data_root: DataRootOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Print what an epoch holds: rows, templates, caps, and the share of each kind of task. Downloads nothing.

    \b
    The mixture of the paper, by the train sizes that its file states:
      metro-t0 mixture show t0
    What of it a folder holds, its files counted:
      metro-t0 mixture show t0 --data-root data
    By the original T0's rule for caps, for machines:
      metro-t0 mixture show t0++ --cap t0 --json
    """
    from metro_t0.prompts.mixture import load_mixture
    from metro_t0.prompts.mixture_plan import plan_mixture

    loaded = load_mixture(mixture, templates=templates, data_root=data_root, cap=cap, allow_missing=True)
    with _progress("Counting rows", loaded) as advance:
        plan = plan_mixture(loaded, looked=data_root is not None, advance=advance)
    if as_json:
        print(json.dumps(plan.as_json(), indent=2, ensure_ascii=False))
    else:
        _print_plan(plan)


@app.command()
def check(
    mixture: MixtureArgument,
    templates: TemplatesOption = None,
    data_root: DataRootOption = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Look at the tasks whose rows are there.")
    ] = False,
    online: Annotated[
        bool, typer.Option("--online", help="Load a row of each dataset from the Hub instead.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Render an example of each template, show them, and name each broken template with its file and line.

    \b
    A mixture of your own:
      metro-t0 mixture check mixture.yaml
    What of T0's mixture a folder holds:
      metro-t0 mixture check t0 --data-root data --allow-missing
    Whether the Hub has the columns and classes that the templates use:
      metro-t0 mixture check t0 --online

    The exit code is 2 when anything is wrong.
    """
    from metro_t0.prompts.mixture import load_mixture

    if online and data_root is not None:
        raise ValueError("--online looks at the Hub: leave --data-root out")
    loaded = load_mixture(
        mixture, templates=templates, data_root=data_root, allow_missing=allow_missing or online
    )
    wrong = _check_online(loaded, as_json) if online else _check_rows(loaded, as_json)
    if wrong:
        raise typer.Exit(2)


def _check_rows(mixture: Mixture, as_json: bool) -> int:
    from metro_t0.prompts.mixture_check import check_mixture

    with _progress("Rendering", mixture) as advance:
        samples, problems = check_mixture(mixture, advance=advance)
    if as_json:
        print(json.dumps(_check_json(mixture, samples, problems), indent=2, ensure_ascii=False))
    else:
        _print_samples(samples)
        for problem in problems:
            print(problem)
        missing = f", {len(mixture.missing)} datasets missing" if mixture.missing else ""
        print(f"{len(samples)} templates give examples, {len(problems)} problems{missing}")
    return len(problems)


def _check_online(mixture: Mixture, as_json: bool) -> int:
    from rich.console import Console

    from metro_t0.prompts.mixture_check import check_online

    rows = []
    with _progress("Loading a row of each", mixture) as advance:
        for row in check_online(mixture):
            rows.append(row)
            advance(row.task.name)
    wrong = sum(bool(row.problem) for row in rows)
    if as_json:
        entries = [
            {
                "name": row.task.name,
                "hub": row.hub,
                "there": row.there,
                "needed": row.needed,
                "problem": row.problem,
            }
            for row in rows
        ]
        print(json.dumps({"datasets": entries, "problems": wrong}, indent=2, ensure_ascii=False))
        return wrong
    table = _table("What the Hub has", "dataset", "on the Hub", "columns there", "columns needed", "")
    for row in rows:
        cells = (row.task.name, row.hub or "-", ", ".join(row.there), ", ".join(row.needed))
        table.add_row(*map(_plain, (*cells, "wrong" if row.problem else "ok")))
    Console().print(table)
    for row in rows:
        if row.problem:
            print(f"{row.task.name}: {row.problem}")
    print(f"{len(rows) - wrong} of {len(rows)} datasets are as the templates need them")
    return wrong


def _print_plan(plan: MixturePlan) -> None:
    from rich.console import Console

    console = Console()
    headings = ("dataset", "kind", "rows", "templates", "cap a template", "rows an epoch", "share")
    table = _table(f"Mixture {plan.mixture.name}, cap {plan.mixture.cap_rule}", *headings)
    for column in table.columns[2:]:
        column.justify = "right"
    total = max(1, plan.rows_per_epoch)
    for planned in plan.present:
        epoch = planned.rows_per_epoch
        name = planned.task.name + ("" if planned.task.weight == 1 else f" (weight {planned.task.weight:g})")
        cap = "-" if planned.template_cap is None else f"{planned.template_cap:,}"
        rows = "unknown" if planned.rows is None else f"{planned.rows:,}"
        cells = (name, planned.kind, rows, str(len(planned.task.templates)), cap)
        table.add_row(
            *map(_plain, cells),
            "unknown" if epoch is None else f"{epoch:,}",
            "" if epoch is None else f"{epoch / total:.1%}",
        )
    table.add_section()
    table.add_row(
        f"{plan.datasets} datasets", "", "", f"{plan.templates}", "", f"{plan.rows_per_epoch:,}", ""
    )
    console.print(table)
    kinds = _table("Kinds of task", "kind", "share of an epoch")
    kinds.columns[1].justify = "right"
    for kind, share in plan.shares().items():
        kinds.add_row(_plain(kind), f"{share:.1%}")
    console.print(kinds)
    missing = [planned.task.name for planned in plan.tasks if planned.missing]
    if missing:
        print(f"missing, and left out: {', '.join(missing)}; caps are as in the whole mixture")


def _print_samples(samples: list[Sample]) -> None:
    from rich.console import Console

    table = _table("One example of each template", "dataset", "template", "input", "target")
    for sample in samples:
        made = sample.rendered
        cells = (sample.task.name, sample.template.name, _short(made.input, 160), _short(made.target, 60))
        table.add_row(*map(_plain, cells))
    if samples:
        Console().print(table)


def _check_json(mixture: Mixture, samples: list[Sample], problems: list[Problem]) -> dict[str, Any]:
    return {
        "name": mixture.name,
        "missing": mixture.missing,
        "samples": [
            {
                "task": sample.task.name,
                "template": sample.template.name,
                "row": sample.row,
                "input": sample.rendered.input,
                "target": sample.rendered.target,
                "answer_choices": sample.rendered.answer_choices,
            }
            for sample in samples
        ],
        "problems": [
            {
                "task": problem.task.name,
                "template": problem.template.name if problem.template else None,
                "origin": problem.template.origin if problem.template else None,
                "message": problem.message,
            }
            for problem in problems
        ],
    }


@contextmanager
def _progress(doing: str, mixture: Mixture) -> Iterator[Callable[[str], None]]:
    """A bar on standard error over a mixture's tasks, moved on by their names."""
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task(doing, total=len(mixture.tasks) + len(mixture.absent))
        yield lambda name: progress.update(bar, advance=1, description=f"{doing}: {name}")


def _table(title: str, *headings: str) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    return table


def _plain(text: str) -> str:
    """Text as it stands: square brackets are no markup."""
    from rich.markup import escape

    return escape(text)


def _short(text: str, most: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= most else line[: most - 3] + "..."
