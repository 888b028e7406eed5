"""Shared fixtures: METRO_T0_GOLDEN and METRO_T0_DATA name folders of outside cases; without them those tests skip."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Two test processes on two cores: one thread each, here and in what they start, is fastest.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import pytest

# A shell starts what runs in its background with Ctrl-C ignored, and so would be the commands that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"{variable} is not set")
    return Path(value)


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the official implementation's answers."""
    return _folder("METRO_T0_GOLDEN")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of real text, tasks, templates and vocabularies."""
    return _folder("METRO_T0_DATA")


@pytest.fixture
def small_disk(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A file system of eight megabytes, or of the test's parameter, where the system lets us make one."""
    disk = tmp_path / "disk"
    disk.mkdir()
    size = f"size={getattr(request, 'param', 8)}m"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", size, "tmpfs", str(disk)], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.strip()}")
    yield disk
    # Files that a test opened there may still be mapped.
    subprocess.run(["umount", "--lazy", str(disk)], check=True)
