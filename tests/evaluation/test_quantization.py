"""Weights of 8 bits: close to float32, the same whatever stands beside a row, for any encoder-decoder."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from foreign_models import save_foreign_model
from hypothesis import given, settings
from hypothesis import strategies as st
from small_models import make_model, make_tokenizer
from torch import nn
from transformers import AutoModelForSeq2SeqLM

from metro_t0.evaluation.quantization import Int8Linear, int8_is_supported, quantize
from metro_t0.evaluation.ranking.rank import rank_rows

pytestmark = pytest.mark.skipif(not int8_is_supported(), reason="torch without FBGEMM")


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    rows=st.integers(1, 9),
    width=st.integers(1, 130),
    outputs=st.integers(1, 70),
    magnitude=st.sampled_from([1e-20, 1e-3, 1.0, 1e4]),
    bias=st.booleans(),
    seed=st.integers(0, 999),
)
def test_a_layer_is_as_close_as_8_bits_allow(
    rows: int, width: int, outputs: int, magnitude: float, bias: bool, seed: int
) -> None:
    torch.manual_seed(seed)
    linear = nn.Linear(width, outputs, bias=bias).requires_grad_(False)
    inputs = torch.randn(rows, width) * magnitude
    layer = Int8Linear(linear)
    found, exact = layer(inputs), linear(inputs)
    # Half a step of each input and half of each weight, summed over the width.
    largest_input, largest_weight = inputs.abs().amax(1, keepdim=True), linear.weight.abs().amax(1)
    assert ((layer.weight() - linear.weight).abs().amax(1) <= largest_weight / 253).all()
    steps = inputs.abs().sum(1, keepdim=True) * largest_weight / 254
    steps = steps + linear.weight.abs().sum(1) * largest_input / 126 + 1e-6 * exact.abs()
    assert ((found - exact).abs() <= 1.1 * steps + 1e-6).all()


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    torch.manual_seed(0)
    layer = Int8Linear(nn.Linear(64, 48))
    inputs = torch.randn(5, 7, 64) * torch.tensor([1e-3, 1.0, 50.0, 0.0, 3.0])[:, None, None]
    together = layer(inputs)
    assert torch.equal(together, torch.stack([layer(one[None])[0] for one in inputs]))
    assert torch.equal(together[3], layer.bias.expand(7, -1)), "a row of zeros gives the bias"


def test_the_largest_products_do_not_overflow() -> None:
    linear = nn.Linear(4096, 3, bias=False).requires_grad_(False)
    linear.weight.copy_(torch.tensor([1.0, -1.0, 0.5])[:, None].expand(3, 4096))
    found = Int8Linear(linear)(torch.ones(2, 4096))
    assert torch.allclose(found, linear(torch.ones(2, 4096)), rtol=5e-3)


def test_predictions_of_a_model_stay_what_they_were(tmp_path: Path) -> None:
    tokenizer = make_tokenizer(tmp_path)
    model = make_model(tokenizer, seed=3).eval()
    prompts = ["does it follow that the engine sold?", "which lawyer repaired the old clock?", "yes or no?"]
    choices = [["yes", "no"], ["the lawyer", "the committee", "two children"], ["true", "false"]]
    precise = rank_rows(model, tokenizer, prompts, choices)
    rounded = rank_rows(quantize(copy.deepcopy(model)), tokenizer, prompts, choices)
    for one, other in zip(precise, rounded, strict=True):
        assert one.log_likelihoods != other.log_likelihoods
        assert other.log_likelihoods == pytest.approx(one.log_likelihoods, rel=0.1)
    ids = tokenizer(prompts[1], return_tensors="pt").input_ids
    model = quantize(model)
    with_cache = model.generate(ids, max_new_tokens=12, use_cache=True)
    assert torch.equal(with_cache, model.generate(ids, max_new_tokens=12, use_cache=False))


@pytest.mark.parametrize("kind", ["t5", "bart"])
def test_other_encoder_decoders(kind: str, tmp_path: Path) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(save_foreign_model(kind, tmp_path)).eval()
    ids = torch.tensor([[5, 9, 23, 40, 2], [7, 7, 12, 31, 2]])
    with torch.no_grad():
        exact = model(input_ids=ids, decoder_input_ids=ids).logits
        found = quantize(model)(input_ids=ids, decoder_input_ids=ids).logits
    assert not any(isinstance(module, nn.Linear) for module in model.modules())
    assert not torch.equal(found, exact)
    assert (found - exact).norm() < 0.1 * exact.norm()


def test_what_is_refused(tmp_path: Path) -> None:
    model = make_model(make_tokenizer(tmp_path))
    with pytest.raises(ValueError, match=r"float32 model on the CPU, not torch\.bfloat16"):
        quantize(copy.deepcopy(model).bfloat16())
    with pytest.raises(ValueError, match="is not saved"):
        quantize(model).save_pretrained(tmp_path / "int8")
