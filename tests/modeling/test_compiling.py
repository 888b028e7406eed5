"""Compiled in one piece, the model computes what it computes uncompiled: forward, gradients, generation.

The default tier traces without making code (backend ``eager``), which is where a model fails; the slow one makes it.
"""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from transformers import CompileConfig

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from tiny_networks import PAD, VOCAB_SIZE, random_ids, randomize, tiny_config

BACKENDS = [
    "eager",
    pytest.param(
        "inductor",
        marks=[pytest.mark.slow, pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")],
    ),
]


@pytest.fixture
def model() -> Iterator[MetroT0ForConditionalGeneration]:
    torch._dynamo.reset()
    yield randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()
    torch._dynamo.reset()


@pytest.mark.parametrize("attention", ["sdpa", pytest.param("eager", marks=pytest.mark.slow)])
@pytest.mark.parametrize("backend", BACKENDS)
def test_forward(model: MetroT0ForConditionalGeneration, backend: str, attention: str) -> None:
    """Twice, with other lengths, so that the second pass is compiled for any."""
    model.set_attn_implementation(attention)
    compiled = torch.compile(model, fullgraph=True, backend=backend)
    for lengths in ([12, 5, 8], [6, 9]):
        ids = random_ids(lengths)
        inputs = {"input_ids": ids, "decoder_input_ids": ids[:, :5], "use_cache": False}
        with torch.no_grad():
            expected = model(**inputs).logits
            torch.testing.assert_close(compiled(**inputs).logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients(model: MetroT0ForConditionalGeneration, backend: str) -> None:
    """The loss and every gradient of a training step, with the kernels that each of the two uses."""
    ids = random_ids([12, 5, 8])
    inputs = {"input_ids": ids, "labels": ids.masked_fill(ids == PAD, -100)}
    model.train()
    model(**inputs).loss.backward()
    twin = copy.deepcopy(model)
    twin.zero_grad()
    torch.compile(twin, fullgraph=True, backend=backend)(**inputs).loss.backward()
    for (name, expected), found in zip(model.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_generation_with_a_static_cache(model: MetroT0ForConditionalGeneration, backend: str) -> None:
    """As ``generate`` itself compiles on a GPU: one graph for all steps behind the first."""
    ids = random_ids([12, 5, 8])
    settings: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": ids.ne(PAD).long(),
        "max_new_tokens": 8,
        "do_sample": False,
        "suppress_tokens": [PAD],
        "eos_token_id": VOCAB_SIZE + 1,
        "repetition_penalty": 1.3,
    }
    expected = model.generate(**settings)
    compile_config = CompileConfig(fullgraph=True, backend=backend, mode=None)
    compile_config._compile_all_devices = True
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    written = model.generate(**settings, cache_implementation="static", compile_config=compile_config)
    assert torch.equal(written, expected)
    assert graphs["unique_graphs"] == 1
