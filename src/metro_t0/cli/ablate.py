"""``metro-t0 ablate``: design choices against each other, as one table and one page."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metro_t0.cli.stopping import stoppable
from metro_t0.cli.task_options import DataRootOption, TemplatesOption

if TYPE_CHECKING:
    from metro_t0.study.preparation import PreparedStudy


class Keep(StrEnum):
    """What remains of a recorded run's folder."""

    MODELS = "models"
    NOTHING = "nothing"


def ablate(
    out: Annotated[Path, typer.Option(metavar="DIR", help="The study's folder, to make or to go on with.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]...", help="Settings of training for every run, such as training.threads=1."
        ),
    ] = None,
    preset: Annotated[str | None, typer.Option(metavar="NAME", help="metro-vs-t5 or paper-axes.")] = None,
    study: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A study of your own instead of a preset.")
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Prepared corpus (metro-t0 prepare); without it nothing is run."),
    ] = None,
    data_root: DataRootOption = None,
    templates: TemplatesOption = None,
    budget: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="About how long it may take in all, one process (30m, 4h)."),
    ] = None,
    keep: Annotated[Keep, typer.Option(help="Of a run that is recorded.")] = Keep.MODELS,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the runs; write nothing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the table as JSON.")] = False,
) -> None:
    """Run a study: a recipe, what is changed about it, and each change's effect, with its noise.

    Each run is pretrained, finetuned and ranked, and leaves one record; the same command goes on after it was
    stopped. Start it in several shells, as a Slurm array or by torchrun, and they share the runs. Without --data,
    table and page are made from the records that are there.

    \b
      metro-t0 ablate --preset metro-vs-t5 --data prepared --data-root data --templates templates --out study
      metro-t0 ablate --study mine.yaml --data prepared --out study --budget 2h training.threads=1
      metro-t0 ablate --out study

    Exit code 1 when a run failed. SIGTERM, or Ctrl-C in training: the run that is under way is saved, the exit code is
    75.
    """
    if data is None:
        if any((preset, study, overrides, budget, dry_run)):
            raise ValueError(
                "a study needs its corpus: give --data (without it, only the records are looked at)"
            )
        failed = _show(out, as_json)
        raise typer.Exit(1 if failed else 0)
    if (preset is None) == (study is None):
        raise ValueError("say which study: --preset NAME or --study FILE")
    from rich.console import Console

    from metro_t0.launcher import LaunchedProcess
    from metro_t0.study.preparation import StudySettings, preview_study
    from metro_t0.study.runner import run_study
    from metro_t0.study.study_file import load_study, with_overrides
    from metro_t0.training.budget import parse_seconds

    process = LaunchedProcess.from_environment()
    process.work_alone()
    the_study = with_overrides(load_study(study or preset or ""), overrides or [])
    settings = StudySettings(
        data_root=data_root,
        templates=templates,
        budget_seconds=None if budget is None else parse_seconds(budget),
        keep=keep.value,
    )
    console = Console(stderr=True)
    with stoppable("the same command"):
        if dry_run:
            _show_plan(preview_study(the_study, data, out, settings, console))
            return
        outcome = run_study(the_study, data, out, settings, console)
    if outcome.elsewhere:
        console.print(f"{len(outcome.elsewhere)} runs are being made by other processes", highlight=False)
    failed = _show(out, as_json)
    # torchrun ends all of its processes when one says that it failed; the last one says it.
    raise typer.Exit(1 if failed and not (process.size > 1 and outcome.elsewhere) else 0)


def _show(out: Path, as_json: bool) -> bool:
    """Table and page of the records that are there; whether a run failed."""
    import json

    from rich.console import Console

    from metro_t0.study.comparison import compare_study
    from metro_t0.study.outputs import terminal_tables, write_outputs

    comparison = compare_study(out)
    write_outputs(comparison, out)
    if as_json:
        print(json.dumps(comparison.as_values(), indent=2, ensure_ascii=False))
    else:
        # In a pipe there is no width to keep to.
        console = Console(width=None if sys.stdout.isatty() else 120)
        for table in terminal_tables(comparison):
            console.print(table)
        print(out / "index.html")
    return bool(comparison.failed)


def _show_plan(prepared: PreparedStudy) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("run", "tokens", "operations", title=prepared.study.name)
    for run in prepared.plan.runs:
        table.add_row(run.name, f"{run.tokens:,}", f"{run.flops:.2e}")
    Console().print(table)
    for size, axis, value in prepared.plan.same_as_base:
        print(f"{size}: {axis} {value} is what the base has already")
