"""A run's folder: refused when it holds something else, found again on ``--resume``, finished with ``model/``.

config.yaml        the configuration, resolved; format version first
environment.json   versions and machine facts
data_card.json     what the data was
metrics.jsonl      see metrics.py
samples.jsonl      see samples.py; a METRO run's
checkpoints/       see checkpoint.py
mixture/           a finetuning run's data, where the run built it
model/             the final model and its tokenizer, as from_pretrained reads them
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from metro_t0.config import FinetuneConfig, PretrainConfig, changed_settings, dump_config, read_config
from metro_t0.data.output import check_vacant, new_directory
from metro_t0.training.checkpoint import copy_model, make_durable

_LIBRARIES = (
    "metro-t0",
    "torch",
    "transformers",
    "datasets",
    "sentencepiece",
    "safetensors",
    "numpy",
    "pyarrow",
)


class RunDirectory:
    """One run's folder.

    Args:
        path: of the run.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.expanduser()
        self.config_file = self.path / "config.yaml"
        self.checkpoints = self.path / "checkpoints"
        self.model = self.path / "model"
        self.mixture = self.path / "mixture"

    def check_new(self) -> None:
        """Refuse a folder that holds something.

        Raises:
            ValueError: it does; says how to go on with a run.
        """
        if self.config_file.exists():
            raise ValueError(
                f"{self.path} already holds a run: continue it with --resume, or give another --out"
            )
        check_vacant(self.path)

    def begin(
        self,
        config: PretrainConfig | FinetuneConfig,
        measured: Mapping[str, Any],
        card: Mapping[str, Any],
        mixture: Path | None = None,
    ) -> None:
        """Write what is known before the first step and move a built mixture in; the folder appears whole."""
        with new_directory(self.path) as folder:
            _write_json(folder / "environment.json", environment())
            _write_json(folder / "data_card.json", card)
            (folder / "metrics.jsonl").touch()
            if mixture is not None:
                mixture.rename(folder / "mixture")
            (folder / "config.yaml").write_text(dump_config(config, measured), encoding="utf-8")

    def stored_config(self) -> PretrainConfig | FinetuneConfig:
        """The resolved configuration of a run to go on with.

        Raises:
            ValueError: there is no run here, or its configuration cannot be read.
        """
        if not self.config_file.is_file():
            raise ValueError(f"there is no run to resume in {self.path}: it has no config.yaml")
        return read_config(self.config_file)

    def finish(self, checkpoint: Path) -> None:
        """Write ``model/`` from the last checkpoint, whole or not at all."""
        with new_directory(self.model) as folder:
            copy_model(checkpoint, folder)
            # The model's folder says on its own what it was trained on.
            shutil.copy(self.path / "data_card.json", folder)
            make_durable(folder)


def check_unchanged(
    stored: PretrainConfig | FinetuneConfig, asked: PretrainConfig | FinetuneConfig, run: Path
) -> None:
    """Refuse to go on under another configuration.

    Raises:
        ValueError: names the first setting that differs.
    """
    if changes := changed_settings(stored, asked):
        path, before, now = changes[0]
        raise ValueError(
            f"{path} is {before} in {run} and {now} now: a resumed run keeps its configuration "
            "(start another run, with --init-from for its weights)"
        )


def environment() -> dict[str, Any]:
    """Versions and machine facts; nothing that names the machine or its folders."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            continue
    facts: dict[str, Any] = {
        "python": platform.python_version(),
        "versions": versions,
        "system": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        facts["gpus"] = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    if commit := _commit():
        facts["commit"] = commit
    return facts


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def _commit() -> str | None:
    """The commit of the checkout that the package runs from, if it does from one."""
    package = Path(sys.modules["metro_t0"].__file__ or "").parent
    if package.parent.name != "src":
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(package), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return found.stdout.strip() if found.returncode == 0 else None


def _write_json(path: Path, values: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
