"""``metro-t0 report``: one page that shows what ran and what came out, and how evaluations differ."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from metro_t0.evaluation.compare import ComparedEvaluations, Difference, RunSpread


def report(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[RUN|RESULTS]...",
            help="Run directories and folders of 'metro-t0 evaluate', in the order to be shown.",
        ),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Results of 'metro-t0 evaluate'; default, where no other are given: evaluation/ in the last run.",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The page; default: report.html in the last folder, comparison.html for several evaluations.",
        ),
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Name of the page.")] = "METRO-T0 report",
    published: Annotated[
        list[str] | None,
        typer.Option(
            metavar="MODEL",
            help="Published row to show at first beside yours, such as 'METRO-T0 BASE' (T0 Eval); may be repeated.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison of two or more evaluations as JSON.")
    ] = False,
) -> None:
    """Write one self-contained HTML page: curves, accuracy beside chance and published scores, single predictions.

    Two evaluations are compared over the rows that both have, by a paired bootstrap: the page and a table say how far
    the second is from the first and which tasks moved. Of three and more, each is compared with the first, and their
    spread is shown, as over seeds.

    \b
      metro-t0 report runs/pretrain
      metro-t0 report runs/pretrain runs/finetune --evaluation results --out report.html
      metro-t0 report results/a results/b --out comparison.html
    """
    from metro_t0.evaluation.compare import compare_all
    from metro_t0.evaluation.published_scores import SHOWN_AT_FIRST
    from metro_t0.evaluation.records import is_evaluation, read_evaluation
    from metro_t0.evaluation.report.page import evaluation_labels, write_report

    given = folders or []
    # A folder that is both, a run with results in it, is shown as both.
    runs = [folder for folder in given if not is_evaluation(folder) or (folder / "metrics.jsonl").is_file()]
    evaluations = [folder for folder in given if is_evaluation(folder)]
    if evaluation is not None:
        evaluations.append(evaluation)
    if not given and not evaluations:
        raise ValueError("nothing to report: give at least one run directory, or --evaluation DIR")
    if not evaluations and is_evaluation(given[-1] / "evaluation"):
        evaluations = [given[-1] / "evaluation"]
    if as_json and len(evaluations) < 2:
        raise ValueError("--json prints a comparison: give two or more folders of 'metro-t0 evaluate'")
    several = len(evaluations) > 1
    page = out or (given or evaluations)[-1] / ("comparison.html" if several else "report.html")
    compared = None
    if several:
        records = [read_evaluation(folder) for folder in evaluations]
        compared = compare_all(records, evaluation_labels(records))
    write_report(
        runs,
        page,
        evaluation=evaluations,
        title=title,
        published=SHOWN_AT_FIRST if published is None else published,
        compared=compared,
    )
    if as_json:
        assert compared is not None
        print(json.dumps({"report": str(page), **_as_json(compared)}, indent=2, ensure_ascii=False))
        return
    if compared is not None:
        _print_comparison(compared)
    print(page)


def _as_json(compared: ComparedEvaluations) -> dict[str, Any]:
    """Accuracies and differences 0-1, second minus first."""
    first, *others = compared.labels
    return {
        "comparisons": [
            {
                "first": first,
                "second": label,
                "overall": _difference(comparison.overall) if comparison.overall else None,
                "tasks": [_difference(task) for task in comparison.tasks],
                "notes": comparison.notes,
            }
            for label, comparison in zip(others, compared.comparisons, strict=True)
        ],
        "spread": [dataclasses.asdict(spread) for spread in compared.spread],
    }


def _difference(difference: Difference) -> dict[str, Any]:
    return {**dataclasses.asdict(difference), "moved": difference.moved}


def _print_comparison(compared: ComparedEvaluations) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from metro_t0.evaluation.report.comparison_view import comparison_statement

    console = Console()
    first, *others = compared.labels
    for label, comparison in zip(others, compared.comparisons, strict=True):
        table = Table(title=Text(f"{label} against {first}: accuracy in %"), box=SIMPLE)
        table.add_column("task", overflow="fold")
        for heading in ("rows", first, label, "difference", "95 % interval"):
            table.add_column(Text(heading), justify="right")
        table.add_column("moved")
        for task in comparison.tasks:
            table.add_row(Text(task.task), f"{task.rows:,}", *_cells(task))
        if comparison.overall:
            table.add_section()
            table.add_row(f"mean over {len(comparison.tasks)}", "", *_cells(comparison.overall))
            console.print(table)
        for note in comparison.notes:
            console.print(note, markup=False, soft_wrap=True)
        if comparison.overall:
            console.print(
                f"{comparison_statement(first, label, comparison.overall)}.", markup=False, soft_wrap=True
            )
    if compared.spread:
        table = Table(title=f"Spread over {len(compared.labels)} evaluations: accuracy in %", box=SIMPLE)
        table.add_column("task", overflow="fold")
        for heading in ("mean", "standard deviation", "lowest", "highest"):
            table.add_column(heading, justify="right")
        for spread in compared.spread:
            name = Text(f"mean over {len(compared.spread) - 1}" if spread.task is None else spread.task)
            table.add_row(name, *_spread_cells(spread))
        console.print(table)


def _cells(difference: Difference) -> tuple[str, ...]:
    from metro_t0.evaluation.report.comparison_view import points_text

    low, high = (points_text(end) for end in difference.interval)
    return (
        f"{100 * difference.first:.1f}",
        f"{100 * difference.second:.1f}",
        points_text(difference.difference),
        f"{low} to {high}",
        ("up" if difference.difference > 0 else "down") if difference.moved else "",
    )


def _spread_cells(spread: RunSpread) -> tuple[str, ...]:
    values = (spread.mean, spread.standard_deviation, spread.lowest, spread.highest)
    return tuple(f"{100 * value:.1f}" for value in values)
