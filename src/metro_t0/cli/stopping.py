"""How a command ends that was stopped: the exit code that a scheduler requeues on, or at once.

with stoppable():
    run = pretrain(...)
with quiet_end():
    print(...)         # in a pipe
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from metro_t0.cli.processes import is_main_process
from metro_t0.training.interruption import STOPPED_EXIT_CODE, RunStoppedError


@contextmanager
def stoppable(goes_on: str = "the same command with --resume") -> Iterator[None]:
    """Turn a run's stop into one line, which says what goes on with it, and an exit code."""
    try:
        yield
    except RunStoppedError as stopped:
        if is_main_process():
            print(f"metro-t0: {stopped}: {goes_on} goes on", file=sys.stderr)
        raise typer.Exit(STOPPED_EXIT_CODE) from None
    except KeyboardInterrupt:
        print("metro-t0: stopped at once; what is not in a checkpoint is lost", file=sys.stderr, flush=True)
        # A save that is under way would keep the process until it is written. It has another name until it is whole.
        os._exit(130)


@contextmanager
def quiet_end() -> Iterator[None]:
    """End without a word on Ctrl-C (exit code 130), or when nobody reads standard output any more (141)."""
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
    except BrokenPipeError:
        # Python flushes standard output once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(141) from None
