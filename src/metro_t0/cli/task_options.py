"""Options by which commands find mixtures and suites, and the rows and templates of their tasks."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

MixtureArgument = Annotated[
    str, typer.Argument(metavar="NAME|FILE", help="t0, t0+, t0++, or a mixture of your own (YAML).")
]
TemplatesOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Templates, instead of those of the file, METRO_T0_TEMPLATES or an unpacked promptsource.",
    ),
]
DataRootOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Rows, as DIR/DATASET/SUBSET/SPLIT.jsonl.gz (SUBSET: default where there is none), instead of the Hub.",
    ),
]
CapOption = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help="Examples of a dataset in an epoch: metro (500000), t0 (500000 for larger datasets only), N, or none.",
    ),
]
