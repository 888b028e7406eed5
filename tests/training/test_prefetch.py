"""Batches collated ahead are those of the sampler, and the state is that of the step handed out last."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from small_runs import BagObjective, bag_settings

from metro_t0.objectives.base import Batch, Row, RowKey
from metro_t0.training.prefetch import Prefetcher
from metro_t0.training.training_data import TrainingData

CPU = torch.device("cpu")


def source(data: TrainingData) -> Prefetcher:
    return Prefetcher(data, BagObjective(), data.sampler(bag_settings()), CPU)


def test_steps_and_states_are_the_samplers(bag_data: TrainingData) -> None:
    sampler = bag_data.sampler(bag_settings())
    with source(bag_data) as ahead:
        assert ahead.state_dict() == sampler.state_dict()
        for _ in range(5):
            expected = sampler.next_step()
            rows, batches = ahead.next_step()
            assert rows == expected and ahead.state_dict() == sampler.state_dict()
            wanted = [bag_data.collate(BagObjective(), micro) for micro in expected.micro_batches]
            assert len(batches) == len(wanted)
            for batch, other in zip(batches, wanted, strict=True):
                assert batch.keys() == other.keys() and all(map(torch.equal, batch.values(), other.values()))


def test_it_goes_on_where_a_state_was_taken(bag_data: TrainingData) -> None:
    with source(bag_data) as first, source(bag_data) as second:
        for _ in range(3):
            first.next_step()
        second.load_state_dict(first.state_dict())
        assert second.next_step()[0] == first.next_step()[0]


def test_a_mistake_in_the_thread_is_raised_where_its_step_is_asked_for(bag_data: TrainingData) -> None:
    class Broken(BagObjective):
        def collate(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> Batch:
            if keys[0][0] == 2:
                raise ValueError("step 2 cannot be collated")
            return super().collate(rows, keys)

    with Prefetcher(bag_data, Broken(), bag_data.sampler(bag_settings()), CPU) as ahead:
        ahead.next_step()
        with pytest.raises(ValueError, match="step 2 cannot be collated"):
            ahead.next_step()
