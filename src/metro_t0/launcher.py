"""Which process of how many this is, as torchrun or another launcher says; training and ranking build on it.

process = LaunchedProcess.from_environment()
process.rank, process.size, process.is_main
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True)
class LaunchedProcess:
    """One of the processes that work together; without arguments a lone one.

    Attributes:
        rank: this process, from 0.
        size: how many there are.
        local_rank: this process among those of its machine.
        local_size: how many its machine has.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @classmethod
    def from_environment(cls) -> Self:
        """What the launcher says of this process (``RANK``, ``WORLD_SIZE``, ...); alone if none says anything."""
        rank, size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
        local_rank, local_size = os.environ.get("LOCAL_RANK", rank), os.environ.get("LOCAL_WORLD_SIZE", size)
        return cls(rank, size, int(local_rank), int(local_size))

    def work_alone(self) -> None:
        """Have this process act from now on as one that was started by itself, on a GPU of its own.

        For work whose processes share whole runs and not the steps of one. To be called before a GPU is touched.
        """
        seen = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
        # A scheduler that gives each process its GPU shows it that one alone.
        if self.local_size > 1 and len(seen) != 1:
            names = seen or [str(number) for number in range(self.local_size)]
            os.environ["CUDA_VISIBLE_DEVICES"] = names[self.local_rank % len(names)]
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            os.environ.pop(name, None)

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and the console."""
        return self.rank == 0

    def own_gpu(self, gpus: int) -> int:
        """Which of the machine's GPUs is this process's.

        Raises:
            ValueError: the machine has fewer GPUs than processes.
        """
        if self.local_size > gpus:
            raise ValueError(
                f"{self.local_size} processes on a machine where torch sees {gpus} "
                f"{'GPU' if gpus == 1 else 'GPUs'}: start one a GPU (torchrun --nproc-per-node {gpus})"
            )
        return self.local_rank
