"""``metro-t0 mixture build``: a mixture's tasks, rendered and tokenized, as a folder to finetune on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from metro_t0.cli.task_options import CapOption, DataRootOption, MixtureArgument, TemplatesOption


def build(
    mixture: MixtureArgument,
    tokenizer: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder of the model's tokenizer, or a model with its own.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; must not hold anything yet.")],
    templates: TemplatesOption = None,
    data_root: DataRootOption = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Leave out tasks whose rows are not there.")
    ] = False,
    cap: CapOption = None,
    max_input_length: Annotated[
        int, typer.Option(metavar="N", help="The most tokens of an input, <s> and </s> included.")
    ] = 512,
    max_target_length: Annotated[
        int, typer.Option(metavar="N", help="The most tokens of a target, </s> included.")
    ] = 512,
    drop_long: Annotated[
        bool,
        typer.Option(
            "--drop-long", help="Drop examples longer than that, as METRO-T0 did, instead of cutting."
        ),
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Of datasets beyond their cap, render only the rows that so many epochs visit (else all rows).",
        ),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of the held-out rows and of what templates draw.")
    ] = 0,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="How many render and tokenize; all cores unless given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the card as JSON instead of a table.")
    ] = False,
) -> None:
    """Render and tokenize a mixture into a folder that `metro-t0 finetune --mixture` reads.

    \b
      metro-t0 mixture build mixture.yaml --tokenizer runs/pretrain/model --out prompted
    What of T0's mixture a folder holds:
      metro-t0 mixture build t0 --data-root data --allow-missing --tokenizer DIR --out t0-mixture
    As METRO-T0 did, for a run of two epochs:
      metro-t0 mixture build t0 --tokenizer DIR --out prompted --drop-long --epochs 2

    The folder holds card.json, card.md and examples.jsonl to look at. A run that was interrupted goes on where it was
    when the same command is given again; the result is the same, on any number of processes.
    """
    from rich.console import Console

    from metro_t0.prompts.mixture import load_mixture
    from metro_t0.tokenization.inspection import open_tokenizer

    loaded = load_mixture(
        mixture, templates=templates, data_root=data_root, cap=cap, allow_missing=allow_missing
    )
    data = loaded.build(
        open_tokenizer(tokenizer),
        out,
        max_input_length=max_input_length,
        max_target_length=max_target_length,
        drop_long=drop_long,
        epochs=epochs,
        seed=seed,
        processes=processes,
        console=Console(stderr=True),
    )
    if as_json:
        print(json.dumps({"path": str(out), **data.card}, indent=2, ensure_ascii=False))
    else:
        _print_card(out, data.card)


def _print_card(out: Path, card: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Built mixture {out}")
    for heading in ("task", "rows", "templates", "examples", "dropped", "cut"):
        table.add_column(heading, justify="left" if heading == "task" else "right")
    for task in card["tasks"]:
        counts = [entry["train"] for entry in card["templates"] if entry["task"] == task["name"]]
        cells = (
            task["rows"]["train"],
            len(counts),
            sum(of_template["examples"] for of_template in counts),
            sum(sum(of_template["dropped"].values()) for of_template in counts),
            sum(of_template["truncated_inputs"] + of_template["truncated_targets"] for of_template in counts),
        )
        table.add_row(task["name"], *(f"{number:,}" for number in cells))
    console = Console()
    console.print(table)
    for split, checksum in card["checksums"].items():
        console.print(f"checksum of {split}: {checksum}", highlight=False)
    if card["missing"]:
        console.print(f"left out, rows missing: {', '.join(card['missing'])}", highlight=False)
