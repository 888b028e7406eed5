"""The ``metro-t0`` command: one verb a file in this folder, each a thin layer over the library.

A user's mistake (``ValueError`` from the library) is one line on standard error and exit code 2.
"""

from __future__ import annotations

import sys
from itertools import pairwise

import typer

from metro_t0.cli.ablate import ablate
from metro_t0.cli.analyze import analyze
from metro_t0.cli.convert import convert
from metro_t0.cli.demo import demo
from metro_t0.cli.evaluate import evaluate
from metro_t0.cli.finetune import finetune
from metro_t0.cli.generate import generate
from metro_t0.cli.mixture import app as mixture_app
from metro_t0.cli.models import models
from metro_t0.cli.plan import plan
from metro_t0.cli.prepare import prepare
from metro_t0.cli.pretrain import pretrain
from metro_t0.cli.processes import is_main_process
from metro_t0.cli.rank import rank
from metro_t0.cli.report import report
from metro_t0.cli.serve import serve
from metro_t0.cli.tokenizer import app as tokenizer

app = typer.Typer(
    name="metro-t0",
    help="From raw text to a zero-shot text-to-text model.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for verb in (
    demo,
    prepare,
    pretrain,
    finetune,
    evaluate,
    rank,
    generate,
    serve,
    report,
    ablate,
    analyze,
    plan,
    convert,
    models,
):
    app.command()(verb)
app.add_typer(tokenizer, name="tokenizer")
app.add_typer(mixture_app, name="mixture")


def main() -> None:
    """Run the command line; the console script's entry point."""
    words = pairwise(["", *sys.argv[1:]])
    try:
        # Schedulers' scripts often say which checkpoint: --resume auto. There is no other.
        app([word for before, word in words if (before, word) != ("--resume", "auto")])
    except ValueError as error:
        if is_main_process():
            print(f"metro-t0: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


if __name__ == "__main__":
    main()
