"""The order of rows: every row once an epoch, full steps, bounded micro-batches, and a state that goes on."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.data.sampler import StepRows, StepSampler, cut_into_micro_batches, padded_tokens

row_lengths = st.integers(1, 2).flatmap(
    lambda columns: st.lists(st.tuples(*[st.integers(1, 40)] * columns), min_size=1, max_size=60).map(
        lambda rows: np.array(rows, dtype=np.int32)
    )
)


def sampler(lengths: np.ndarray, batch: int = 100, micro: int = 60, seed: int = 3) -> StepSampler:
    return StepSampler(lengths, batch_tokens=batch, micro_batch_tokens=micro, seed=seed)


def rows_in_drawn_order(step: StepRows) -> list[int]:
    pairs = [pair for micro in step.micro_batches for pair in zip(micro.keys, micro.rows, strict=True)]
    return [row for _, row in sorted(pairs)]


@given(row_lengths, st.integers(1, 300))
def test_micro_batches_hold_each_row_once_within_the_bound(lengths: np.ndarray, bound: int) -> None:
    batches = cut_into_micro_batches(lengths, bound)
    assert sorted(np.concatenate(batches).tolist()) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or padded_tokens(lengths[batch]) <= bound
    firsts = [tuple(lengths[batch[0]].tolist()) for batch in batches]
    assert firsts == sorted(firsts, reverse=True)


@settings(max_examples=60, deadline=None)
@given(row_lengths.map(lambda lengths: lengths[:9]), st.integers(1, 300))
def test_the_cut_costs_least_of_all(lengths: np.ndarray, bound: int) -> None:
    def cost(batches: list[np.ndarray]) -> float:
        return sum(padded_tokens(batch) for batch in batches) + len(batches) * bound / 32

    order = sorted(lengths.tolist(), reverse=True)
    ordered = np.array(order, dtype=np.int32)
    places = range(1, len(ordered))
    cuts = [cut for number in range(len(ordered)) for cut in itertools.combinations(places, number)]
    partitions = [np.split(ordered, cut) for cut in cuts]
    allowed = [
        partition
        for partition in partitions
        if all(len(batch) == 1 or padded_tokens(batch) <= bound for batch in partition)
    ]
    ours = cost([lengths[batch] for batch in cut_into_micro_batches(lengths, bound)])
    assert ours == pytest.approx(min(map(cost, allowed)))


@given(row_lengths, st.integers(1, 500), st.integers(1, 8))
def test_steps_are_just_full_and_their_keys_unique(lengths: np.ndarray, batch: int, steps: int) -> None:
    one = sampler(lengths, batch)
    for number in range(1, steps + 1):
        step = one.next_step()
        drawn = rows_in_drawn_order(step)
        tokens = int(lengths[drawn].sum())
        assert step.tokens == tokens >= batch
        assert tokens - int(lengths[drawn[-1]].sum()) < batch
        keys = [key for micro in step.micro_batches for key in micro.keys]
        assert sorted(keys) == [(number, place) for place in range(len(drawn))]


@given(row_lengths, st.integers(1, 200))
def test_every_row_comes_once_an_epoch_across_steps(lengths: np.ndarray, batch: int) -> None:
    one = sampler(lengths, batch)
    seen: list[int] = []
    while len(seen) < 3 * len(lengths):
        seen += rows_in_drawn_order(one.next_step())
    for epoch in range(3):
        part = seen[epoch * len(lengths) : (epoch + 1) * len(lengths)]
        assert sorted(part) == list(range(len(lengths)))


@given(row_lengths, st.integers(1, 300), st.integers(1, 300))
def test_the_bound_of_micro_batches_changes_no_key(lengths: np.ndarray, small: int, large: int) -> None:
    one, other = sampler(lengths, micro=small), sampler(lengths, micro=large)
    for _ in range(4):
        assert rows_in_drawn_order(one.next_step()) == rows_in_drawn_order(other.next_step())


@settings(max_examples=50)
@given(row_lengths, st.integers(1, 300), st.integers(0, 6))
def test_a_state_goes_on_to_the_same_steps(lengths: np.ndarray, batch: int, before: int) -> None:
    one, other = sampler(lengths, batch), sampler(lengths, batch)
    for _ in range(before):
        one.next_step()
    other.load_state_dict(json.loads(json.dumps(one.state_dict())))
    for _ in range(5):
        assert one.next_step() == other.next_step()


def test_another_seed_gives_another_order() -> None:
    lengths = np.full((50, 1), 7, dtype=np.int32)
    orders = [rows_in_drawn_order(sampler(lengths, 350, seed=seed).next_step()) for seed in (1, 2)]
    assert orders[0] != orders[1]


def test_an_order_of_the_callers_own() -> None:
    lengths = np.full((6, 1), 10, dtype=np.int32)
    one = StepSampler(
        lengths,
        batch_tokens=30,
        micro_batch_tokens=100,
        seed=1,
        epoch_order=lambda epoch: np.array([epoch, 5, 5]),
    )
    assert [rows_in_drawn_order(one.next_step()) for _ in range(2)] == [[0, 5, 5], [1, 5, 5]]


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to train on"):
        sampler(np.zeros((0, 1), dtype=np.int32))


@given(row_lengths, st.integers(1, 300), st.integers(1, 200), st.integers(1, 7))
def test_processes_share_every_step_with_its_keys(
    lengths: np.ndarray, batch: int, bound: int, processes: int
) -> None:
    def shares(rank: int) -> StepSampler:
        return StepSampler(
            lengths, batch_tokens=batch, micro_batch_tokens=bound, seed=3, rank=rank, processes=processes
        )

    alone, samplers = sampler(lengths, batch, bound), [shares(rank) for rank in range(processes)]
    for _ in range(3):
        whole, steps = alone.next_step(), [one.next_step() for one in samplers]
        assert {step.tokens for step in steps} == {whole.tokens}
        assert len({len(step.micro_batches) for step in steps}) == 1
        wanted = sorted(pair for m in whole.micro_batches for pair in zip(m.keys, m.rows, strict=True))
        taken = [m for step in steps for m in step.micro_batches if not m.idle]
        assert sorted(pair for m in taken for pair in zip(m.keys, m.rows, strict=True)) == wanted
        assert all(len(m.rows) == 1 or padded_tokens(lengths[m.rows]) <= bound for m in taken)
        for together in zip(*(step.micro_batches for step in steps), strict=True):
            working = [len(m.rows) for m in together if not m.idle]
            assert max(working) - min(working) <= 1 and (len(working) == processes or max(working) == 1)
            assert all(len(m.rows) == 1 for m in together if m.idle)
        assert all(one.state_dict() == alone.state_dict() for one in samplers)
