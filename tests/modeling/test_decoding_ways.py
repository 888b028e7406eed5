"""Ways of decoding that change nothing (an assistant, prompt lookup, a static cache), and what a step shows."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from tiny_networks import PAD, VOCAB_SIZE, random_ids, randomize, tiny_config

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {"do_sample": False},
    "beam": {"do_sample": False, "num_beams": 3},
    "sampling": {"do_sample": True},
    "beam sampling": {"do_sample": True, "num_beams": 2},
}
LENGTH = 12


@pytest.fixture(scope="module")
def model() -> MetroT0ForConditionalGeneration:
    return varied(randomize(MetroT0ForConditionalGeneration(tiny_config())))


def varied(model: MetroT0ForConditionalGeneration) -> MetroT0ForConditionalGeneration:
    """The model with embeddings of one length, so that no token wins everywhere."""
    with torch.no_grad():
        model.shared.weight.div_(model.shared.weight.norm(dim=1, keepdim=True) / 1.4)
    return model.eval().double()


def generate(model: MetroT0ForConditionalGeneration, ids: torch.Tensor, **more: Any) -> torch.Tensor:
    """Tokens ``[B, 1 + LENGTH]``, no pair of them twice; sampling is seeded."""
    torch.manual_seed(7)
    settings = {
        "input_ids": ids,
        "attention_mask": ids.ne(PAD).long(),
        "max_new_tokens": LENGTH,
        "suppress_tokens": [PAD],
        "eos_token_id": VOCAB_SIZE + 1,
        "repetition_penalty": 1.3,
    }
    return model.generate(**{**settings, **more})


@pytest.mark.parametrize("guesses", [1, 4])
@pytest.mark.parametrize("agrees", [True, False], ids=["an assistant that agrees", "one that does not"])
def test_an_assistant_changes_nothing(
    model: MetroT0ForConditionalGeneration, agrees: bool, guesses: int
) -> None:
    assistant = copy.deepcopy(model)
    if not agrees:
        assistant = varied(
            randomize(MetroT0ForConditionalGeneration(tiny_config(num_decoder_layers=1)), seed=9)
        )
    assistant.generation_config.num_assistant_tokens = guesses
    for seed in range(3):
        ids = random_ids([5 + 4 * seed], seed)
        assisted = generate(model, ids, assistant_model=assistant, do_sample=False)
        assert torch.equal(assisted, generate(model, ids, do_sample=False))


def test_an_assistant_that_agrees_saves_passes(model: MetroT0ForConditionalGeneration) -> None:
    passes: list[int] = []
    assistant = copy.deepcopy(model)
    handle = model.decoder.register_forward_hook(lambda *_: passes.append(1))
    try:
        generate(model, random_ids([9]), assistant_model=assistant, do_sample=False)
    finally:
        handle.remove()
    assert len(passes) < LENGTH


def test_sampling_with_an_assistant(model: MetroT0ForConditionalGeneration) -> None:
    assistant = copy.deepcopy(model)
    drawn = generate(model, random_ids([9]), assistant_model=assistant, do_sample=True)
    again = generate(model, random_ids([9]), assistant_model=assistant, do_sample=True)
    assert drawn.shape == (1, 1 + LENGTH) and torch.equal(drawn, again)


@pytest.mark.parametrize("size", [1, 3])
def test_prompt_lookup_changes_nothing(model: MetroT0ForConditionalGeneration, size: int) -> None:
    for seed in range(3):
        ids = random_ids([5 + 6 * seed], seed)
        looked_up = generate(model, ids, prompt_lookup_num_tokens=size, do_sample=False)
        assert torch.equal(looked_up, generate(model, ids, do_sample=False))


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("way", WAYS)
def test_a_static_cache_changes_nothing(
    model: MetroT0ForConditionalGeneration, way: str, attention: str
) -> None:
    model = copy.deepcopy(model)
    model.set_attn_implementation(attention)
    ids = random_ids([12, 5, 8])
    static = generate(model, ids, cache_implementation="static", disable_compile=True, **WAYS[way])
    assert torch.equal(static, generate(model, ids, **WAYS[way]))


def test_one_static_cache_after_another(model: MetroT0ForConditionalGeneration) -> None:
    """Nothing of an earlier call stays: prompts of other lengths, other numbers of them, longer and shorter answers."""
    for seed, lengths in enumerate(([12, 5, 8], [4, 7, 3], [15], [2, 2, 2, 2], [12, 5, 8])):
        ids, longest = random_ids(lengths, seed), 4 + seed
        static = generate(
            model, ids, max_new_tokens=longest, cache_implementation="static", disable_compile=True
        )
        assert torch.equal(static, generate(model, ids, max_new_tokens=longest))


@pytest.mark.parametrize("way", WAYS)
def test_padding_that_was_written_counts_alike_in_a_static_cache(
    model: MetroT0ForConditionalGeneration, way: str
) -> None:
    """It takes no position and is not looked at."""
    more = {"suppress_tokens": None, "sequence_bias": {(PAD,): 3.0}, **WAYS[way]}
    ids = random_ids([12, 5, 8])
    static = generate(model, ids, cache_implementation="static", disable_compile=True, **more)
    assert (static[:, 1:-2] == PAD).any(), "the case does not show what it should"
    assert torch.equal(static, generate(model, ids, **more))


@pytest.mark.parametrize("way", ["greedy", "beam"])
def test_a_padded_prompt_for_the_decoder_in_a_static_cache(
    model: MetroT0ForConditionalGeneration, way: str
) -> None:
    prompt = torch.tensor([[2, 5, 6, 7], [PAD, PAD, 2, 9]])
    more = {"decoder_input_ids": prompt, "decoder_attention_mask": prompt.ne(PAD).long(), **WAYS[way]}
    ids = random_ids([12, 5])
    static = generate(model, ids, cache_implementation="static", disable_compile=True, **more)
    assert torch.equal(static, generate(model, ids, **more))
    alone = {"decoder_input_ids": prompt[1:, 2:], **WAYS[way]}
    assert torch.equal(static[1, 2:], generate(model, ids[1:, :5], **alone)[0])


@pytest.mark.parametrize("cache", ["static", "dynamic"])
def test_an_answer_longer_than_the_positions_is_refused(
    model: MetroT0ForConditionalGeneration, cache: str
) -> None:
    with pytest.raises(ValueError, match="33 tokens is longer than the 32 positions"):
        generate(
            model,
            random_ids([5]),
            decoder_input_ids=torch.randint(4, 30, (1, 30)),
            cache_implementation=cache,
            disable_compile=True,
        )


@pytest.mark.parametrize("way", WAYS)
def test_what_a_step_saw_can_be_asked_for(model: MetroT0ForConditionalGeneration, way: str) -> None:
    """Shapes as transformers documents them: a tuple a token, in it a tensor a layer, a row a beam."""
    config, ids = model.config, random_ids([9, 4])
    beams = WAYS[way].get("num_beams", 1)
    written = generate(
        model,
        ids,
        return_dict_in_generate=True,
        output_attentions=True,
        output_hidden_states=True,
        output_scores=True,
        output_logits=True,
        **WAYS[way],
    )
    heads, layers, rows = config.num_heads, config.num_decoder_layers, 2 * beams
    assert [w.shape for w in written.encoder_attentions] == [(2, heads, 9, 9)] * config.num_layers
    assert [h.shape for h in written.encoder_hidden_states] == [(2, 9, 12)] * (config.num_layers + 1)
    for parts in (written.decoder_attentions, written.cross_attentions, written.decoder_hidden_states):
        assert len(parts) == LENGTH
    for step in range(LENGTH):
        seen = step + 1
        assert [w.shape for w in written.decoder_attentions[step]] == [(rows, heads, 1, seen)] * layers
        assert [w.shape for w in written.cross_attentions[step]] == [(rows, heads, 1, 9)] * layers
        assert [h.shape for h in written.decoder_hidden_states[step]] == [(rows, 1, 12)] * (layers + 1)
    assert len(written.scores) == len(written.logits) == LENGTH
    assert torch.equal(written.sequences, generate(model, ids, **WAYS[way]))


GOLDEN_WAYS: dict[str, dict[str, Any]] = {
    "static cache": {"cache_implementation": "static", "disable_compile": True},
    "eager attention": {},
    "prompt lookup": {"prompt_lookup_num_tokens": 3},
    "assisted": {},
}


@pytest.mark.parametrize("way", GOLDEN_WAYS)
def test_golden_tokens_by_every_way(golden: Path, way: str) -> None:
    cases = load_file(golden / "hf_tiny" / "cases.safetensors")
    model = MetroT0ForConditionalGeneration.from_pretrained(golden / "hf_tiny").eval()
    more = dict(GOLDEN_WAYS[way])
    if way == "assisted":
        more["assistant_model"] = copy.deepcopy(model)
    if way == "eager attention":
        model.set_attn_implementation("eager")
    # Guessing works on one text at a time.
    size = 1 if way in ("assisted", "prompt lookup") else len(cases["input_ids"])
    batches = zip(
        *(cases[name].split(size) for name in ("input_ids", "attention_mask", "greedy")), strict=True
    )
    for ids, mask, expected in batches:
        width = int(mask.sum(1).max())
        written = model.generate(
            input_ids=ids[:, :width], attention_mask=mask[:, :width], max_new_tokens=16, **more
        )
        assert torch.equal(written, expected[:, : written.shape[1]])
        assert expected[:, written.shape[1] :].eq(PAD).all()
