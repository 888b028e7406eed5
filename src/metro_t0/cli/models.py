"""``metro-t0 models``: what the authors have published, and how well it does."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from metro_t0.evaluation.published_models import PublishedModel


def models(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """List the nine published METRO-T0 models: sizes, mixtures, Hub names, and zero-shot scores on T0 Eval.

    \b
      metro-t0 models
      metro-t0 generate gonglinyuan/metro_t0pp_basepp "Is fire cold? Yes or no?"
    """
    from metro_t0.evaluation.published_models import published_models

    found = published_models()
    if as_json:
        print(json.dumps([_plain(model) for model in found], indent=2))
        return
    _print_tables(found)


def _plain(model: PublishedModel) -> dict[str, Any]:
    return {**dataclasses.asdict(model), "supervised": sorted(model.supervised)}


def _print_tables(found: list[PublishedModel]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table(title="Published METRO-T0 models", box=SIMPLE)
    for heading in ("on the Hub", "size", "mixture"):
        table.add_column(heading, no_wrap=True)
    for heading in ("parameters", "vocabulary"):
        table.add_column(heading, justify="right", no_wrap=True)
    for model in found:
        row = (f"{model.parameters / 1e6:.1f} M", f"{model.vocabulary:,}")
        table.add_row(model.hub_id, model.size, model.mixture, *row)
    console.print(table)
    # Nine columns of scores fill a line of 80 characters: no room for padding.
    scores = Table(title="T0 Eval: zero-shot accuracy in %", box=SIMPLE, padding=0, show_edge=False)
    scores.add_column("", no_wrap=True)
    for model in found:
        scores.add_column(f"{model.size}\n{model.mixture}", justify="right", no_wrap=True)
    for task in found[0].scores:
        scores.add_row(task, *(_percent(model.scores[task]) for model in found))
    scores.add_row("average", *(_percent(model.average) for model in found))
    console.print(scores)
    console.print("\nFrom the model cards, the last rows of some from the paper (arXiv 2305.12567).")
    console.print("The base checkpoints are other runs than the paper's; – was not at hand.")


def _percent(score: float | None) -> str:
    return "–" if score is None else f"{score:.2f}"
