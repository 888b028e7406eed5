"""Buckets, the spreading of the relative bias, and the two ways in which attention is computed."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.modeling.attention import (
    Attention,
    at_positions,
    attend,
    cyclic_distances,
    relative_buckets,
    spread,
)
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from network_reference import bucket_table
from tiny_networks import PAD, random_ids, randomize, tiny_config

# Smallest magnitudes of bucket 0, 1, 2, … as the official function has them.
SMALLEST = {
    (32, 128): [*range(8), 8, 9, 12, 18, 27, 39, 58, 86],
    (128, 256): [
        *range(32),
        *(32, 33, 35, 37, 40, 42, 45, 48, 52, 55, 59, 63, 67, 72, 77, 82),
        *(88, 94, 100, 107, 115, 123, 131, 140, 150, 160, 171, 183, 196, 209, 224, 239),
    ],
    (128, 128): [
        *range(32),
        *(32, 33, 34, 35, 37, 39, 40, 42, 44, 46, 48, 50, 53, 55, 58, 60),
        *(63, 66, 69, 72, 75, 78, 82, 86, 89, 94, 98, 102, 107, 112, 117, 122),
    ],
}


@pytest.mark.parametrize(("buckets", "max_distance"), SMALLEST)
@pytest.mark.parametrize("max_positions", [512, 1024])
def test_buckets_are_the_official_ones(buckets: int, max_distance: int, max_positions: int) -> None:
    smallest = torch.tensor(SMALLEST[buckets, max_distance])
    middle = buckets // 2 - 1
    distances = torch.arange(1024)
    magnitudes = torch.searchsorted(smallest, distances, right=True) - 1
    ours = relative_buckets(distances, buckets, max_distance, max_positions)
    assert torch.equal(ours, middle + magnitudes)
    assert torch.equal(
        relative_buckets(-distances, buckets, max_distance, max_positions), middle - magnitudes
    )
    assert ours.max() == buckets - 2, "the last row stays unused"


@pytest.mark.parametrize("positions", [1, 2, 5, 12, 40, 64, 200])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (16, 22), (8, 40)])
def test_rows_are_counted_from_the_farthest_pair(positions: int, buckets: int, max_distance: int) -> None:
    places = torch.arange(positions)
    distances = places.unsqueeze(0) - places.unsqueeze(1)
    ours = relative_buckets(distances, buckets, max_distance, positions)
    assert ours.min() == 0
    assert torch.equal(ours, torch.from_numpy(bucket_table(positions, buckets, max_distance)))


def test_pairs_farther_than_the_table_share_its_ends() -> None:
    ours = relative_buckets(torch.tensor([-100, -4, 4, 100]), 32, 128, max_positions=5)
    assert ours.tolist() == [0, 0, 8, 19]


@settings(max_examples=25, deadline=None)
@given(length=st.integers(1, 40), heads=st.integers(1, 3))
def test_spread_is_a_lookup_by_distance(length: int, heads: int) -> None:
    distances = cyclic_distances(length, torch.device("cpu"))
    values = torch.randn(heads, 2 * length, dtype=torch.float64, requires_grad=True)
    by_distance = dict(zip(distances.tolist(), range(2 * length), strict=True))
    index = torch.tensor([[by_distance[key - query] for key in range(length)] for query in range(length)])
    looked_up = values[:, index].unsqueeze(0)
    weights = torch.randn_like(looked_up)
    assert torch.equal(spread(values, length), looked_up)
    (ours,) = torch.autograd.grad((spread(values, length) * weights).sum(), values)
    (expected,) = torch.autograd.grad((looked_up * weights).sum(), values)
    torch.testing.assert_close(ours, expected)


@pytest.mark.parametrize("biased", [False, True], ids=["no bias", "bias"])
@pytest.mark.parametrize("limit", ["nothing", "causal", "padding"])
def test_fused_and_plain_attention_agree(limit: str, biased: bool) -> None:
    torch.manual_seed(0)
    query, key, value = torch.randn(3, 2, 4, 7, 5).unbind()
    bias = torch.randn(1, 4, 7, 7) if biased else None
    mask = torch.ones(2, 1, 1, 7, dtype=torch.bool)
    mask[1, ..., 4:] = False
    common = {
        "bias": bias,
        "mask": mask if limit == "padding" else None,
        "causal": limit == "causal" and not biased,
        "dropout": 0.0,
    }
    with torch.no_grad():
        fused, nothing = attend(query, key, value, **common, need_weights=False)
    plain, weights = attend(query, key, value, **common, need_weights=True)
    assert nothing is None
    torch.testing.assert_close(fused, plain)
    torch.testing.assert_close(weights.sum(dim=-1), torch.ones(2, 4, 7))
    if common["causal"]:
        assert weights.triu(1).count_nonzero() == 0
    if limit == "padding":
        assert weights[1, ..., 4:].count_nonzero() == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_type(dtype: torch.dtype) -> None:
    query, key, value = torch.randn(3, 1, 2, 6, 4, dtype=dtype).unbind()
    bias = torch.randn(1, 2, 6, 6)
    mask = torch.tensor([True] * 4 + [False] * 2)[None, None, None]
    common = {"bias": bias, "mask": mask, "causal": False, "dropout": 0.0}
    with torch.no_grad():
        fused, _ = attend(query, key, value, **common, need_weights=False)
    plain, _ = attend(query, key, value, **common, need_weights=True)
    assert fused.dtype == plain.dtype == dtype
    torch.testing.assert_close(fused, plain, rtol=2e-2, atol=2e-2)


def test_dropout_of_probabilities_keeps_their_mean() -> None:
    torch.manual_seed(0)
    query, key = torch.randn(2, 3000, 1, 3, 4).unbind()
    value = torch.ones(3000, 1, 3, 4)
    output, _ = attend(query, key, value, bias=None, mask=None, causal=False, dropout=0.3, need_weights=True)
    assert output.std() > 0.1
    torch.testing.assert_close(output.mean(0), value[0], rtol=0.05, atol=0.05)


def test_gradients_of_one_attention() -> None:
    config = tiny_config(relative_attention_num_buckets=8, relative_attention_max_distance=10)
    attention = randomize(Attention(config, 0.0, 0, relative_bias=True)).double()
    buckets = relative_buckets(cyclic_distances(5, torch.device("cpu")), 8, 10, 32)
    states = torch.randn(2, 5, 12, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])[:, None, None]
    bias = attention.relative_attention_bias.weight

    def value(states: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        parameters = {"relative_attention_bias.weight": weight}
        arguments = {"mask": mask, "buckets": buckets}
        return torch.func.functional_call(attention, parameters, (states,), arguments)[0]

    # The softmax runs in float32 whatever the model's type, hence the coarse steps.
    assert torch.autograd.gradcheck(value, (states, bias), eps=1e-3, atol=2e-3, rtol=1e-3, fast_mode=True)


class TestMaskOfKeysBesideABias:
    """The fused kernel gets the mask as one more feature of queries and keys."""

    @staticmethod
    def _inputs(dtype: torch.dtype, scale: float) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
        generator = torch.Generator().manual_seed(0)
        inputs = (torch.randn(3, 2, 4, 9, 8, generator=generator) * scale).to(dtype).unbind()
        bias = torch.randn(1, 4, 9, 9, generator=generator) * scale
        mask = torch.ones(2, 1, 1, 9, dtype=torch.bool)
        mask[0, ..., 6:] = False
        mask[1, ..., ::2] = False
        return list(inputs), {"bias": bias, "mask": mask}

    @torch.no_grad()
    def test_is_the_masked_computation(self) -> None:
        inputs, limits = self._inputs(torch.float32, 1.0)
        fused, _ = attend(*inputs, **limits, causal=False, dropout=0.0, need_weights=False)
        plain, _ = attend(*inputs, **limits, causal=False, dropout=0.0, need_weights=True)
        torch.testing.assert_close(fused, plain, rtol=1e-5, atol=1e-5)

    @torch.no_grad()
    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
    @pytest.mark.parametrize("scale", [1.0, 8.0])
    def test_hidden_keys_weigh_exactly_nothing(self, dtype: torch.dtype, scale: float) -> None:
        (query, key, value), limits = self._inputs(dtype, scale)
        outputs = []
        for filler in (0.0, 3e4):  # what float16 holds
            hidden = value.masked_fill(~limits["mask"].transpose(2, 3), filler)
            output, _ = attend(query, key, hidden, **limits, causal=False, dropout=0.0, need_weights=False)
            outputs.append(output)
        assert torch.equal(*outputs)


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("padded", [False, True], ids=["", "padded"])
class TestOnlySomePositions:
    """Asked for the states at some positions, a stack gives what it gives there when asked for all."""

    POSITIONS = torch.tensor([[0, 3, 3, 8], [6, 2, 0, 6], [5, 4, 1, 2]])

    @staticmethod
    def _model(attention: str) -> MetroT0ForConditionalGeneration:
        model = randomize(MetroT0ForConditionalGeneration(tiny_config())).double()
        model.set_attn_implementation(attention)
        return model

    def _assert_same(self, stack: torch.nn.Module, **inputs: torch.Tensor | None) -> None:
        weights = torch.randn(3, 4, 12, dtype=torch.float64)
        found = []
        for positions in (None, self.POSITIONS):
            states = stack(**inputs, positions=positions).last_hidden_state
            if positions is None:
                assert states.shape[1] > 4
                states = at_positions(states, self.POSITIONS)
            stack.zero_grad()
            (states * weights).sum().backward()
            found.append([states, *(parameter.grad.clone() for parameter in stack.parameters())])
            with torch.no_grad():  # where another kernel computes
                alone = stack(**inputs, positions=self.POSITIONS).last_hidden_state
            torch.testing.assert_close(alone, states, rtol=1e-6, atol=1e-6)
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)

    def test_encoder(self, attention: str, padded: bool) -> None:
        ids = random_ids([9, 7, 6] if padded else [9, 9, 9])
        mask = ids.ne(PAD) if padded else None
        self._assert_same(self._model(attention).encoder, input_ids=ids, attention_mask=mask)

    def test_decoder(self, attention: str, padded: bool) -> None:
        ids = random_ids([9, 7, 6] if padded else [9, 9, 9], seed=1)
        encoder_mask = torch.ones(3, 5, dtype=torch.bool)
        encoder_mask[1, 3:] = False
        self._assert_same(
            self._model(attention).decoder,
            input_ids=ids,
            attention_mask=ids.ne(PAD) if padded else None,
            encoder_hidden_states=torch.randn(3, 5, 12, dtype=torch.float64),
            encoder_attention_mask=encoder_mask if padded else None,
        )
