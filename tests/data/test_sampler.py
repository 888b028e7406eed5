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
def test_steps_have_unique_keys_and_bounded_micro_batches(
    lengths: np.ndarray, batch: int, steps: int
) -> None:
    one = sampler(lengths, batch)
    for number in range(1, steps + 1):
        step = one.next_step()
        rows = [row for micro in step.micro_batches for row in micro.rows]
        assert step.tokens == int(lengths[rows].sum()) and not step.idle
        assert all(len(m.rows) == 1 or padded_tokens(lengths[m.rows]) <= 60 for m in step.micro_batches)
        keys = [key for micro in step.micro_batches for key in micro.keys]
        assert sorted(keys) == [(number, place) for place in range(len(rows))]


@settings(max_examples=60, deadline=None)
@given(row_lengths, st.integers(1, 200))
def test_every_row_comes_once_an_epoch(lengths: np.ndarray, batch: int) -> None:
    """Whatever order a window's steps have: where one begins, just the rows before it in the epochs have come."""
    one, seen, windows = sampler(lengths, batch), np.zeros(len(lengths), dtype=np.int64), 0
    while windows < 4:
        before = seen.copy()
        for micro in one.next_step().micro_batches:
            np.add.at(seen, micro.rows, 1)
        state = one.state_dict()
        if state["taken"] == 1:
            windows += 1
            counts = {state["epoch"]: len(lengths) - state["position"], state["epoch"] + 1: state["position"]}
            assert all((before == times).sum() == rows for times, rows in counts.items())


def test_steps_are_as_large_as_asked_for_on_average_and_hardly_padded() -> None:
    """Lengths as documents have them, log-normal; a step of one micro-batch, of some, and a window of its own."""
    rng = np.random.default_rng(0)
    lengths = np.clip(rng.lognormal(4.4, 1.0, (20_000, 1)), 4, 512).astype(np.int32)
    for batch, micro in ((2048, 2048), (16_384, 8192), (16_384, 2048), (200_000, 8192)):
        one = sampler(lengths, batch, micro)
        steps = [one.next_step() for _ in range(max(1, 1_000_000 // batch))]
        real = sum(step.tokens for step in steps)
        padded = sum(padded_tokens(lengths[m.rows]) for step in steps for m in step.micro_batches)
        assert real / len(steps) == pytest.approx(batch, rel=0.08)
        assert 1 - real / padded < 0.02


def test_a_step_mixes_lengths_where_it_has_several_micro_batches() -> None:
    lengths = np.arange(1, 201, dtype=np.int32).repeat(40)[:, None]
    step = sampler(lengths, 65_536, 8192).next_step()
    widths = [int(lengths[m.rows].max()) for m in step.micro_batches]
    assert len(widths) >= 8 and min(widths) < 60 and max(widths) > 140


@given(row_lengths, st.integers(1, 300), st.integers(1, 300))
def test_the_bound_of_micro_batches_changes_no_key(lengths: np.ndarray, small: int, large: int) -> None:
    one, other = sampler(lengths, micro=small), sampler(lengths, micro=large)
    for _ in range(4):
        assert rows_in_drawn_order(one.next_step()) == rows_in_drawn_order(other.next_step())


@settings(max_examples=60, deadline=None)
@given(row_lengths, st.integers(1, 300), st.integers(2, 5))
def test_processes_share_a_step_between_them(lengths: np.ndarray, batch: int, processes: int) -> None:
    alone = sampler(lengths, batch)
    shares = [
        StepSampler(
            lengths, batch_tokens=batch, micro_batch_tokens=60, seed=3, rank=rank, processes=processes
        )
        for rank in range(processes)
    ]
    for _ in range(4):
        whole, parts = alone.next_step(), [one.next_step() for one in shares]
        assert len({(part.tokens, len(part.micro_batches)) for part in parts}) == 1
        assert parts[0].tokens == whole.tokens
        counted = [m for part in parts for m in part.micro_batches if not m.idle]
        dealt = sorted(pair for m in counted for pair in zip(m.keys, m.rows, strict=True))
        assert dealt == sorted(pair for m in whole.micro_batches for pair in zip(m.keys, m.rows, strict=True))
        assert all(len(m.rows) == 1 or padded_tokens(lengths[m.rows]) <= 60 for m in counted)
        assert all(len(m.rows) == 1 for part in parts for m in part.micro_batches if m.idle)
        assert all(one.state_dict() == alone.state_dict() for one in shares)
        assert sum(m.idle for part in parts for m in part.micro_batches) < processes


@settings(max_examples=50, deadline=None)
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
    steps = [one.next_step() for _ in range(2)]
    assert [sorted(rows_in_drawn_order(step)) for step in steps] == [[0, 5, 5], [1, 5, 5]]


def test_no_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="no rows to train on"):
        sampler(np.zeros((0, 1), dtype=np.int32))
