"""Which of how many processes this one is, and what they say to each other.

    world = World()                     # alone
    world.size, world.rank, world.is_main

Everything that only one process may do (files, console) asks ``is_main``.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class World:
    """The processes of a run.

    Attributes:
        rank: this process, from 0.
        size: how many there are.
        local_rank: this process among those of its machine.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and the console."""
        return self.rank == 0
