"""A function over many pieces of work, on several processes, in the order of the pieces.

for piece, result in map_in_order(encode, pieces, processes=4): ...

A bounded number of pieces is under way, so that any number of them goes through in bounded memory, and what comes
out does not depend on how many processes there are.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_IN_FLIGHT_A_PROCESS = 3


def map_in_order(
    function: Callable[[Piece], Result],
    pieces: Iterable[Piece],
    processes: int,
    *,
    named: Callable[[Piece], str] = str,
) -> Iterator[tuple[Piece, Result]]:
    """Give each piece with its result; ``processes`` = 1 works in this one.

    Args:
        function: picklable where it is not forked; called with one piece.
        pieces: taken no faster than results are.
        named: what a piece is called in the message about a worker that died.

    Raises:
        ValueError: a worker was killed (often because memory ran out), naming the first piece without a result.
    """
    if processes == 1:
        for piece in pieces:
            yield piece, function(piece)
        return
    # Forking shares what is already imported and loaded; elsewhere than on Linux it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),)
    )
    in_flight: deque[tuple[Piece, Future[Result]]] = deque()
    try:
        for piece in pieces:
            in_flight.append((piece, _submit(pool, function, piece, named)))
            if len(in_flight) >= processes * _IN_FLIGHT_A_PROCESS:
                yield _oldest(in_flight, named)
        while in_flight:
            yield _oldest(in_flight, named)
    finally:
        pool.shutdown(cancel_futures=True)


def available_processes() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _submit(
    pool: ProcessPoolExecutor,
    function: Callable[[Piece], Result],
    piece: Piece,
    named: Callable[[Piece], str],
) -> Future[Result]:
    try:
        return pool.submit(function, piece)
    except BrokenProcessPool as error:
        raise _killed(named(piece)) from error


def _oldest(
    in_flight: deque[tuple[Piece, Future[Result]]], named: Callable[[Piece], str]
) -> tuple[Piece, Result]:
    piece, future = in_flight.popleft()
    try:
        return piece, future.result()
    except BrokenProcessPool as error:
        raise _killed(named(piece)) from error


def _killed(name: str) -> ValueError:
    return ValueError(
        f"a worker process was killed at {name} or soon after it, often because memory ran out; "
        "run the same command again, with fewer processes if need be"
    )


def _begin_worker(parent: int) -> None:
    """Leave interrupts to the parent, and end with it even if it was killed (idle workers would wait for ever)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
