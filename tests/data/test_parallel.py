"""Work on several processes: in order, bounded, and ended by a death on either side."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from metro_t0.data.parallel import map_in_order


def square(number: int) -> int:
    return number * number


def square_slowly(number: int) -> int:
    time.sleep(0.05)
    return number * number


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes: int) -> None:
    found = list(map_in_order(square, range(50), processes))
    assert found == [(number, number * number) for number in range(50)]


def test_pieces_are_taken_no_faster_than_results_are() -> None:
    taken = 0

    def pieces() -> Iterator[int]:
        nonlocal taken
        for number in range(40):
            taken += 1
            yield number

    for number, result in map_in_order(square, pieces(), 2):
        assert result == number * number
        assert taken <= number + 6
    assert taken == 40


def test_a_killed_worker_is_named_with_its_piece() -> None:
    # Killed as the system does when memory runs out: an error, not a wait for ever.
    others = {process.pid for process in multiprocessing.active_children()}

    def pieces() -> Iterator[int]:
        for number in range(40):
            if number == 8:
                [worker, *_] = {process.pid for process in multiprocessing.active_children()} - others
                assert worker is not None
                os.kill(worker, 9)
            yield number

    with pytest.raises(ValueError, match=r"a worker process was killed at piece \d+ or soon after it, often"):
        # Slowly: the other worker must not be through before the death is seen.
        list(map_in_order(square_slowly, pieces(), 2, named=lambda number: f"piece {number}"))


def test_an_error_of_a_piece_is_raised_as_it_was() -> None:
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_in_order(int, ["1", "x"], 2))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_when_their_parent_is_killed() -> None:
    code = """
import multiprocessing, time
from metro_t0.data.parallel import map_in_order

def pieces():
    yield "0"
    print(*[process.pid for process in multiprocessing.active_children()], flush=True)
    time.sleep(60)

list(map_in_order(int, pieces(), 2))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [Path("/proc", pid, "stat") for pid in parent.stdout.readline().split()]
    assert workers and all(map(alive, workers))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(stat: Path) -> bool:
    """Whether a process runs, by its line in /proc: neither gone nor a zombie that nobody has waited for."""
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False
