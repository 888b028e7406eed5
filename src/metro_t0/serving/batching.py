"""Requests that arrive together are computed together, by the one thread that owns the model.

    batcher = Batcher(engine.answer, refuse=engine.refusal)
    future = batcher.submit(Ranking(), [question])     # from any thread; QueueFullError when too many wait
    answers = future.result(timeout=60)                # an answer a row, in the order of the rows
    future.cancel()                                    # its rows that are not computed yet never will be
    batcher.close()                                    # what was submitted is still answered

A batch is made of rows of equal kind, oldest request first. A request of many rows is spread over several batches, so
that it can be given up between them.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Protocol

_log = logging.getLogger(__name__)


class Kind(Protocol):
    """What is to be done with rows. Rows of equal kinds may share a batch.

    Attributes:
        width: how many times a row counts against the size of a batch.
        alone: the answer depends on what else is in the batch: a request is computed whole and by itself.
    """

    @property
    def width(self) -> int: ...

    @property
    def alone(self) -> bool: ...


class QueueFullError(Exception):
    """As many requests wait as may."""


class ClosedError(Exception):
    """No new requests are taken."""


class RefusedError(Exception):
    """The request cannot be answered, and its sentence says why."""


class FailedError(Exception):
    """The computation of the request broke; the log has the reason."""


@dataclass(eq=False)
class _Request:
    """A submitted request and how far it is."""

    kind: Kind
    rows: Sequence[Any]
    arrived: float
    future: Future[list[Any]] = field(default_factory=Future)
    taken: int = 0
    answers: list[Any] = field(default_factory=list)

    @property
    def given_up(self) -> bool:
        return self.future.done()

    def settle(self, error: Exception | None = None) -> None:
        # Whoever waits may give up at any moment, also at this one.
        with contextlib.suppress(InvalidStateError):
            if error is None:
                self.future.set_result(self.answers)
            else:
                self.future.set_exception(error)


class Batcher:
    """A queue of requests and the thread that answers them.

    Args:
        answer: computes rows of one kind, an answer a row. Only the batcher's thread calls it.
        refuse: the sentence that says why a request cannot be answered, or None. Only the batcher's thread calls it.
        batch_rows: most rows computed at once, each counted ``kind.width`` times.
        gather_seconds: how long the first request of a batch waits for others to share it.
        most_waiting: requests that may wait or be worked on.
    """

    def __init__(
        self,
        answer: Callable[[Any, list[Any]], list[Any]],
        *,
        refuse: Callable[[Any, Sequence[Any]], str | None] = lambda kind, rows: None,
        batch_rows: int = 32,
        gather_seconds: float = 0.005,
        most_waiting: int = 512,
    ) -> None:
        self._answer = answer
        self._refuse = refuse
        self._batch_rows = batch_rows
        self._gather_seconds = gather_seconds
        self._most_waiting = most_waiting
        self._requests: deque[_Request] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="model", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Requests that are not answered yet."""
        return len(self._requests)

    @property
    def alive(self) -> bool:
        """Whether new requests are answered."""
        return self._thread.is_alive() and not self._closed

    def submit(self, kind: Kind, rows: Sequence[Any]) -> Future[list[Any]]:
        """Queue a request of at least one row.

        The future holds an answer a row; or ``RefusedError``, or ``FailedError``. Cancel it to give up.

        Raises:
            QueueFullError: too many requests wait.
            ClosedError: the batcher was closed.
        """
        request = _Request(kind, rows, time.monotonic())
        with self._changed:
            if self._closed:
                raise ClosedError
            if len(self._requests) >= self._most_waiting:
                self._forget_given_up()
                if len(self._requests) >= self._most_waiting:
                    raise QueueFullError
            self._requests.append(request)
            self._changed.notify_all()
        return request.future

    def close(self) -> None:
        """Take no more requests, and return when those that wait are answered."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()

    def _work(self) -> None:
        while (batch := self._next_batch()) is not None:
            self._compute([part for part in batch if self._admitted(part[0])])
            with self._changed:
                self._forget_given_up()

    def _next_batch(self) -> list[tuple[_Request, int]] | None:
        """Requests and how many of their next rows to compute; None when there will be no more."""
        with self._changed:
            while True:
                self._forget_given_up()
                if self._requests:
                    oldest = self._requests[0]
                    patience = oldest.arrived + self._gather_seconds - time.monotonic()
                    if patience <= 0 or self._closed or self._fills_a_batch(oldest.kind):
                        return self._take(oldest)
                    self._changed.wait(patience)
                elif self._closed:
                    return None
                else:
                    self._changed.wait()

    def _fills_a_batch(self, kind: Kind) -> bool:
        rows = sum(len(request.rows) - request.taken for request in self._requests if request.kind == kind)
        return kind.alone or rows * kind.width >= self._batch_rows

    def _take(self, oldest: _Request) -> list[tuple[_Request, int]]:
        kind = oldest.kind
        if kind.alone:
            return [(oldest, len(oldest.rows))]
        room = max(1, self._batch_rows // kind.width)
        batch = []
        for request in self._requests:
            if room and request.kind == kind:
                count = min(room, len(request.rows) - request.taken)
                batch.append((request, count))
                room -= count
        return batch

    def _admitted(self, request: _Request) -> bool:
        if request.taken:
            return True
        try:
            reason = self._refuse(request.kind, request.rows)
        except Exception:
            self._fail(request)
            return False
        if reason is not None:
            request.settle(RefusedError(reason))
        return reason is None

    def _compute(self, batch: list[tuple[_Request, int]]) -> None:
        """Answer the rows; where that breaks, each request again by itself, so that only the culprit fails."""
        if not batch:
            return
        rows = [
            row for request, count in batch for row in request.rows[request.taken : request.taken + count]
        ]
        try:
            answers = self._answer(batch[0][0].kind, rows)
        except Exception:
            if len(batch) == 1:
                self._fail(batch[0][0])
            else:
                for part in batch:
                    self._compute([part])
            return
        done = 0
        for request, count in batch:
            request.answers += answers[done : done + count]
            request.taken += count
            done += count
            if request.taken == len(request.rows):
                request.settle()

    def _fail(self, request: _Request) -> None:
        _log.exception("a request could not be answered")
        request.settle(FailedError())

    def _forget_given_up(self) -> None:
        """Under the lock: of the requests only those that someone waits for."""
        if any(request.given_up for request in self._requests):
            self._requests = deque(request for request in self._requests if not request.given_up)
