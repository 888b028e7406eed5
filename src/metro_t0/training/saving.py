"""Checkpoints written while training goes on.

    with CheckpointSaver(run / "checkpoints", model, optimizer, tokenizer, keep_last=2) as saver:
        saver.save(step, {"sampler": sampler.state_dict()}, best=step)     # returns once everything is copied
        saver.check()                                                      # raises if the disk filled up since
        saver.wait()                                                       # until it is there
    # at the end of the block it is there, or an error was raised

A save copies what it needs, and a thread writes it into ``.step-N.partial``: the weights by the main process as one
file that anyone can load, the optimizer by every process, its own part. Once all is written, the manifest is made,
everything waits for the disk, and the folder is renamed to ``step-N``: one that is there is whole. Only then do older
ones go. There is one save at a time.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import warnings
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import torch
from safetensors import SafetensorError
from torch import distributed
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict import get_optimizer_state_dict
from torch.distributed.checkpoint.state_dict_saver import async_save
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from metro_t0.training.checkpoint import (
    FORMAT_VERSION,
    Saveable,
    kept_steps,
    make_durable,
    prune,
    remove_checkpoint,
    remove_partial,
    save_model,
    steps_saved,
    sync_folder,
    write_best,
    write_manifest,
)
from metro_t0.training.distributed import World

# Said of every save of a run that is alone, from a thread, where a filter for a moment would be one for all threads.
warnings.filterwarnings("ignore", message="torch.distributed is disabled, unavailable or uninitialized")


class CheckpointSaver:
    """Saves a run's checkpoints in the background and keeps those that the rule keeps.

    All processes of a run make one and call it at the same steps. What a killed process left unfinished is removed.

    Args:
        checkpoints: the run's folder of checkpoints; made by the first save.
        model: what is trained, not wrapped; its parameters may be sharded.
        optimizer: its moments and step counts are saved.
        tokenizer: saved beside the model, so that a checkpoint can be evaluated as it is.
        world: the processes of the run.
        keep_last: how many of the newest checkpoints stay.
        keep_every: those of steps that are multiples of it stay for ever; None = none.
    """

    def __init__(
        self,
        checkpoints: Path,
        model: PreTrainedModel,
        optimizer: torch.optim.Optimizer,
        tokenizer: Saveable | None = None,
        *,
        world: World | None = None,
        keep_last: int = 2,
        keep_every: int | None = None,
    ) -> None:
        self._checkpoints, self._model, self._optimizer = checkpoints, model, optimizer
        self._tokenizer, self._world = tokenizer, world or World()
        self._keep_last, self._keep_every = keep_last, keep_every
        if self._world.is_main:
            remove_partial(checkpoints)
        # The thread's messages must not meet those of training: a group of its own.
        self._group = distributed.new_group(backend="gloo") if self._world.size > 1 else None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._pending: Future[None] | None = None
        self.newest: int | None = None

    def save(self, step: int, state: Mapping[str, Any], best: int | None = None) -> None:
        """Copy everything and begin to write it; waits for the save before it, and for nothing else.

        Args:
            step: updates done.
            state: plain values (JSON) of everything else that decides the future.
            best: the step with the lowest validation loss.

        Raises:
            ValueError: the save before this one failed.
        """
        self.wait()
        aside = self._checkpoints / f".step-{step}.partial"
        content = json.dumps({"format_version": FORMAT_VERSION, "step": step, **state}, allow_nan=False)
        # The weights first: reading them shards again what a forward pass gathered; the optimizer knows only shards.
        weights = _whole_weights(self._model, self._world.is_main)
        values = {"optimizer": get_optimizer_state_dict(self._model, self._optimizer)}
        size = sum(map(_bytes, weights.values())) + sum(map(_bytes, _tensors(values)))
        writer = FileSystemWriter(aside / "optimizer")
        written = async_save(values, storage_writer=writer, process_group=self._group)
        assert isinstance(written, Future)
        self.newest = step
        self._pending = self._pool.submit(self._finish, step, content, weights, written, best, size)

    def check(self) -> None:
        """Raise the error of a save that has ended; does not wait for one that has not.

        Several processes, which end at different times, hear of it at the next save.

        Raises:
            ValueError: it could not be written.
        """
        if self._world.size == 1 and self._pending is not None and self._pending.done():
            self.wait()

    def wait(self) -> None:
        """Wait until the last save is on the disk; all processes do.

        Raises:
            ValueError: it could not be written, by this process or another.
        """
        pending, self._pending = self._pending, None
        if pending is None:
            return
        failure = pending.exception()
        if self._group is not None:
            said: list[str | None] = [None] * self._world.size
            distributed.all_gather_object(said, failure and str(failure), group=self._group)
            others = [ValueError(line) for line in said if line is not None]
            failure = failure or next(iter(others), None)
        if failure is not None:
            raise failure

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last save, unless whoever sits at the keyboard does not want to."""
        impatient = isinstance(error, KeyboardInterrupt)
        self._pool.shutdown(wait=not impatient)
        if error is None:
            self.wait()

    def _finish(
        self,
        step: int,
        content: str,
        weights: dict[str, torch.Tensor],
        written: Future[Any],
        best: int | None,
        size: int,
    ) -> None:
        aside = self._checkpoints / f".step-{step}.partial"
        with _one_line(f"the checkpoint of step {step}", aside, size):
            try:
                if not self._world.is_main:
                    written.result()
                    return
                aside.mkdir(parents=True, exist_ok=True)
                save_model(self._model, aside, self._tokenizer, weights)
                (aside / "state.json").write_text(content, encoding="utf-8")
                written.result()
                write_manifest(aside)
                make_durable(aside)
                self._put_in_place(aside, step, best)
            except BaseException:
                wait([written])
                shutil.rmtree(aside, ignore_errors=True)
                raise

    def _put_in_place(self, aside: Path, step: int, best: int | None) -> None:
        final = self._checkpoints / f"step-{step}"
        if final.exists():
            remove_checkpoint(final)
        aside.rename(final)
        sync_folder(self._checkpoints)
        write_best(self._checkpoints, best)
        saved = steps_saved(self._checkpoints)
        prune(self._checkpoints, kept_steps(saved, step, self._keep_last, self._keep_every, best))


def _whole_weights(model: PreTrainedModel, wanted: bool) -> dict[str, torch.Tensor]:
    """Copies of all weights in the CPU's memory, where wanted; sharded ones are gathered one at a time.

    Names that are tied share one copy, as in the model.
    """
    own = model.state_dict(keep_vars=True)
    copies: dict[int, torch.Tensor] = {}
    for value in own.values():
        if id(value) not in copies:
            whole = value.full_tensor() if isinstance(value, DTensor) else value
            copies[id(value)] = whole.detach().to("cpu", copy=True) if wanted else whole.new_empty(0)
    return {name: copies[id(value)] for name, value in own.items()} if wanted else {}


def _tensors(values: Any) -> Iterator[torch.Tensor]:
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)


def _bytes(value: torch.Tensor) -> int:
    return value.numel() * value.element_size()


@contextmanager
def _one_line(what: str, folder: Path, size: int) -> Iterator[None]:
    """Failures to write become one line that says why and what to do.

    Raises:
        ValueError: names the folder, the reason, the bytes that it takes and those that are free.
    """
    try:
        yield
    except (OSError, RuntimeError, SafetensorError, CheckpointException) as error:
        place = next(parent for parent in folder.parents if parent.exists())
        free = shutil.disk_usage(place).free
        reason = os.strerror(errno.ENOSPC) if free < size else _reason(error)
        raise ValueError(
            f"{what} cannot be written to {folder.parent}: {reason} (it takes over {size / 1e6:,.1f} MB, "
            f"{free / 1e6:,.1f} MB are free); the checkpoints before it stand: make room and go on with --resume"
        ) from error


def _reason(error: BaseException) -> str:
    """What the operating system said, wherever on the way it was wrapped."""
    if isinstance(error, CheckpointException):
        error = next(iter(error.failures.values()))[0]
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    if number := re.search(r"\(os error (\d+)\)", str(error)):
        return os.strerror(int(number[1]))
    return " ".join(str(error).split())
