"""The next step's batches, collated in a thread while the device works on this step's.

with Prefetcher(data, objective, data.sampler(settings), device) as source:
    rows, batches = source.next_step()
    source.state_dict()           # the sampler's, behind the step that was handed out last
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import torch

from metro_t0.data.sampler import StepRows, StepSampler
from metro_t0.objectives.base import Batch, Objective
from metro_t0.training.training_data import TrainingData

_Prepared = tuple[StepRows, list[Batch], dict[str, int]]


class Prefetcher:
    """Hands out steps one after the other; one more is under way.

    Args:
        data: rows.
        objective: collates them.
        sampler: says which rows a step reads; no one else asks it from the first step on.
        device: where batches go: for a GPU they are pinned, so that the copy waits for nothing.
    """

    def __init__(
        self, data: TrainingData, objective: Objective, sampler: StepSampler, device: torch.device
    ) -> None:
        self._data, self._objective, self._sampler = data, objective, sampler
        self._pinned = device.type == "cuda"
        self._state = sampler.state_dict()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="collate")
        self._next: Future[_Prepared] | None = None

    def next_step(self) -> tuple[StepRows, list[Batch]]:
        """The next step's rows and its micro-batches; waits for them if need be."""
        ready = self._next or self._thread.submit(self._prepare)
        self._next = None
        rows, batches, self._state = ready.result()
        self._next = self._thread.submit(self._prepare)
        return rows, batches

    def state_dict(self) -> dict[str, int]:
        """Where the step after the last one handed out starts."""
        return self._state

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where ``state_dict`` was taken; before the first step."""
        assert self._next is None, "the sampler is ahead already"
        self._sampler.load_state_dict(state)
        self._state = self._sampler.state_dict()

    def _prepare(self) -> _Prepared:
        rows = self._sampler.next_step()
        batches = [self._data.collate(self._objective, micro_batch) for micro_batch in rows.micro_batches]
        if self._pinned:
            batches = [{name: value.pin_memory() for name, value in batch.items()} for batch in batches]
        return rows, batches, self._sampler.state_dict()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._next = None
