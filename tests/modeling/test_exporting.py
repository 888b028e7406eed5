"""torch.export: the encoder as it is, and the two programs of ``examples/export.py``, for any sizes."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch.export import Dim

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from tiny_networks import PAD, random_ids, randomize, tiny_config

EXAMPLE = Path(__file__).parents[2] / "examples" / "export.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    described = importlib.util.spec_from_file_location("example_export", EXAMPLE)
    assert described is not None and described.loader is not None
    module = importlib.util.module_from_spec(described)
    sys.modules[described.name] = module
    described.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def model() -> MetroT0ForConditionalGeneration:
    return randomize(MetroT0ForConditionalGeneration(tiny_config(num_layers=1, num_decoder_layers=2))).eval()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@torch.no_grad()
def test_the_encoder(model: MetroT0ForConditionalGeneration, attention: str) -> None:
    model.set_attn_implementation(attention)
    ids = random_ids([12, 5, 8])
    any_size = {0: Dim("rows"), 1: Dim("length", max=32)}
    program = torch.export.export(
        model.encoder,
        (),
        {"input_ids": ids, "attention_mask": ids.ne(PAD).long()},
        dynamic_shapes={"input_ids": any_size, "attention_mask": any_size},
    ).module()
    for lengths in ([7], [32, 3], [2, 2, 2, 2, 2]):
        ids = random_ids(lengths)
        mask = ids.ne(PAD).long()
        exported = program(input_ids=ids, attention_mask=mask).last_hidden_state
        torch.testing.assert_close(exported, model.encoder(ids, mask).last_hidden_state)


@torch.no_grad()
def test_a_step_of_the_decoder(
    example: ModuleType, model: MetroT0ForConditionalGeneration, tmp_path: Path
) -> None:
    """Exported with two rows and four tokens written, saved, read, and run with other numbers of each."""
    for number, program in enumerate(example.export_model(model)):
        torch.export.save(program, tmp_path / f"{number}.pt2")
    encoder, step = (torch.export.load(tmp_path / f"{number}.pt2") for number in range(2))
    run_encoder, run_step = encoder.module(), step.module()
    for lengths in ([7], [32], [12, 5, 8, 30, 2]):
        ids = random_ids(lengths)
        mask = ids.ne(PAD).long()
        decoder_ids = torch.cat([torch.full((len(ids), 1), 2), torch.randint(4, 30, (len(ids), 6))], dim=1)
        expected = model(input_ids=ids, decoder_input_ids=decoder_ids, use_cache=False).logits
        prompt, past = run_encoder(ids, mask), example.nothing_written(model, len(ids))
        for position in range(7):
            logits, past = run_step(decoder_ids[:, position : position + 1], mask, prompt, past)
            torch.testing.assert_close(logits, expected[:, position])
        assert past[0][0].shape == (len(ids), model.config.num_heads, 7, model.config.d_kv)
        inputs = {"input_ids": ids, "attention_mask": mask}
        written = example.write_answer(encoder, step, model, inputs, 9)
        assert torch.equal(written, model.generate(**inputs, max_new_tokens=9, do_sample=False))
