"""``metro-t0 report``: one page that shows what ran and what came out."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    runs: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[RUN]...", help="Run directories, in the order to be shown."),
    ] = None,
    evaluation: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Results of 'metro-t0 evaluate'; default: evaluation/ in the last run."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The page; default: report.html in the last run.")
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="Name of the page.")] = "METRO-T0 report",
) -> None:
    """Write one self-contained HTML page: training curves, accuracy beside chance, examples, settings.

    \b
      metro-t0 report runs/pretrain
      metro-t0 report runs/pretrain runs/finetune --evaluation results --out report.html
    """
    from metro_t0.evaluation.report import write_report

    folders = runs or []
    last = folders[-1] if folders else evaluation
    if last is None:
        raise ValueError("nothing to report: give at least one run directory, or --evaluation DIR")
    if evaluation is None and (last / "evaluation" / "results.json").is_file():
        evaluation = last / "evaluation"
    print(write_report(folders, out or last / "report.html", evaluation=evaluation, title=title))
