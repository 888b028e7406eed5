"""Compiled layers give the layers' own numbers; a machine that cannot compile is told of in one line."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from metro_t0.training.compilation import compile_layers
from tiny_networks import random_text, randomize, tiny_config

PROGRAM = """
import torch
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.training.compilation import compile_layers
model = MetroT0ForPreTraining(MetroT0Config(vocab_size=600, d_model=16, d_kv=8, d_ff=32, num_heads=2, num_layers=1,
    num_decoder_layers=1, num_auxiliary_layers=1))
print(compile_layers(model, print))
ids = torch.randint(4, 60, (2, 16))
print(model.encoder(ids).last_hidden_state.shape)
"""


@pytest.mark.slow
def test_compiled_layers_give_the_same() -> None:
    said: list[str] = []
    plain = randomize(MetroT0ForPreTraining(tiny_config(dropout_rate=0.0))).train()
    compiled = MetroT0ForPreTraining(plain.config).train()
    compiled.load_state_dict(plain.state_dict())
    assert compile_layers(compiled, said.append) and not said
    for lengths in ([12, 9], [24, 24, 24]):
        text, objective = random_text(lengths), MetroObjective(rtd_weight=5.0)
        outputs = [model(**text.inputs(), objective=objective) for model in (plain, compiled)]
        torch.testing.assert_close(outputs[1].loss, outputs[0].loss, rtol=1e-5, atol=1e-5)
        for output, model in zip(outputs, (plain, compiled), strict=True):
            model.zero_grad()
            output.loss.backward()
        for one, other in zip(compiled.parameters(), plain.parameters(), strict=True):
            torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-4)


def test_without_a_compiler_it_says_so_and_goes_on() -> None:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, "CXX": "no-such-compiler", "TORCHINDUCTOR_FORCE_DISABLE_CACHES": "1"},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stderr
    first, second, third = found.stdout.strip().splitlines()
    assert first.startswith("training.compile_layers: this machine cannot compile, layers run as they are (")
    assert (second, third) == ("False", "torch.Size([2, 16, 16])")
