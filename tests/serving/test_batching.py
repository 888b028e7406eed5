"""The batcher by itself: what shares a batch, what is dropped, and who fails."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from metro_t0.serving.batching import (
    Batcher,
    ClosedError,
    FailedError,
    QueueFullError,
    RefusedError,
)


@dataclass(frozen=True)
class Times:
    """Multiplies rows."""

    factor: int = 2
    width: int = 1
    alone: bool = False


@dataclass
class Multiplier:
    """Keeps the batches it was given; a row of 0 breaks it. It works only while its gate is open."""

    batches: list[list[int]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    busy: threading.Event = field(default_factory=threading.Event)

    def __call__(self, kind: Times, rows: list[int]) -> list[int]:
        self.busy.set()
        assert self.gate.wait(60)
        self.batches.append(rows)
        if 0 in rows:
            raise RuntimeError("a row of 0")
        return [kind.factor * row for row in rows]

    def occupied(self, batcher: Batcher) -> Any:
        """A first request, under way behind the closed gate: what is submitted now waits in the queue."""
        first = batcher.submit(Times(factor=-1), [7])
        assert self.busy.wait(60)
        return first


def too_many(kind: Times, rows: Sequence[int]) -> str | None:
    return f"{len(rows)} rows are too many" if len(rows) > 40 else None


def test_what_waits_together_is_computed_together() -> None:
    work = Multiplier()
    batcher = Batcher(work, batch_rows=8)
    first = work.occupied(batcher)
    waiting = [batcher.submit(Times(), [number, -number]) for number in range(1, 6)]
    other = batcher.submit(Times(factor=3), [1])
    assert batcher.waiting == 7
    work.gate.set()
    assert first.result(60) == [-7]
    assert [future.result(60) for future in waiting] == [[2 * n, -2 * n] for n in range(1, 6)]
    assert other.result(60) == [3]
    batcher.close()
    assert work.batches == [[7], [1, -1, 2, -2, 3, -3, 4, -4], [5, -5], [1]]
    assert batcher.waiting == 0


def test_wide_rows_and_rows_for_themselves() -> None:
    work = Multiplier()
    batcher = Batcher(work, batch_rows=8)
    work.occupied(batcher)
    wide = batcher.submit(Times(width=4), [1, 2, 3])
    widest = batcher.submit(Times(width=100), [4, 5])
    alone = [batcher.submit(Times(alone=True), list(range(1, 13))) for _ in range(2)]
    work.gate.set()
    assert wide.result(60) == [2, 4, 6] and widest.result(60) == [8, 10]
    assert [future.result(60) for future in alone] == [list(range(2, 26, 2))] * 2
    batcher.close()
    assert work.batches == [[7], [1, 2], [3], [4], [5], list(range(1, 13)), list(range(1, 13))]


def test_what_is_given_up_is_not_computed() -> None:
    work = Multiplier()
    batcher = Batcher(work, batch_rows=2)
    first = work.occupied(batcher)
    kept, dropped = batcher.submit(Times(), [1, 2, 3]), batcher.submit(Times(), [4])
    assert first.cancel() and dropped.cancel()
    assert batcher.submit(Times(), [5]).cancel()
    work.gate.set()
    assert kept.result(60) == [2, 4, 6]
    batcher.close()
    assert work.batches == [[7], [1, 2], [3]]


def test_only_the_culprit_fails() -> None:
    work = Multiplier()
    batcher = Batcher(work, refuse=too_many)
    work.occupied(batcher)
    good, bad, better = (batcher.submit(Times(), [number]) for number in (1, 0, 2))
    long = batcher.submit(Times(), [1] * 41)
    work.gate.set()
    assert (good.result(60), better.result(60)) == ([2], [4])
    with pytest.raises(FailedError):
        bad.result(60)
    with pytest.raises(RefusedError, match="41 rows are too many"):
        long.result(60)
    assert batcher.submit(Times(), [3]).result(60) == [6]
    batcher.close()


def test_a_refusal_that_breaks_fails_its_request_alone() -> None:
    def broken(kind: Times, rows: Sequence[int]) -> str | None:
        return str(1 // rows[0]) if rows[0] == 0 else None

    work = Multiplier()
    work.gate.set()
    batcher = Batcher(work, refuse=broken)
    with pytest.raises(FailedError):
        batcher.submit(Times(), [0]).result(60)
    assert batcher.submit(Times(), [3]).result(60) == [6]
    batcher.close()


def test_the_queue_has_an_end() -> None:
    work = Multiplier()
    batcher = Batcher(work, most_waiting=3)
    work.occupied(batcher)
    waiting = [batcher.submit(Times(), [number]) for number in (1, 2)]
    with pytest.raises(QueueFullError):
        batcher.submit(Times(), [3])
    waiting[0].cancel()
    third = batcher.submit(Times(), [3])
    work.gate.set()
    assert (waiting[1].result(60), third.result(60)) == ([4], [6])
    batcher.close()


def test_closing_answers_what_waits_and_takes_no_more() -> None:
    work = Multiplier()
    batcher = Batcher(work, batch_rows=1, gather_seconds=30)
    work.occupied(batcher)
    waiting = [batcher.submit(Times(), [number]) for number in range(1, 5)]
    closing = threading.Thread(target=batcher.close)
    closing.start()
    while batcher.alive:
        pass
    with pytest.raises(ClosedError):
        batcher.submit(Times(), [9])
    work.gate.set()
    closing.join(60)
    assert [future.result(0) for future in waiting] == [[2], [4], [6], [8]]
    assert not batcher.alive


def test_many_threads_each_get_their_own() -> None:
    work = Multiplier()
    work.gate.set()
    batcher = Batcher(work, batch_rows=16, gather_seconds=0.001)
    found: dict[int, list[int]] = {}

    def ask(number: int) -> None:
        rows = [1000 * number + row for row in range(1, 2 + number % 40)]
        found[number] = batcher.submit(Times(factor=1 + number % 3), rows).result(60)

    threads = [threading.Thread(target=ask, args=[number]) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    batcher.close()
    for number in range(100):
        factor = 1 + number % 3
        assert found[number] == [factor * (1000 * number + row) for row in range(1, 2 + number % 40)]
    assert max(map(len, work.batches)) <= 16
