"""Attention a few rows at a time: the plain products' outputs and gradients, precision, dropout."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils.checkpoint import checkpoint

from metro_t0.modeling import row_attention as module
from metro_t0.modeling.attention import attend
from metro_t0.modeling.row_attention import row_attention

BLOCKED = 2 * module._CAUSAL_BLOCK


@dataclass(frozen=True)
class Case:
    """Inputs of one attention, all of them leaves, and the weights of the sum whose gradients are compared."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    bias: torch.Tensor | None
    mask: torch.Tensor | None
    causal: bool
    weights: torch.Tensor

    @property
    def leaves(self) -> list[torch.Tensor]:
        tensors = (self.query, self.key, self.value, self.bias)
        return [tensor for tensor in tensors if tensor is not None]

    def to(self, dtype: torch.dtype) -> Case:
        """The same numbers, rounded to the type, as leaves of their own."""
        moved = [None if t is None else _leaf(t.detach().to(dtype)) for t in self._floating()]
        return Case(*moved, self.mask, self.causal, self.weights.to(dtype))  # type: ignore[arg-type]

    def _floating(self) -> tuple[torch.Tensor | None, ...]:
        return self.query, self.key, self.value, self.bias

    def in_rows(self, dropout: float = 0.0) -> torch.Tensor:
        return row_attention(
            self.query,
            self.key,
            self.value,
            bias=self.bias,
            mask=self.mask,
            causal=self.causal,
            dropout=dropout,
        )

    def plainly(self) -> torch.Tensor:
        """By products that the mask of the causal rule is part of, since ``attend`` takes one or the other."""
        mask, causal = self.mask, self.causal
        if causal and mask is not None:
            length = self.query.shape[2]
            mask, causal = mask & torch.ones(length, length, dtype=torch.bool).tril(), False
        output, _ = attend(
            self.query,
            self.key,
            self.value,
            bias=self.bias,
            mask=mask,
            causal=causal,
            dropout=0.0,
            need_weights=True,
        )
        return output

    def with_gradients(self, output: torch.Tensor) -> list[torch.Tensor]:
        return [output, *torch.autograd.grad((output * self.weights).sum(), self.leaves)]


def _leaf(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.requires_grad_()


def case(
    batch: int,
    heads: int,
    length: int,
    key_length: int,
    *,
    width: int = 4,
    bias: str = "none",
    mask: str = "none",
    causal: bool = False,
    seed: int = 0,
) -> Case:
    """A float64 case; ``bias`` and ``mask`` say of which shape, a first key is in every query's sight."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    def hidden(*shape: int) -> torch.Tensor:
        visible = torch.rand(shape, generator=generator) < 0.6
        visible[..., 0] = True
        return visible

    biases = {
        "none": None,
        "shared": (1, heads, length, key_length),
        "each row": (batch, heads, length, key_length),
        "keys": (1, 1, 1, key_length),
    }
    masks = {"none": None, "keys": (batch, 1, 1, key_length), "full": (batch, 1, length, key_length)}
    bias_shape, mask_shape = biases[bias], masks[mask]
    return Case(
        _leaf(drawn(batch, heads, length, width)),
        _leaf(drawn(batch, heads, key_length, width)),
        _leaf(drawn(batch, heads, key_length, width)),
        None if bias_shape is None else _leaf(drawn(*bias_shape)),
        None if mask_shape is None else hidden(*mask_shape),
        causal,
        drawn(batch, heads, length, width),
    )


def assert_same(given_case: Case) -> None:
    ours = given_case.with_gradients(given_case.in_rows())
    plain = given_case.with_gradients(given_case.plainly())
    for one, other in zip(ours, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    heads=st.integers(1, 3),
    length=st.integers(1, 12),
    key_length=st.integers(1, 12),
    bias=st.sampled_from(["none", "shared", "each row", "keys"]),
    mask=st.sampled_from(["none", "keys", "full"]),
    causal=st.booleans(),
    rows_at_once=st.sampled_from([1, 2, 100]),
    seed=st.integers(0, 999),
)
def test_equals_the_plain_products(
    batch: int,
    heads: int,
    length: int,
    key_length: int,
    bias: str,
    mask: str,
    causal: bool,
    rows_at_once: int,
    seed: int,
) -> None:
    key_length = length if causal else key_length
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_CHUNK_BYTES", rows_at_once * heads * length * key_length * 8)
        assert_same(case(batch, heads, length, key_length, bias=bias, mask=mask, causal=causal, seed=seed))


@pytest.mark.parametrize("length", [BLOCKED - 1, BLOCKED, BLOCKED + 45])
@pytest.mark.parametrize(("bias", "mask"), [("none", "none"), ("shared", "keys"), ("each row", "full")])
def test_causal_blocks_of_queries(length: int, bias: str, mask: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    blocks = module._query_blocks(length, causal=True)
    assert len(blocks) == (1 if length < BLOCKED else -(-length // module._CAUSAL_BLOCK))
    assert_same(case(2, 2, length, length, bias=bias, mask=mask, causal=True))


@pytest.mark.parametrize(
    ("batch", "length", "bias", "mask", "causal"),
    [(600, 8, "shared", "keys", False), (3, BLOCKED, "none", "none", True)],
)
def test_bfloat16_is_as_near_to_the_truth_as_the_plain_products(
    batch: int, length: int, bias: str, mask: str, causal: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Even when the gradient of a bias is added up from as many parts as there are rows."""
    monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
    half = case(batch, 2, length, length, width=8, bias=bias, mask=mask, causal=causal).to(torch.bfloat16)
    exact = half.to(torch.float64)
    truth = exact.with_gradients(exact.plainly())
    ours, plain = half.with_gradients(half.in_rows()), half.with_gradients(half.plainly())
    for one, other, true in zip(ours, plain, truth, strict=True):
        assert one.dtype == torch.bfloat16
        assert (one - true).norm() <= 1.2 * (other - true).norm()


class TestDropout:
    @pytest.mark.parametrize("mask", ["none", "keys"])
    @pytest.mark.parametrize("causal", [False, True], ids=["", "causal"])
    def test_gradients(self, mask: str, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "_CHUNK_BYTES", 1)
        small = case(2, 2, 4, 4, width=3, bias="shared", mask=mask, causal=causal)

        def output(*leaves: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(3)
            return Case(*leaves, small.mask, causal, small.weights).in_rows(dropout=0.4)

        assert torch.autograd.gradcheck(output, small.leaves)

    def test_gradients_across_blocks_of_queries(self) -> None:
        long = case(1, 1, BLOCKED + 3, BLOCKED + 3, width=2, causal=True)

        def output(*leaves: torch.Tensor) -> torch.Tensor:
            torch.manual_seed(3)
            return Case(*leaves, None, None, True, long.weights).in_rows(dropout=0.4)

        assert torch.autograd.gradcheck(output, long.leaves, fast_mode=True)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
    def test_keeps_the_mean(self, dtype: torch.dtype) -> None:
        torch.manual_seed(0)
        query, key = torch.randn(2, 3000, 1, 3, 4, dtype=dtype).unbind()
        value = torch.ones(3000, 1, 3, 4, dtype=dtype)
        output = row_attention(query, key, value, bias=None, mask=None, causal=False, dropout=0.3)
        assert output.float().std() > 0.1
        # The mean of 9000 rows strays by 0.005 or so.
        torch.testing.assert_close(
            output.double().mean((0, 2)), torch.ones(1, 4).double(), rtol=0.03, atol=0.0
        )

    def test_the_seed_decides(self) -> None:
        small = case(2, 2, 6, 6)
        outputs = []
        for seed in (4, 4, 5):
            torch.manual_seed(seed)
            outputs.append(small.in_rows(dropout=0.5))
        assert torch.equal(outputs[0], outputs[1]) and not torch.equal(outputs[0], outputs[2])

    def test_recomputation_drops_the_same(self) -> None:
        small = case(3, 2, 6, 6, bias="shared", mask="keys")
        found = []
        for recomputed in (False, True):
            torch.manual_seed(7)
            output = checkpoint(small.in_rows, 0.5, use_reentrant=False) if recomputed else small.in_rows(0.5)
            torch.rand(5)  # what a later layer draws must not matter
            found.append(small.with_gradients(output))
        assert all(map(torch.equal, *found))
