"""Who a process is, which device and how many threads it gets; what many say to each other is in ``distributed/``."""

from __future__ import annotations

import os

import pytest
import torch
from small_runs import BagObjective, bag_model

from metro_t0.training.distributed import Parallel, World, joined


def test_torchrun_says_who_a_process_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert World.from_environment() == World(0, 1, 0, 1)
    monkeypatch.setenv("RANK", "5")
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert World.from_environment() == World(5, 8, 5, 8)
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    world = World.from_environment()
    assert world == World(5, 8, 1, 4) and not world.is_main and World().is_main


def test_a_lone_process_needs_no_group_and_no_wrapper() -> None:
    model = bag_model()
    with joined() as world:
        assert world == World() and not torch.distributed.is_initialized()
        assert world.from_main(lambda: 3) == 3
        with pytest.raises(ValueError, match="mine"), world.together():
            raise ValueError("mine")
        parallel = Parallel(model, BagObjective(), world, "fsdp")
    assert parallel.summed({"tokens": 0, "rows": 2}) == {"tokens": 1, "rows": 2}
    assert all(type(parameter) is torch.nn.Parameter for parameter in model.parameters())


def test_threads_of_processes_side_by_side_fit_the_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    assert World().threads(64) == 64
    assert World(0, 2, 0, 2).threads(64) == max(1, cores // 2)
    assert World(0, 2, 0, 2).threads(1) == 1
    assert World(0, 1000, 0, 1000).threads(4) == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_said() -> None:
    assert World().device("auto") == World().device("cpu") == torch.device("cpu")
    with pytest.raises(
        ValueError, match=r"training\.device is cuda, but torch sees no GPU: set it to cpu or auto"
    ):
        World(1, 2, 1, 2).device("cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_every_process_has_a_gpu_of_its_own() -> None:
    gpus = torch.cuda.device_count()
    assert World(gpus - 1, gpus, gpus - 1, gpus).device("auto") == torch.device("cuda", gpus - 1)
    with pytest.raises(ValueError, match=rf"start one a GPU \(torchrun --nproc-per-node {gpus}\)"):
        World(0, gpus + 1, 0, gpus + 1).device("auto")
