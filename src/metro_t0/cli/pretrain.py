"""``metro-t0 pretrain``: a prepared corpus to a pretrained model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from metro_t0.cli.processes import is_main_process

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
            metavar="NAME", help="tiny, small, base, base++ or large++; with -t5 the baseline of each."
        ),
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A configuration of your own instead of a preset.")
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the run in RUN after its last checkpoint; with a preset or file, start it if need be.",
        ),
    ] = False,
    init_from: Annotated[
        Path | None, typer.Option(metavar="RUN|MODEL", help="Start from these weights (same vocabulary).")
    ] = None,
) -> None:
    """Pretrain a model against an auxiliary model (METRO), or by span corruption (the -t5 presets).

    \b
    The smallest model, minutes on a CPU:
      metro-t0 pretrain --preset tiny --data prepared --out runs/tiny
    For ten minutes, at another learning rate:
      metro-t0 pretrain --preset tiny --data prepared --out runs/ten training.budget_seconds=600 \\
        optimizer.learning_rate=1e-3
    A run that was stopped:
      metro-t0 pretrain --resume --data prepared --out runs/tiny
    """
    settings = _settings(preset, config, overrides or [], out if resume else None)
    from rich.console import Console

    from metro_t0.training.run import pretrain as run_pretraining

    run = run_pretraining(
        settings, data, out, resume=resume, init_from=init_from, console=Console(stderr=True)
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
