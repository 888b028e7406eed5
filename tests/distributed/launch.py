"""Start a program on several processes of this machine, for real."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def torchrun(
    processes: int, *program: str | Path, restarts: int = 0, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """``torchrun`` with a free port of its own; ``program`` as it follows its options."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += ["--nproc-per-node", str(processes), "--max-restarts", str(restarts)]
    return subprocess.run(
        [*command, *map(str, program)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
    )


def metro_t0(
    processes: int, *arguments: str | Path, folder: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """The command on several processes."""
    return torchrun(processes, "-m", "metro_t0.cli.main", *arguments, folder=folder)


def said_by_command(finished: subprocess.CompletedProcess[str]) -> list[str]:
    """The command's own lines on standard error, without torchrun's."""
    return [line for line in finished.stderr.splitlines() if line.startswith("metro-t0: ")]
