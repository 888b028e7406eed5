"""A virtual environment that has transformers, torch, sentencepiece and what they require, and nothing else.

Its packages are links to those of the environment that runs the tests, so that it takes no network and no room.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import venv
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

WANTED = ("transformers", "torch", "sentencepiece")


def make_environment(folder: Path) -> Path:
    """Make the environment; gives its interpreter."""
    venv.create(folder, with_pip=False, symlinks=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    waiting, seen = list(WANTED), set[str]()
    while waiting:
        name = re.sub(r"[-_.]+", "-", waiting.pop()).lower()
        if name in seen:
            continue
        seen.add(name)
        try:
            found = distribution(name)
        except PackageNotFoundError:  # of another system or Python version
            continue
        waiting += [
            re.split(r"[^\w.-]", needed)[0] for needed in found.requires or [] if "extra ==" not in needed
        ]
        for file in found.files or []:
            top = file.parts[0]
            if top not in ("..", "__pycache__") and not (packages / top).exists():
                (packages / top).symlink_to(Path(str(found.locate_file(top))).resolve())
    return folder / "bin" / "python"


def run_fresh(python: Path, code: str, folder: Path, *arguments: str) -> str:
    """Standard output of a script in that environment, in a folder of its own and without the network."""
    folder.mkdir(exist_ok=True)
    environment = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [python, "-I", "-c", code, *arguments],
        capture_output=True,
        text=True,
        env={**environment, "PATH": os.defpath},
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


if __name__ == "__main__":
    print(make_environment(Path(sys.argv[1])))
