"""Resized embeddings: every use of the vocabulary follows, old tokens score as before, and a saved folder says it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from tiny_networks import VOCAB_SIZE, random_ids, random_text, randomize, tiny_config

pytestmark = pytest.mark.filterwarnings("ignore:The new embeddings")


def one_matrix(model: MetroT0ForConditionalGeneration, rows: int) -> bool:
    weight = model.shared.weight
    users = (model.encoder.embed_tokens.weight, model.decoder.embed_tokens.weight, model.lm_head.weight)
    sizes = (model.shared.num_embeddings, model.lm_head.out_features, model.config.vocab_size, len(weight))
    return all(user is weight for user in users) and set(sizes) == {rows}


@pytest.mark.parametrize("mean_resizing", [True, False])
@pytest.mark.parametrize("rows", [VOCAB_SIZE + 7, VOCAB_SIZE - 4])
def test_one_matrix_before_and_after_saving(tmp_path: Path, rows: int, mean_resizing: bool) -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()
    ids = random_ids([9, 5])
    before = model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
    mask_token = model.config.mask_token_id
    model.resize_token_embeddings(rows, mean_resizing=mean_resizing)
    assert one_matrix(model, rows) and model.config.mask_token_id == mask_token
    kept = min(rows, VOCAB_SIZE)
    after = model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    model.save_pretrained(tmp_path)
    again = MetroT0ForConditionalGeneration.from_pretrained(tmp_path).eval()
    assert one_matrix(again, rows) and again.config.mask_token_id == mask_token
    assert torch.equal(again(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits, after)


@pytest.mark.parametrize("initialization", ["published", "clean"])
def test_new_rows_start_as_the_vocabulary_does(initialization: str) -> None:
    model = MetroT0ForConditionalGeneration(tiny_config(initialization=initialization))
    expected = model.shared.weight[2:].std()
    model.resize_token_embeddings(VOCAB_SIZE + 600, mean_resizing=False)
    new = model.shared.weight[VOCAB_SIZE:]
    assert new.abs().amax(dim=1).min() > 0
    assert new.std().item() == pytest.approx(expected.item(), rel=0.1)


def test_rows_up_to_a_multiple() -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config()))
    model.resize_token_embeddings(pad_to_multiple_of=16)
    assert one_matrix(model, 48)


def test_new_rows_learn() -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config()))
    model.resize_token_embeddings(VOCAB_SIZE + 2)
    ids = torch.tensor([[0, VOCAB_SIZE + 1, 5, 2]])
    model(input_ids=ids, labels=torch.tensor([[VOCAB_SIZE, 2]])).loss.backward()
    assert model.shared.weight.grad[VOCAB_SIZE:].abs().amax(dim=1).min() > 0


@pytest.mark.parametrize("sharing", ["none", "token_pos_norm"])
@pytest.mark.parametrize("rows", [VOCAB_SIZE + 7, VOCAB_SIZE - 4])
def test_the_auxiliary_model_follows(tmp_path: Path, rows: int, sharing: str) -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config(auxiliary_sharing=sharing))).eval()
    text = random_text([9, 5])
    states = model.auxiliary.encoder(text.masked.clamp(max=rows - 1)).last_hidden_state
    before = model.auxiliary.project(states)
    model.resize_token_embeddings(rows)
    assert one_matrix(model, rows)
    own = model.auxiliary.encoder.embed_tokens.weight
    assert own.shape == model.shared.weight.shape and (own is model.shared.weight) == (sharing != "none")
    kept = min(rows, VOCAB_SIZE)
    after = model.auxiliary.project(states)
    torch.testing.assert_close(after[..., :kept], before[..., :kept])
    model.save_pretrained(tmp_path)
    again = MetroT0ForPreTraining.from_pretrained(tmp_path).eval()
    assert torch.equal(again.auxiliary.project(states), after)


def test_pretraining_goes_on_with_more_tokens() -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config()))
    model.resize_token_embeddings(VOCAB_SIZE + 8)
    objective = MetroObjective(
        vocab_size=model.config.vocab_size, num_sentinel_tokens=model.config.num_sentinel_tokens
    )
    loss = model(**random_text([9, 5]).inputs(), objective=objective).loss
    loss.backward()
    assert torch.isfinite(loss) and model.auxiliary.head.bias.grad.shape == (VOCAB_SIZE + 8,)


def test_a_token_of_ones_own(golden: Path, tmp_path: Path) -> None:
    """Added to the tokenizer and to the model, saved and read again, it is one id that the model can write."""
    tokenizer = MetroT0Tokenizer.from_pretrained(golden / "hf_tiny")
    model = MetroT0ForConditionalGeneration.from_pretrained(golden / "hf_tiny").eval()
    assert tokenizer.add_tokens(["<answer>"]) == 1
    model.resize_token_embeddings(len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    tokenizer = MetroT0Tokenizer.from_pretrained(tmp_path)
    model = MetroT0ForConditionalGeneration.from_pretrained(tmp_path).eval()
    new = tokenizer.convert_tokens_to_ids("<answer>")
    assert new == len(tokenizer) - 1 == model.config.vocab_size - 1
    ids = tokenizer("is it <answer> ?", return_tensors="pt").input_ids
    assert ids.eq(new).sum() == 1
    written = model.generate(input_ids=ids, max_new_tokens=3, sequence_bias={(new,): 100.0})
    assert "<answer>" in tokenizer.decode(written[0])
