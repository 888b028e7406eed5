"""Signals that ask a run to stop, obeyed at the end of a step.

    with Interruption() as interruption:
        for step in steps:
            ...
            if interruption.agreed(world):
                ...                                       # save
                raise RunStoppedError("stopped by SIGTERM after step 20")

SIGTERM is how schedulers announce an end, SIGINT is Ctrl-C. A second Ctrl-C raises ``KeyboardInterrupt`` at once.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from metro_t0.training.distributed import World

STOPPED_EXIT_CODE = 75
"""Of a command whose run was stopped and can go on: EX_TEMPFAIL of sysexits.h, on which schedulers can requeue."""

# torchrun passes on the Ctrl-C that its processes have had already.
_SAME_PRESS_SECONDS = 1.0


class RunStoppedError(BaseException):
    """A run was asked to stop, has saved, and can go on; no error, but not the end either.

    As ``KeyboardInterrupt`` it is no ``Exception``: it can come up anywhere, and what takes the failure of a template
    or a library for a reason to do without it must not take this for one.
    """


def _stop(number: int, frame: FrameType | None) -> None:
    raise _stopped_by(signal.Signals(number).name)


def _stopped_by(name: str) -> RunStoppedError:
    return RunStoppedError(f"stopped by {name}; what is finished is kept")


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """SIGTERM ends the block wherever it is, but for training in it, which ends its step and saves.

    For work that keeps what is finished on the disk as it goes, as a ranking does. A training that was at its end when
    it was asked, and so did not stop by itself, ends the block too. Outside the main thread nothing.

    Raises:
        RunStoppedError: SIGTERM came.
    """

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


class Interruption:
    """Takes SIGTERM and SIGINT while its block runs; outside the main thread, where Python allows none, nothing.

    Attributes:
        name: of the signal that came first; None = none has come.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self._since = 0.0
        self._before: dict[int, Any] = {}

    def agreed(self, world: World) -> bool:
        """Whether any process of the run was asked to stop; all processes call it at the same steps.

        Alone it costs nothing. Otherwise one number goes around between the processors: no device waits.
        """
        if world.size == 1:
            return self.name is not None
        import torch
        from torch import distributed

        asked = torch.tensor(int(self.name is not None))
        distributed.all_reduce(asked, op=distributed.ReduceOp.MAX)
        if asked and self.name is None:
            self.name = "a signal to another process"
        return bool(asked)

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                self._before[number] = signal.signal(number, self._take)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            # None stands for a handler that was not set from Python and cannot be set again.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        around_goes_on = error is None or isinstance(error, Exception)
        if self.name is not None and around_goes_on and self._before.get(signal.SIGTERM) is _stop:
            raise _stopped_by(self.name)  # asked too late for this block to stop by itself

    def _take(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if self.name is None:
            self.name, self._since = signal.Signals(number).name, now
        elif number == signal.SIGINT and now - self._since > _SAME_PRESS_SECONDS:
            raise KeyboardInterrupt
