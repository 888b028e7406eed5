"""The ``metro-t0`` command, whose process of rank 1 is killed with SIGKILL in its first life before step 6."""

from __future__ import annotations

import os
import signal
from typing import Any

from metro_t0.cli.main import main
from metro_t0.training.update import StepTally, Updater

run = Updater.run


def run_or_die(updater: Updater, step: int, *arguments: Any) -> StepTally:
    if step == 6 and os.environ["RANK"] == "1" and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        os.kill(os.getpid(), signal.SIGKILL)
    return run(updater, step, *arguments)


Updater.run = run_or_die  # type: ignore[method-assign]
main()
