"""``metro-t0 mixture``: what is done with mixtures of tasks."""

from __future__ import annotations

import typer

from metro_t0.cli.mixture_build import build

mixture = typer.Typer(name="mixture", help="Mixtures of tasks under templates.", no_args_is_help=True)
mixture.command()(build)
