"""Checkpoints: what one holds, which of them are whole, and how a run goes on from one. Written by saving.py.

    checkpoint = newest_whole(run / "checkpoints", say=console.print)
    state = load_checkpoint(checkpoint, model, optimizer)

``step-N/`` holds

    config.json, model.safetensors, tokenizer   as ``from_pretrained`` reads them
    optimizer/       moments and step counts, a file a process, re-cut for any number of processes when read
    state.json       the plain values: format version, counters, sampler, metrics since the last log line, configuration
    manifest.json    size and SHA-256 of every other file

No random state is among them, for no draw depends on one: masks and samples are functions of (seed, step, row), dropout
of (seed, step, micro-batch), an epoch's order of (seed, epoch). Nor is a schedule: a step's rate is a function of the
configuration. ``best``, a small file beside the checkpoints, names the step with the lowest validation loss.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import re
import shutil
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.default_planner import DefaultLoadPlanner
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict, set_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel
from transformers.utils import logging

FORMAT_VERSION = 2
_STEP = re.compile(r"step-(\d+)")


class DamagedCheckpointError(ValueError):
    """A checkpoint's files are not those that were saved."""


class Saveable(Protocol):
    """A tokenizer, as far as a checkpoint needs one."""

    def save_pretrained(self, save_directory: str) -> Any: ...


# ---------------------------------------------------------------- the folder of checkpoints


def steps_saved(checkpoints: Path) -> list[int]:
    """Steps of the checkpoints that are there, ascending."""
    found = (_STEP.fullmatch(path.name) for path in checkpoints.glob("step-*"))
    return sorted(int(match[1]) for match in found if match)


def newest_whole(checkpoints: Path, say: Callable[[str], object] = lambda line: None) -> Path | None:
    """The checkpoint to go on from: the one of the highest step whose files are all as they were saved.

    Args:
        checkpoints: a run's folder of checkpoints.
        say: told, in one line each, which ones are damaged and skipped.

    Returns:
        None if there is no checkpoint at all.

    Raises:
        ValueError: there are some, but none is whole; or one is of another format version.
    """
    steps = steps_saved(checkpoints)
    for step in reversed(steps):
        folder = checkpoints / f"step-{step}"
        try:
            read_state(folder)
            check_whole(folder)
        except DamagedCheckpointError as damage:
            say(f"{damage}; it is skipped")
            found = damage
        else:
            return folder
    if steps:
        raise ValueError(
            f"no checkpoint of {checkpoints} is whole ({found}): remove that folder to start the run again from its "
            "first step, or put a copy in its place"
        )
    return None


def best_checkpoint(checkpoints: Path) -> Path | None:
    """The checkpoint that the file ``best`` names, if there is one."""
    file = checkpoints / "best"
    return checkpoints / file.read_text(encoding="utf-8").strip() if file.is_file() else None


def write_best(checkpoints: Path, step: int | None) -> None:
    """Name the best checkpoint in the file ``best``; none if it is not there."""
    if step is None or not (checkpoints / f"step-{step}").is_dir():
        (checkpoints / "best").unlink(missing_ok=True)
        return
    aside = checkpoints / ".best.partial"
    aside.write_text(f"step-{step}\n", encoding="utf-8")
    _sync(aside)
    aside.replace(checkpoints / "best")


def kept_steps(saved: Collection[int], step: int, last: int, every: int | None, best: int | None) -> set[int]:
    """Which checkpoints stay once that of ``step`` is whole.

    Those of later steps do not: a run that has yet to reach them went back before them because they are damaged.

    Args:
        saved: steps of all that are there.
        step: the newest.
        last: how many of the newest stay.
        every: steps that are multiples of it stay for ever; None = none.
        best: stays.
    """
    reached = sorted(saved_step for saved_step in saved if saved_step <= step)
    for_ever = {saved_step for saved_step in reached if every is not None and saved_step % every == 0}
    return for_ever | set(reached[-last:]) | {saved_step for saved_step in reached if saved_step == best}


def prune(checkpoints: Path, keep: Collection[int]) -> None:
    """Remove all checkpoints but those of the steps to keep."""
    for step in steps_saved(checkpoints):
        if step not in keep:
            remove_checkpoint(checkpoints / f"step-{step}")


def remove_checkpoint(folder: Path) -> None:
    """Remove a checkpoint; killed on the way, it is gone all the same."""
    aside = folder.with_name(f".{folder.name}.removed.partial")
    folder.rename(aside)
    shutil.rmtree(aside)


def remove_partial(checkpoints: Path) -> None:
    """Remove what a killed process left unfinished."""
    for path in checkpoints.glob(".*.partial"):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


# ---------------------------------------------------------------- durable, and proven whole


def make_durable(folder: Path) -> None:
    """Wait until the folder's files are on the disk, so that a rename after it never shows an empty one."""
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def sync_folder(folder: Path) -> None:
    """Wait until what was renamed in a folder is on the disk."""
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_manifest(folder: Path) -> None:
    """Write down the size and checksum of every file of a folder."""
    files = {
        path.relative_to(folder).as_posix(): {"bytes": path.stat().st_size, "sha256": _checksum(path)}
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    (folder / "manifest.json").write_text(json.dumps({"files": files}, indent=1) + "\n", encoding="utf-8")


def check_whole(folder: Path) -> None:
    """Compare a checkpoint's files with its manifest; reads all of them.

    Raises:
        DamagedCheckpointError: names the first file that is missing, cut off or changed.
    """
    try:
        manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        files = dict(manifest["files"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DamagedCheckpointError(f"{folder} is damaged: its manifest.json cannot be read") from error
    for name, wanted in files.items():
        path = folder / name
        try:
            size = path.stat().st_size
            if size != wanted["bytes"]:
                raise DamagedCheckpointError(
                    f"{folder} is damaged: {name} has {size} bytes, not {wanted['bytes']}"
                )
            if _checksum(path) != wanted["sha256"]:
                raise DamagedCheckpointError(f"{folder} is damaged: {name} is not what was saved")
        except OSError as error:
            raise DamagedCheckpointError(f"{folder} is damaged: {name}: {error.strerror}") from error


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ---------------------------------------------------------------- the files as from_pretrained reads them


def save_model(
    model: PreTrainedModel,
    folder: Path,
    tokenizer: Saveable | None,
    weights: dict[str, torch.Tensor] | None = None,
) -> None:
    """Model and tokenizer into a folder that is there, as ``from_pretrained`` reads them.

    ``weights`` are those to write under the model's names, its own unless given.
    """
    with without_transformers_bars():
        model.save_pretrained(folder, state_dict=weights, max_shard_size="1000GB")
    if tokenizer is not None:
        tokenizer.save_pretrained(str(folder))


def copy_model(checkpoint: Path, folder: Path) -> None:
    """A checkpoint's model and tokenizer into a folder that is there."""
    for path in checkpoint.iterdir():
        if path.is_file() and path.name not in {"state.json", "manifest.json"}:
            shutil.copyfile(path, folder / path.name)


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


# ---------------------------------------------------------------- reading one


def read_state(folder: Path) -> dict[str, Any]:
    """The plain values of a checkpoint.

    Raises:
        DamagedCheckpointError: they cannot be read.
        ValueError: they are of another format version.
    """
    try:
        state: dict[str, Any] = json.loads((folder / "state.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DamagedCheckpointError(f"{folder} is damaged: its state.json cannot be read") from error
    if (found := state.get("format_version")) != FORMAT_VERSION:
        raise ValueError(f"{folder} has format version {found}; this metro-t0 reads {FORMAT_VERSION}")
    return state


def load_checkpoint(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
    """Put a checkpoint's weights and optimizer state in place and give its plain values.

    Every process of a run calls it; each reads its own part of what is sharded, however many wrote it.

    Raises:
        ValueError: it is of a model of another shape, or cannot be read.
    """
    state = read_state(folder)
    load_weights(folder, model)
    place = folder / "optimizer"
    try:
        _load_optimizer(place, model, optimizer)
    except (
        OSError,
        EOFError,
        RuntimeError,
        ValueError,
        pickle.UnpicklingError,
        CheckpointException,
    ) as error:
        raise ValueError(f"{place} cannot be used: {' '.join(str(error).split())[-300:]}") from error
    return state


def _load_optimizer(folder: Path, model: PreTrainedModel, optimizer: torch.optim.Optimizer) -> None:
    values = {"optimizer": get_optimizer_state_dict(model, optimizer)}
    reader = FileSystemReader(folder)
    stored = set(reader.read_metadata().state_dict_metadata)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is disabled")
        load(values, storage_reader=reader, planner=DefaultLoadPlanner(allow_partial_load=True))
    set_optimizer_state_dict(model, optimizer, values["optimizer"])
    # A parameter that has had no gradient yet has no state, and must have none again: its step count is still to begin.
    for name, parameter in model.named_parameters():
        if f"optimizer.state.{name}.step" not in stored:
            optimizer.state.pop(parameter, None)


def load_weights(folder: Path, model: PreTrainedModel) -> None:
    """Read a checkpoint's weights into a model of exactly its shape, sharded or not.

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
                _fill(own[name], stored.get_tensor(name))
                loaded.add(id(own[name]))
    except (OSError, SafetensorError) as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    # Tied weights are stored once, under one of their names.
    missing = [name for name, value in own.items() if name not in names and id(value) not in loaded]
    if differing := [*missing, *sorted(names - set(own))]:
        where = "in this configuration only" if missing else "in the checkpoint only"
        raise ValueError(f"{folder} is a checkpoint of another shape: {differing[0]} is {where}")


def _fill(own: torch.Tensor, stored: torch.Tensor) -> None:
    if isinstance(own, DTensor):
        # Without a source rank each process cuts its part out of what it has read itself.
        stored = distribute_tensor(stored, own.device_mesh, own.placements, src_data_rank=None)
    own.copy_(stored)
