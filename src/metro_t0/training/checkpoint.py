"""Checkpoints: written aside, made durable, renamed; so that one that is there is whole.

    folder = save_checkpoint(run / "checkpoints", step, model, optimizer, state, tokenizer)
    prune(run / "checkpoints", keep={25, 60})
    found = latest_checkpoint(run / "checkpoints")
    state = load_checkpoint(found, model, optimizer)

``step-N/`` holds the model as ``from_pretrained`` reads it (with its tokenizer), ``optimizer.pt`` and ``state.json``;
``best``, a small file beside them, names the step with the lowest validation loss.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from transformers import PreTrainedModel
from transformers.utils import logging

FORMAT_VERSION = 1
_STEP = re.compile(r"step-(\d+)")


class Saveable(Protocol):
    """A tokenizer, as far as a checkpoint needs one."""

    def save_pretrained(self, save_directory: str) -> Any: ...


def save_checkpoint(
    checkpoints: Path,
    step: int,
    model: PreTrainedModel,
    optimizer: torch.optim.Optimizer,
    state: Mapping[str, Any],
    tokenizer: Saveable | None = None,
) -> Path:
    """Write ``checkpoints/step-N`` durably; until it is whole it has another name.

    Args:
        checkpoints: the run's folder of checkpoints; made if need be.
        step: updates done.
        model: saved as safetensors.
        optimizer: its whole state is saved.
        state: plain values (JSON) of everything else that decides the future.
        tokenizer: saved beside the model, so that the checkpoint can be evaluated as it is.
    """
    checkpoints.mkdir(parents=True, exist_ok=True)
    remove_partial(checkpoints)
    aside = checkpoints / f".step-{step}.partial"
    aside.mkdir()
    save_model(model, aside, tokenizer)
    torch.save(optimizer.state_dict(), aside / "optimizer.pt")
    content = {"format_version": FORMAT_VERSION, "step": step, **state}
    (aside / "state.json").write_text(json.dumps(content, allow_nan=False), encoding="utf-8")
    make_durable(aside)
    final = checkpoints / f"step-{step}"
    if final.exists():
        shutil.rmtree(final)
    aside.rename(final)
    _sync(checkpoints)
    return final


def save_model(model: PreTrainedModel, folder: Path, tokenizer: Saveable | None) -> None:
    """Model and tokenizer into a folder that is there, as ``from_pretrained`` reads them."""
    with without_transformers_bars():
        model.save_pretrained(folder, max_shard_size="1000GB")
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))


@contextmanager
def without_transformers_bars() -> Iterator[None]:
    """transformers draws a bar of its own for every file that it reads or writes, across ours."""
    drew_bars = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if drew_bars:
            logging.enable_progress_bar()


def make_durable(folder: Path) -> None:
    """Wait until the folder's files are on the disk, so that a rename after it never shows an empty one."""
    for path in folder.rglob("*"):
        if path.is_file():
            _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_partial(checkpoints: Path) -> None:
    """Remove what a killed process left unfinished."""
    for folder in checkpoints.glob(".*.partial"):
        shutil.rmtree(folder, ignore_errors=True)


def steps_saved(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints that are there, ascending."""
    found = (_STEP.fullmatch(path.name) for path in checkpoints.glob("step-*"))
    return sorted(int(match[1]) for match in found if match)


def latest_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint of the highest step, if there is one."""
    steps = steps_saved(checkpoints)
    return checkpoints / f"step-{steps[-1]}" if steps else None


def prune(checkpoints: Path, keep: Collection[int]) -> None:
    """Remove all checkpoints but those of the steps to keep."""
    for step in steps_saved(checkpoints):
        if step not in keep:
            shutil.rmtree(checkpoints / f"step-{step}")


def write_best(checkpoints: Path, step: int) -> None:
    """Name the best checkpoint in the file ``best``."""
    aside = checkpoints / ".best.partial"
    aside.write_text(f"step-{step}\n", encoding="utf-8")
    _sync(aside)
    aside.replace(checkpoints / "best")


def best_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that the file ``best`` names, if there is one."""
    file = checkpoints / "best"
    return checkpoints / file.read_text(encoding="utf-8").strip() if file.is_file() else None


def read_state(folder: Path) -> dict[str, Any]:
    """The plain values of a checkpoint.

    Raises:
        ValueError: it has none, or they are of another format version.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not a checkpoint: its state.json cannot be read") from error
    if state.get("format_version") != FORMAT_VERSION:
        raise ValueError(
            f"{folder} has format version {state.get('format_version')}; this metro-t0 reads {FORMAT_VERSION}"
        )
    return state


def load_checkpoint(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's weights and optimizer state in place and give its plain values.

    Raises:
        ValueError: it is of a model of another shape, or cannot be read.
    """
    state = read_state(folder)
    load_weights(folder, model)
    try:
        saved = torch.load(folder / "optimizer.pt", map_location="cpu", weights_only=True)
        optimizer.load_state_dict(saved)
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{folder}: optimizer.pt cannot be used: {' '.join(str(error).split())}") from error
    return state


def load_weights(folder: Path, model: PreTrainedModel) -> None:
    """Read a checkpoint's weights into a model of exactly its shape.

    Raises:
        ValueError: shapes or names differ (the first is named), or the file cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    own = model.state_dict(keep_vars=True)
    file = folder / "model.safetensors"
    try:
        with safe_open(file, framework="pt") as stored, torch.no_grad():
            names = set(stored.keys())
            loaded = set()
            for name in sorted(names & set(own)):
                shape = list(stored.get_slice(name).get_shape())
                if shape != list(own[name].shape):
                    raise ValueError(
                        f"{folder} is a checkpoint of another shape: {name} is {shape} there and "
                        f"{list(own[name].shape)} in this configuration"
                    )
                own[name].copy_(stored.get_tensor(name))
                loaded.add(own[name].data_ptr())
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    # Tied weights are stored once, under one of their names.
    missing = [name for name, value in own.items() if name not in names and value.data_ptr() not in loaded]
    if differing := [*missing, *sorted(names - set(own))]:
        where = "in this configuration only" if missing else "in the checkpoint only"
        raise ValueError(f"{folder} is a checkpoint of another shape: {differing[0]} is {where}")
