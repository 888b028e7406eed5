"""``metro-t0 convert``: a run or a checkpoint to a folder that others can load."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer


class Target(StrEnum):
    """What to make."""

    HUB = "hub"
    PUBLISHED = "published"


def convert(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="SOURCE",
            help="Run directory, checkpoint (RUN/checkpoints/step-N), model folder (ours or published), or an official "
            "pretraining checkpoint (.pt).",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make.")],
    to: Annotated[
        Target,
        typer.Option(
            help="hub: a folder that transformers runs without metro-t0. published: the format of the published "
            "METRO-T0 models."
        ),
    ] = Target.HUB,
    tokenizer: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The model's tokenizer, where SOURCE holds none."),
    ] = None,
) -> None:
    """Make a folder that others can load: for the Hub, or in the format of the published METRO-T0 models.

    \b
      metro-t0 convert runs/finetune --out my-model
      metro-t0 convert runs/finetune --to published --out as-published
    """
    from metro_t0.data.output import check_vacant
    from metro_t0.sharing.export import export_model
    from metro_t0.sharing.published_format import write_published
    from metro_t0.sharing.source import read_source

    check_vacant(out)
    found = read_source(source, tokenizer)
    if to is Target.PUBLISHED:
        write_published(found, out)
    else:
        export_model(found, out, "")
    print(out)
