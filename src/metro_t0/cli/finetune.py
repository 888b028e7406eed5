"""``metro-t0 finetune``: a pretrained model and a mixture of prompted tasks to a finetuned model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metro_t0.cli.processes import is_main_process
from metro_t0.cli.stopping import stoppable

if TYPE_CHECKING:
    from metro_t0.config import FinetuneConfig


def finetune(
    model: Annotated[
        Path, typer.Argument(metavar="MODEL", help="Run directory or model folder to start from.")
    ],
    mixture: Annotated[
        Path,
        typer.Option(
            metavar="NAME|FILE",
            help="t0, t0+, t0++, a mixture of your own (YAML), or a folder built from one.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run directory to make, or to go on with.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as training.steps=1000."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="finetune (the default) or finetune-tiny.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A configuration of your own instead of a preset.")
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            metavar="BUDGET",
            help="How long to train: a time (90s, 20m, 8h, 2d), tokens (500M-tokens) or steps (2000).",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in RUN after its newest whole checkpoint; with a preset or file, start it if "
            "need be. auto may follow.",
        ),
    ] = False,
) -> None:
    """Finetune a pretrained model on prompts; its auxiliary model and detection head are left behind.

    A published mixture (t0, t0+, t0++) is rendered from the Hub, with promptsource's templates; metro-t0 mixture build
    takes rows from a folder.

    \b
    A tiny model on a mixture of your own:
      metro-t0 finetune runs/tiny --mixture mixture.yaml --preset finetune-tiny --out runs/prompted
    The same for ten minutes:
      metro-t0 finetune runs/tiny --mixture mixture.yaml --preset finetune-tiny --out runs/ten --budget 10m
    The recipe for the published sizes, with a smaller batch:
      metro-t0 finetune runs/base --mixture mixture.yaml --out runs/prompted training.batch_tokens=131072

    SIGTERM or Ctrl-C: the step is finished and saved, the exit code is 75, --resume goes on. Ctrl-C again: at once.
    """
    # What the interpreter took to come here is part of a time budget.
    started = time.monotonic() - time.process_time()
    from metro_t0.training.budget import budget_overrides

    settings = _settings(preset, config, budget_overrides(budget, overrides or []), out if resume else None)
    from rich.console import Console

    from metro_t0.training.run import finetune as run_finetuning

    console = Console(stderr=True)
    with stoppable():
        run = run_finetuning(settings, model, mixture, out, resume=resume, console=console, started=started)
    if is_main_process():
        print(run)


def _settings(
    preset: str | None, config: Path | None, overrides: list[str], run: Path | None
) -> FinetuneConfig:
    """From preset or file; from the run itself when it goes on and neither is given."""
    from metro_t0.config import load_finetune_config

    if preset is None and config is None:
        if run is None:
            preset = "finetune"
        else:
            config = run / "config.yaml"
            if not config.is_file():
                raise ValueError(f"there is no run to resume in {run}: it has no config.yaml")
    return load_finetune_config(preset, config, overrides)
