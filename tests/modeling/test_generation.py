"""Generation: cache, side of the padding, attention kernel and precomputed encoder states change nothing."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForSeq2SeqLM

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from tiny_networks import PAD, VOCAB_SIZE, random_ids, randomize, tiny_config

WAYS = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 3},
    "sampling": {"do_sample": True, "top_k": 0},
    "beam sampling": {"do_sample": True, "num_beams": 2},
}


@pytest.fixture(scope="module")
def model() -> MetroT0ForConditionalGeneration:
    """More decoder layers than encoder layers, and embeddings of one length, so that no token wins everywhere."""
    model = randomize(MetroT0ForConditionalGeneration(tiny_config(num_layers=2, num_decoder_layers=3))).eval()
    with torch.no_grad():
        model.shared.weight.div_(model.shared.weight.norm(dim=1, keepdim=True) / 1.4)
    return model.double()


def generate(
    model: MetroT0ForConditionalGeneration, ids: torch.Tensor | None, way: str, **more: object
) -> torch.Tensor:
    """Tokens ``[B, T]``, none twice in a row of them, or else random weights repeat one; sampling is seeded."""
    torch.manual_seed(7)
    if ids is not None:
        more = {"input_ids": ids, "attention_mask": ids.ne(PAD).long(), **more}
    return model.generate(**{"max_new_tokens": 8, "no_repeat_ngram_size": 1, **WAYS[way], **more})


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(2, 20), min_size=1, max_size=4), seed=st.integers(0, 999))
def test_the_cache_changes_nothing(
    model: MetroT0ForConditionalGeneration, way: str, lengths: list[int], seed: int
) -> None:
    ids = random_ids(lengths, seed)
    with_cache = generate(model, ids, way, use_cache=True)
    assert torch.equal(with_cache, generate(model, ids, way, use_cache=False))


@pytest.mark.parametrize("way", WAYS)
def test_padding_as_an_ordinary_token_is_counted_alike(
    model: MetroT0ForConditionalGeneration, way: str
) -> None:
    """A generated padding token takes no position and is not looked at, with the cache as without."""
    ids = random_ids([12, 5, 8])
    pushed = {"sequence_bias": {(PAD,): 3.0, (2,): -50.0}}
    with_cache = generate(model, ids, way, use_cache=True, **pushed)
    assert (with_cache[:, 1:-2] == PAD).any(), "the case does not show what it should"
    assert torch.equal(with_cache, generate(model, ids, way, use_cache=False, **pushed))


@pytest.mark.parametrize("way", WAYS)
@settings(max_examples=6, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(2, 20), min_size=2, max_size=4), seed=st.integers(0, 999))
def test_the_side_of_the_padding_changes_nothing(
    model: MetroT0ForConditionalGeneration, way: str, lengths: list[int], seed: int
) -> None:
    right, left = random_ids(lengths, seed), random_ids(lengths, seed, pad_left=True)
    assert torch.equal(generate(model, right, way), generate(model, left, way))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_static_cache(model: MetroT0ForConditionalGeneration, attention: str) -> None:
    model = copy.deepcopy(model)
    model.set_attn_implementation(attention)
    ids = random_ids([12, 5, 8])
    more = {"suppress_tokens": [PAD], "eos_token_id": VOCAB_SIZE + 1}
    static = generate(model, ids, "greedy", cache_implementation="static", disable_compile=True, **more)
    assert torch.equal(static, generate(model, ids, "greedy", **more))


@settings(max_examples=6, deadline=None, derandomize=True)
@given(lengths=st.lists(st.integers(2, 20), min_size=2, max_size=4), seed=st.integers(0, 999))
def test_a_batch_gives_what_its_rows_give(
    model: MetroT0ForConditionalGeneration, lengths: list[int], seed: int
) -> None:
    ids = random_ids(lengths, seed)
    together = generate(model, ids, "greedy")
    for row, length in enumerate(lengths):
        alone = generate(model, ids[row : row + 1, :length], "greedy")[0]
        assert torch.equal(together[row, : len(alone)], alone)
        assert together[row, len(alone) :].eq(PAD).all()


@pytest.mark.parametrize("way", WAYS)
def test_from_encoder_states(model: MetroT0ForConditionalGeneration, way: str) -> None:
    ids = random_ids([12, 5, 8])
    with torch.no_grad():
        encoded = model.get_encoder()(ids, ids.ne(PAD))
    again = generate(model, None, way, encoder_outputs=encoded, attention_mask=ids.ne(PAD).long())
    assert torch.equal(again, generate(model, ids, way))


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_both_attention_implementations(model: MetroT0ForConditionalGeneration, way: str) -> None:
    model = copy.deepcopy(model)
    ids = random_ids([12, 5, 8])
    tokens = []
    for attention in ("eager", "sdpa"):
        model.set_attn_implementation(attention)
        tokens.append(generate(model, ids, way))
    assert torch.equal(*tokens)


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
def test_a_prompt_for_the_decoder(model: MetroT0ForConditionalGeneration, use_cache: bool) -> None:
    """Continuing from the first tokens of an answer gives the rest, from left-padded ones too."""
    ids = random_ids([12, 5])
    endless = {"eos_token_id": VOCAB_SIZE + 1, "suppress_tokens": [PAD], "use_cache": use_cache}
    whole = generate(model, ids, "greedy", **endless)
    again = generate(model, ids, "greedy", decoder_input_ids=whole[:, :6], max_new_tokens=3, **endless)
    assert torch.equal(again, whole)
    padded = torch.full((2, 6), PAD)
    padded[0], padded[1, 3:] = whole[0, :6], whole[1, :3]
    again = generate(
        model,
        ids,
        "greedy",
        decoder_input_ids=padded,
        decoder_attention_mask=padded.ne(PAD).long(),
        max_new_tokens=3,
        **endless,
    )
    assert torch.equal(again[0], whole[0])
    assert torch.equal(again[1, 3:], whole[1, :6])


def test_shapes_of_what_can_be_asked_for(model: MetroT0ForConditionalGeneration) -> None:
    config = model.config
    ids, decoder_ids = random_ids([9, 4]), random_ids([6, 6])
    output = model(
        input_ids=ids, decoder_input_ids=decoder_ids, output_attentions=True, output_hidden_states=True
    )
    heads = config.num_heads
    assert [tuple(w.shape) for w in output.encoder_attentions] == [(2, heads, 9, 9)] * config.num_layers
    layers = config.num_decoder_layers
    assert [tuple(w.shape) for w in output.decoder_attentions] == [(2, heads, 6, 6)] * layers
    assert [tuple(w.shape) for w in output.cross_attentions] == [(2, heads, 6, 9)] * layers
    assert [tuple(h.shape) for h in output.encoder_hidden_states] == [(2, 9, 12)] * (config.num_layers + 1)
    assert [tuple(h.shape) for h in output.decoder_hidden_states] == [(2, 6, 12)] * (layers + 1)
    assert output.logits.shape == (2, 6, VOCAB_SIZE)
    for weights in (*output.encoder_attentions, *output.decoder_attentions, *output.cross_attentions):
        torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights.sum(-1)))
    for weights in (*output.encoder_attentions, *output.cross_attentions):
        assert weights[1, ..., 4:].count_nonzero() == 0
    nothing = model(input_ids=ids, decoder_input_ids=decoder_ids)
    assert nothing.encoder_attentions is None and nothing.decoder_hidden_states is None

    generated = model.generate(
        input_ids=ids,
        max_new_tokens=4,
        output_attentions=True,
        return_dict_in_generate=True,
        min_new_tokens=4,
    )
    assert len(generated.decoder_attentions) == 4
    assert generated.decoder_attentions[3][0].shape == (2, heads, 1, 4)
    assert generated.cross_attentions[3][0].shape == (2, heads, 1, 9)


def test_cross_attention_keys_are_computed_once(model: MetroT0ForConditionalGeneration) -> None:
    calls = []
    layer = model.decoder.block[0].layer[1].EncDecAttention
    handle = layer.k.register_forward_hook(lambda *_: calls.append(1))
    try:
        generate(model, random_ids([7, 3]), "greedy", min_new_tokens=6)
    finally:
        handle.remove()
    assert len(calls) == 1


def test_the_auto_class_knows_the_model(model: MetroT0ForConditionalGeneration) -> None:
    assert isinstance(AutoModelForSeq2SeqLM.from_config(model.config), MetroT0ForConditionalGeneration)
