"""The main model gives what the authors' released model gives, loaded from a folder in their format."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSeq2SeqLM

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration

Cases = dict[str, torch.Tensor]


def close(ours: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def logits_close(ours: torch.Tensor, cases: Cases, exact: torch.Tensor, real: torch.Tensor) -> None:
    """The cases' own tolerance at every position but one, where rounding is amplified twentyfold in a layer.

    There the official float32 numbers are 2.5e-4 away from the exact ones, and any other order of operations, or
    another processor's, is as far from both: ours are held to twice the distance of the official ones.
    """
    official = cases["logits"]
    off = ((official - exact).abs() - 1e-4 * official.abs()).amax(dim=-1)
    well_conditioned = off < 1e-4
    assert (~well_conditioned).sum() == 1
    close(ours[real & well_conditioned], official[real & well_conditioned])
    distance = (ours - exact).abs().amax(dim=-1)[real & ~well_conditioned]
    assert (distance < 2 * (official - exact).abs().amax(dim=-1)[real & ~well_conditioned]).all()


@pytest.fixture(scope="module")
def cases(golden: Path) -> Cases:
    return load_file(golden / "hf_tiny" / "cases.safetensors")


@pytest.fixture(scope="module", params=["eager", "sdpa"])
def model(golden: Path, request: pytest.FixtureRequest) -> MetroT0ForConditionalGeneration:
    model = MetroT0ForConditionalGeneration.from_pretrained(
        golden / "hf_tiny", attn_implementation=request.param
    )
    assert not model.training
    return model


@pytest.fixture(scope="module")
def exact(golden: Path, cases: Cases) -> torch.Tensor:
    """Logits ``[B, T, V]`` in float64."""
    model = MetroT0ForConditionalGeneration.from_pretrained(golden / "hf_tiny").double()
    with torch.no_grad():
        return model(**{name: cases[name] for name in ("input_ids", "attention_mask", "labels")}).logits


def test_hidden_states_logits_and_loss(
    model: MetroT0ForConditionalGeneration, cases: Cases, exact: torch.Tensor
) -> None:
    inputs = {name: cases[name] for name in ("input_ids", "attention_mask", "labels")}
    for with_gradients in (True, False):
        with torch.set_grad_enabled(with_gradients):
            output = model(**inputs, output_hidden_states=True)
        everywhere = torch.ones_like(cases["labels"], dtype=torch.bool)
        logits_close(output.logits, cases, exact, everywhere)
        # The released encoder does not zero padded embeddings, pretraining does; nobody reads what comes out there.
        real = cases["attention_mask"].bool()
        close(output.encoder_last_hidden_state[real], cases["encoder_last_hidden"][real])
        assert len(output.decoder_hidden_states) == 3
        for layer, states in enumerate(output.decoder_hidden_states):
            close(states, cases[f"decoder_hidden_{layer}"])
        torch.testing.assert_close(output.loss, cases["loss"][0], rtol=1e-4, atol=0.0)


@torch.no_grad()
def test_step_by_step_through_the_cache(
    model: MetroT0ForConditionalGeneration, cases: Cases, exact: torch.Tensor
) -> None:
    decoder_ids = model.prepare_decoder_input_ids_from_labels(cases["labels"])
    encoded = model.encoder(cases["input_ids"], cases["attention_mask"])
    cache, logits = None, []
    # Two tokens at first, as a prompt of the decoder would be, then one by one.
    for step in (decoder_ids[:, :2], *decoder_ids[:, 2:].split(1, dim=1)):
        output = model(
            attention_mask=cases["attention_mask"],
            encoder_outputs=encoded,
            decoder_input_ids=step,
            past_key_values=cache,
            use_cache=True,
        )
        cache = output.past_key_values
        logits.append(output.logits)
    assert cache.get_seq_length() == decoder_ids.shape[1]
    together = torch.cat(logits, dim=1)
    # Behind an answer's end the padding is counted differently, and nobody reads what comes out.
    logits_close(together, cases, exact, cases["labels"].ne(-100))


@pytest.mark.parametrize("use_cache", [True, False], ids=["cache", "no cache"])
@pytest.mark.parametrize(("name", "beams", "tokens"), [("greedy", 1, 16), ("beam4", 4, 12)])
def test_generation(
    model: MetroT0ForConditionalGeneration,
    cases: Cases,
    name: str,
    beams: int,
    tokens: int,
    use_cache: bool,
) -> None:
    generated = model.generate(
        input_ids=cases["input_ids"],
        attention_mask=cases["attention_mask"],
        max_new_tokens=tokens,
        num_beams=beams,
        do_sample=False,
        use_cache=use_cache,
    )
    assert torch.equal(generated, cases[name])


def test_the_auto_class_reads_the_published_folder(golden: Path, cases: Cases, exact: torch.Tensor) -> None:
    model = AutoModelForSeq2SeqLM.from_pretrained(golden / "hf_tiny")
    assert type(model) is MetroT0ForConditionalGeneration
    names = ("input_ids", "attention_mask", "labels")
    logits = model(**{name: cases[name] for name in names}).logits
    logits_close(logits, cases, exact, torch.ones_like(cases["labels"], dtype=torch.bool))


def test_a_saved_folder_gives_the_same(golden: Path, cases: Cases, tmp_path: Path) -> None:
    model = MetroT0ForConditionalGeneration.from_pretrained(golden / "hf_tiny")
    model.save_pretrained(tmp_path)
    again, report = MetroT0ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
