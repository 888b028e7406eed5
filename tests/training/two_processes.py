"""Started by torchrun: what two processes do together.

torchrun --nproc-per-node 2 two_processes.py FOLDER

``FOLDER/alone/step-1`` is there, written by one process; ``fsdp``, ``ddp`` and ``refsdp`` are made beside it, each from
the one before. Then one of the two cannot write, then one is asked to stop, and both are to know.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import torch
from small_runs import BAG_OPTIMIZER, small_network
from torch import distributed
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor

from metro_t0.training.checkpoint import load_checkpoint
from metro_t0.training.distributed import World
from metro_t0.training.interruption import Interruption
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.saving import CheckpointSaver


def pass_on(source: Path, target: Path, world: World, sharded: bool) -> None:
    """Load a checkpoint and save it again, whatever the shape of both."""
    model = small_network(seed=99)
    if sharded:
        # Not a whole stack: it would tear the embedding that stacks share.
        for block in model.encoder.block:
            fully_shard(block)
        fully_shard(model)
        assert all(isinstance(parameter, DTensor) for parameter in model.parameters())
    optimizer = build_optimizer(model.parameters(), BAG_OPTIMIZER)
    state = load_checkpoint(source / "step-1", model, optimizer)
    if isinstance(model, FSDPModule):
        # As a validation leaves it.
        model.unshard()
    with CheckpointSaver(target, model, optimizer, world=world) as saver:
        saver.save(1, {"note": state["note"]})
        # What training changes after a save is not in it.
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)


def one_cannot_write(target: Path, world: World) -> None:
    """The main process finds the weights' name taken; the other's part is fine."""
    model = small_network(seed=99)
    optimizer = build_optimizer(model.parameters(), BAG_OPTIMIZER)
    try:
        with CheckpointSaver(target, model, optimizer, world=world) as saver:
            if world.is_main:
                (target / ".step-1.partial" / "model.safetensors").mkdir(parents=True)
            saver.save(1, {})
    except ValueError as error:
        assert str(error).startswith("the checkpoint of step 1 cannot be written to ")
        assert not list(target.iterdir())
        return
    raise AssertionError("nothing was raised")


def main() -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo")
    folder = Path(sys.argv[1])
    world = World(int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_RANK"]))
    for source, target in (("alone", "fsdp"), ("fsdp", "ddp"), ("ddp", "refsdp")):
        pass_on(folder / source, folder / target, world, sharded=target.endswith("fsdp"))
        distributed.barrier()
    one_cannot_write(folder / "taken", world)
    with Interruption() as interruption:
        assert not interruption.agreed(world)
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.agreed(world)
        (folder / f"asked-{world.rank}").write_text(str(interruption.name))
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
