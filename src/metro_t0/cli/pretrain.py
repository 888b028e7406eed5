"""``metro-t0 pretrain``: a prepared corpus to a pretrained model."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metro_t0.cli.processes import is_main_process
from metro_t0.cli.stopping import stoppable

if TYPE_CHECKING:
    from metro_t0.config import PretrainConfig


def pretrain(
    data: Annotated[Path, typer.Option(metavar="DIR", help="Prepared corpus (metro-t0 prepare).")],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run directory to make, or to go on with.")],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as training.steps=1000."),
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="tiny, small, base-day, base, base++ or large++; with -t5 the baseline of each.",
        ),
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
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN|MODEL|PT",
            help="Start from these weights (same vocabulary): a run, a model folder, or a fairseq pretraining "
            "checkpoint (.pt).",
        ),
    ] = None,
) -> None:
    """Pretrain a model against an auxiliary model (METRO), or by span corruption (the -t5 presets).

    \b
    The smallest model, minutes on a CPU:
      metro-t0 pretrain --preset tiny --data prepared --out runs/tiny
    For ten minutes, at another learning rate, with curves in TensorBoard:
      metro-t0 pretrain --preset tiny --data prepared --out runs/ten --budget 10m \\
        optimizer.learning_rate=1e-3 training.trackers=[tensorboard]
    A run that was stopped:
      metro-t0 pretrain --resume --data prepared --out runs/tiny

    SIGTERM or Ctrl-C: the step is finished and saved, the exit code is 75, --resume goes on. Ctrl-C again: at once.
    """
    # What the interpreter took to come here is part of a time budget.
    started = time.monotonic() - time.process_time()
    from metro_t0.training.budget import budget_overrides

    settings = _settings(preset, config, budget_overrides(budget, overrides or []), out if resume else None)
    from rich.console import Console

    from metro_t0.training.run import pretrain as run_pretraining

    console = Console(stderr=True)
    with stoppable():
        run = run_pretraining(
            settings, data, out, resume=resume, init_from=init_from, console=console, started=started
        )
    if is_main_process():
        print(run)


def _settings(
    preset: str | None, config: Path | None, overrides: list[str], run: Path | None
) -> PretrainConfig:
    """From preset or file; from the run itself when it goes on and neither is given."""
    from metro_t0.config import load_pretrain_config

    if run is not None and preset is None and config is None:
        config = run / "config.yaml"
        if not config.is_file():
            raise ValueError(f"there is no run to resume in {run}: it has no config.yaml")
    if preset is None and config is None:
        raise ValueError("say what to train: --preset NAME or --config FILE")
    return load_pretrain_config(preset, config, overrides)
