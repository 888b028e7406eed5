"""One program on one process or on hundreds: who they are, what they agree on, and one network on all of them.

    with joined() as world:                                   # alone without torchrun
        device = world.device("auto")
        with world.together():                                # one's mistake is everyone's
            ...
        parallel = Parallel(model, objective, world, "ddp")   # or "fsdp"
        with parallel.backward(last=True):
            parallel(batch, parallel.summed(counts)).loss.backward()

A step's rows and their draws are the same on any number of processes, each of which takes its share of every
micro-batch. Losses are divided by counts summed over all of them and gradients are summed, so that the update is that
of a lone process up to the order of additions. Everything that only one process may do (files, console) asks
``is_main``.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Literal, TypeVar

import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.rendezvous import rendezvous
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from metro_t0.launcher import LaunchedProcess
from metro_t0.objectives.base import Batch, Inspectable, Inspection, Objective, ObjectiveOutput
from metro_t0.training.interruption import RunStoppedError

Normalizers = Mapping[str, int | torch.Tensor]
Result = TypeVar("Result")

# How long processes wait for one that builds a mixture or measures; torchrun itself notices one that died.
_PATIENCE = timedelta(hours=2)


class World(LaunchedProcess):
    """The processes of a run; without arguments a lone one."""

    def device(self, setting: Literal["auto", "cpu", "cuda"]) -> torch.device:
        """This process's device, the GPU of its local rank where there are GPUs.

        Raises:
            ValueError: there is no GPU where one is asked for, or there are fewer than processes.
        """
        gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if setting == "cpu" or (setting == "auto" and not gpus):
            return torch.device("cpu")
        if not gpus:
            raise ValueError("training.device is cuda, but torch sees no GPU: set it to cpu or auto")
        torch.cuda.set_device(self.own_gpu(gpus))
        return torch.device("cuda", self.local_rank)

    def threads(self, wanted: int) -> int:
        """CPU threads for this process: as wanted, but no more than its share of the cores beside others."""
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return wanted if self.local_size == 1 else min(wanted, max(1, cores // self.local_size))

    def sum(self, values: torch.Tensor) -> torch.Tensor:
        """Elementwise sum over all processes, in place; waits for no device."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    @contextmanager
    def together(self) -> Iterator[None]:
        """What every process does for itself and none leaves before the others; no word between them inside.

        Raises:
            ValueError: on all processes, if the block raised one on any: its own, else that of the lowest rank.
        """
        mistake: ValueError | None = None
        try:
            yield
        except ValueError as error:
            mistake = error
        if self.size > 1:
            said: list[str | None] = [None] * self.size
            distributed.all_gather_object(said, None if mistake is None else str(mistake))
            first = next((line for line in said if line is not None), None)
            mistake = mistake or (None if first is None else ValueError(first))
        if mistake is not None:
            raise mistake

    def from_main(self, work: Callable[[], Result]) -> Result:
        """What ``work`` gives on the main process, the only one to call it; on all processes.

        Raises:
            ValueError: ``work`` raised it.
        """
        found: list[Result | None] = [None]
        with self.together():
            if self.is_main:
                found = [work()]
        if self.size > 1:
            distributed.broadcast_object_list(found, src=0)
        return found[0]  # type: ignore[return-value]


@contextmanager
def joined() -> Iterator[World]:
    """The processes that were started with this one, ready to talk: gloo between CPUs, NCCL between GPUs.

    A lone process needs no group.
    """
    world = World.from_environment()
    if world.size == 1:
        yield world
        return
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo",
        store=_store(),
        rank=world.rank,
        world_size=world.size,
        timeout=_PATIENCE,
    )
    try:
        yield world
    except (ValueError, RunStoppedError):  # on all processes, see ``together``
        _leave()
        raise
    # After any other error the others may still be waiting for this one: it goes at once.
    _leave()


def _store() -> Store:
    """Where the processes find each other's addresses.

    torchrun keeps those of processes that have died: each life of a run looks in a place of its own. Where several
    torchruns each count the restarts that they began, the variable of ``examples/multi-node.sh`` gives a new store.
    """
    store, _, _ = next(rendezvous("env://", timeout=_PATIENCE))
    alone = os.environ.get("GROUP_WORLD_SIZE") == "1"
    life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if alone else "0"
    return PrefixStore(f"life-{life}", store)


def _leave() -> None:
    """End the group and its threads."""
    # DDP lies in a reference cycle and holds the group, whose threads would end with the interpreter, and badly.
    gc.collect()
    distributed.destroy_process_group()


class _Forward(nn.Module):
    """An objective on a network as one module: whatever way it takes through the network, wrappers see one forward."""

    def __init__(self, network: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.network, self.objective = network, objective

    def forward(self, batch: Batch, normalizers: Normalizers | None) -> ObjectiveOutput | Inspection:
        if normalizers is not None:
            return self.objective(self.network, batch, normalizers)
        assert isinstance(self.objective, Inspectable)
        return self.objective.inspect(self.network, batch)


class Parallel:
    """A network and its objective on all processes.

    Args:
        network: on this process's device, the same on all. With ``fsdp`` its parameters become sharded ones, in place:
            an optimizer is built afterwards.
        objective: computes the loss.
        world: a lone process trains the bare network, whatever the kind.
        kind: ``ddp``, each process holds the whole network; ``fsdp``, each holds a share of every block's weights,
            gradients and moments.
    """

    def __init__(
        self,
        network: nn.Module,
        objective: Objective,
        world: World | None = None,
        kind: Literal["ddp", "fsdp"] = "ddp",
    ) -> None:
        self.network, self.objective, self.world = network, objective, world or World()
        self.device = next(network.parameters()).device
        self._forward: nn.Module = _Forward(network, objective)
        if self.world.size == 1:
            return
        if kind == "ddp":
            self._forward = DistributedDataParallel(self._forward, gradient_as_bucket_view=True)
            return
        mesh = init_device_mesh(self.device.type, (self.world.size,))
        blocks = getattr(network, "_no_split_modules", None) or ()
        for module in network.modules():
            if type(module).__name__ in blocks:
                fully_shard(module, mesh=mesh)
        fully_shard(self._forward, mesh=mesh)

    def __call__(self, batch: Batch, normalizers: Normalizers) -> ObjectiveOutput:
        """The objective's output on this process's share of a micro-batch, which lies on the device."""
        output: ObjectiveOutput = self._forward(batch, normalizers)
        return output

    def inspect(self, batch: Batch) -> Inspection:
        """What the objective does to each token of a batch, which lies on the device; all processes call it.

        Inside ``evaluating``, with an objective that is ``Inspectable``.
        """
        found: Inspection = self._forward(batch, None)
        return found

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a share of the weights."""
        return isinstance(self._forward, FSDPModule)

    def summed(self, counts: Mapping[str, int]) -> Normalizers:
        """Counts summed over all processes, on the device; a sum over nothing is divided by 1."""
        if self.world.size == 1:
            return {name: max(1, count) for name, count in counts.items()}
        values = torch.tensor(list(counts.values()))
        if self.device.type == "cuda":
            values = values.pin_memory().to(self.device, non_blocking=True)
        return dict(zip(counts, self.world.sum(values).clamp(min=1).unbind(), strict=True))

    @contextmanager
    def backward(self, last: bool) -> Iterator[None]:
        """A micro-batch's forward and backward pass; gradients are exchanged with the step's last one."""
        module = self._forward
        if isinstance(module, FSDPModule):
            module.set_requires_gradient_sync(last)
            module.set_is_last_backward(last)
        with module.no_sync() if isinstance(module, DistributedDataParallel) and not last else nullcontext():
            yield

    @property
    def gradient_weight(self) -> int:
        """What a loss is multiplied by before its backward pass: gradients are averaged, we want their sum."""
        return self.world.size

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Forward passes alone, without dropout; the network is left in training mode."""
        self.network.eval()
        with torch.no_grad():
            yield
        self.network.train()
        if isinstance(self._forward, FSDPModule):
            self._forward.reshard()  # no backward pass came to do it


def whole(value: torch.Tensor) -> torch.Tensor:
    """A tensor as every process sees it, where it may lie in shards; all processes call it."""
    return value.full_tensor() if isinstance(value, DTensor) else value
