"""``metro-t0 analyze``: which units fire and which parameters matter, of one model or several side by side."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from metro_t0.cli.task_options import DataRootOption, TemplatesOption


class Loss(StrEnum):
    """Of which loss sensitivity is measured."""

    AUTO = "auto"
    PROMPTS = "prompts"
    SPAN_CORRUPTION = "span-corruption"
    OWN = "own"


def analyze(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL...", help="Run directories, model folders or Hub names, in the order to be shown."
        ),
    ],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for the page, its figures and the numbers.")
    ],
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR|FILE", help="Text: a folder of 'metro-t0 prepare' (its held-out part) or a file."
        ),
    ] = None,
    prompts: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE", help="Prompts: a suite or mixture, as 'metro-t0 evaluate' takes it."
        ),
    ] = None,
    templates: TemplatesOption = None,
    data_root: DataRootOption = None,
    loss: Annotated[
        Loss,
        typer.Option(
            help="Of which sensitivity is measured: the prompts' right answers, T5's span corruption on the text, or "
            "the model's own; auto is prompts where there are any, else span-corruption."
        ),
    ] = Loss.AUTO,
    rows: Annotated[int, typer.Option(metavar="N", help="Rows of text, and prompts, that are read.")] = 64,
    batch_tokens: Annotated[
        int, typer.Option(metavar="N", help="Tokens computed at once, and that one gradient is of.")
    ] = 4096,
    zeroed_layers: Annotated[
        int,
        typer.Option(
            metavar="N", help="Layers a stack whose parameters are zeroed as a check; 0 leaves it out."
        ),
    ] = 4,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the rows and of what the loss draws.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print analysis.json instead of a table.")] = False,
) -> None:
    """Measure neural activation and parameter sensitivity, the METRO-T0 paper's two analyses.

    Each model reads the same text and prompts with its own tokenizer. The folder gets analysis.html to look at,
    analysis.json, and each figure as an SVG file.

    \b
      metro-t0 analyze runs/pretrain --data prepared --out analysis
      metro-t0 analyze runs/metro runs/t5 --data prepared --prompts suite.yaml --data-root data --out side-by-side
      metro-t0 analyze runs/pretrain --data prepared --loss own --out own-loss
    """
    from rich.console import Console

    from metro_t0.analysis.analyze import AnalysisSettings, analyze_all
    from metro_t0.analysis.page import MOST_MODELS, write_analysis

    if len(models) > MOST_MODELS:
        raise ValueError(f"{len(models)} models do not go on one page: give at most {MOST_MODELS}")
    if out.exists() and not out.is_dir():  # said now, not after the work
        raise ValueError(f"cannot write {out}: it is a file, and the analysis is a folder")
    records = analyze_all(
        models,
        corpus=data,
        prompts=prompts,
        templates=templates,
        data_root=data_root,
        settings=AnalysisSettings(
            rows=rows, batch_tokens=batch_tokens, loss=loss.value, zeroed_layers=zeroed_layers, seed=seed
        ),
        console=Console(stderr=True),
    )
    try:
        write_analysis(records, out)
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror}") from error
    if as_json:
        print(
            json.dumps(
                {"format_version": records[0]["format_version"], "models": records}, ensure_ascii=False
            )
        )
        return
    console = Console()
    console.print(_table(records))
    console.print(f"look at {out / 'analysis.html'}", markup=False, highlight=False)


def _table(records: list[dict[str, Any]]) -> Any:
    """A line a model."""
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    from metro_t0.analysis.page import mean_share

    losses = " and ".join(dict.fromkeys(record["sensitivity"]["loss"] for record in records))
    table = Table(
        title=Text(f"Units that fire at a token, in %; sensitivity of the loss: {losses}"),
        box=SIMPLE,
        collapse_padding=True,
        pad_edge=False,
    )
    table.add_column("model", overflow="fold", min_width=10)
    sources = list(records[0]["activation"])
    for source in sources:
        for stack in ("encoder", "decoder"):
            table.add_column(f"{stack},\n{source}", justify="right", no_wrap=True)
    for heading in ("Gini", "half\nin, %", "rank,\nzeroed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for record in records:
        overall, ranks = record["sensitivity"]["overall"], record["sensitivity"]["rank_correlation"]
        rank = ranks["mass"] if ranks else None
        table.add_row(
            Text(record["model"]["name"]),
            *(
                f"{100 * mean_share(record, source, stack):.1f}"
                for source in sources
                for stack in ("encoder", "decoder")
            ),
            f"{overall['gini']:.3f}",
            f"{100 * overall['share_for_half']:.2f}",
            "–" if rank is None else f"{rank:+.2f}",
        )
    return table
