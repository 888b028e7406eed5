"""Hidden states and logits of every network against the hand-written reference of ``network_reference``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from network_reference import Reference
from tiny_networks import PAD, parameters_of, random_ids, random_text, randomize, tiny_config

SHARINGS = ("none", "token", "token_pos", "token_pos_norm")
LENGTHS = [9, 3, 14]


def close(ours: torch.Tensor, expected: np.ndarray) -> None:
    np.testing.assert_allclose(ours.detach().double().numpy(), expected, rtol=1e-5, atol=1e-5)


@pytest.fixture(scope="module")
def main_model() -> MetroT0ForConditionalGeneration:
    return randomize(MetroT0ForConditionalGeneration(tiny_config())).double().eval()


@pytest.mark.parametrize("with_gradients", [True, False], ids=["with gradients", "without"])
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
@pytest.mark.parametrize("pad_left", [False, True], ids=["right", "left"])
def test_hidden_states_logits_and_loss(
    main_model: MetroT0ForConditionalGeneration, attention: str, with_gradients: bool, pad_left: bool
) -> None:
    main_model.set_attn_implementation(attention)
    reference = Reference(parameters_of(main_model), main_model.config)
    ids, targets = random_ids(LENGTHS, 1, pad_left), random_ids([4, 11, 7], 2)
    start = torch.full((3, 1), 2)
    decoder_ids = torch.cat([start, targets[:, :-1]], dim=1)
    labels = targets.masked_fill(targets == PAD, -100)
    with torch.set_grad_enabled(with_gradients):
        output = main_model(
            input_ids=ids, attention_mask=ids.ne(PAD).long(), labels=labels, output_hidden_states=True
        )
        plain = main_model(input_ids=ids, decoder_input_ids=decoder_ids)
    encoded = reference.encode(ids.numpy())
    decoded = reference.decode(decoder_ids.numpy(), encoded[-1], ids.ne(PAD).numpy())
    for ours, expected in zip(output.encoder_hidden_states, encoded, strict=True):
        close(ours, expected)
    for ours, expected in zip(output.decoder_hidden_states, decoded, strict=True):
        close(ours, expected)
    logits = reference.project(decoded[-1])
    close(output.encoder_last_hidden_state, encoded[-1])
    close(output.logits, logits)
    close(plain.logits, logits)
    log_normalizer = np.log(np.exp(logits).sum(axis=-1))
    rows, places = np.nonzero(targets.ne(PAD).numpy())
    right = logits[rows, places, targets.numpy()[rows, places]]
    assert output.loss.item() == pytest.approx((log_normalizer[rows, places] - right).mean(), rel=1e-6)


@settings(max_examples=10, deadline=None)
@given(lengths=st.lists(st.integers(2, 32), min_size=1, max_size=3), seed=st.integers(0, 1000))
def test_any_lengths_up_to_the_position_table(
    main_model: MetroT0ForConditionalGeneration, lengths: list[int], seed: int
) -> None:
    reference = Reference(parameters_of(main_model), main_model.config)
    ids = random_ids(lengths, seed)
    with torch.no_grad():
        output = main_model(input_ids=ids, decoder_input_ids=ids)
    encoded = reference.encode(ids.numpy())[-1]
    close(output.encoder_last_hidden_state, encoded)
    decoded = reference.decode(ids.numpy(), encoded, ids.ne(PAD).numpy())[-1]
    close(output.logits, reference.project(decoded))


def test_a_table_for_few_positions_starts_at_its_own_farthest_pair() -> None:
    """Six positions reach bucket 5 of 7 from the middle, and the first row stands for the farthest of them."""
    config = tiny_config(max_positions=6, num_positions=6)
    model = randomize(MetroT0ForConditionalGeneration(config)).double().eval()
    ids = random_ids([6, 4])
    with torch.no_grad():
        encoded = model.encoder(ids, ids.ne(PAD)).last_hidden_state
    close(encoded, Reference(parameters_of(model), config).encode(ids.numpy())[-1])


@pytest.mark.parametrize("head", ["simple", "roberta"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_auxiliary_model_and_head(sharing: str, head: str) -> None:
    config = tiny_config(auxiliary_sharing=sharing, rtd_head=head, num_auxiliary_layers=2)
    model = randomize(MetroT0ForPreTraining(config), seed=3).double().eval()
    reference = Reference(parameters_of(model), config)
    text = random_text(LENGTHS, seed=4)
    states = model.auxiliary.encoder(text.masked, text.masked.ne(PAD)).last_hidden_state
    close(model.auxiliary.project(states), reference.auxiliary_logits(text.masked.numpy()))
    encoded = model.encoder(text.corrupted, text.corrupted.ne(PAD)).last_hidden_state
    close(model.rtd_head(encoded), reference.detect(reference.encode(text.corrupted.numpy())[-1]))


def test_embeddings_in_place_of_ids(main_model: MetroT0ForConditionalGeneration) -> None:
    ids = random_ids(LENGTHS)
    mask = ids.ne(PAD)
    from_ids = main_model(input_ids=ids, attention_mask=mask, decoder_input_ids=ids[:, :5])
    from_embeddings = main_model(
        inputs_embeds=main_model.shared(ids),
        attention_mask=mask,
        decoder_inputs_embeds=main_model.shared(ids[:, :5]),
        decoder_attention_mask=mask[:, :5],
    )
    real = mask[:, :5]
    torch.testing.assert_close(from_embeddings.logits[real], from_ids.logits[real])


def test_a_mask_of_choices_replaces_the_causal_rule(main_model: MetroT0ForConditionalGeneration) -> None:
    """Two continuations folded into one row, each blind to the other, give what two rows give."""
    ids = random_ids([9, 6])
    encoded = main_model.encoder(ids, ids.ne(PAD)).last_hidden_state
    choices = torch.tensor([[2, 5, 6, 7], [2, 9, 8, 10]])
    folded = choices.flatten().unsqueeze(0).expand(2, -1)
    allowed = torch.zeros(8, 8, dtype=torch.bool)
    allowed[:4, :4] = allowed[4:, 4:] = torch.ones(4, 4, dtype=torch.bool).tril()
    together = main_model.decoder(
        folded,
        encoder_hidden_states=encoded,
        encoder_attention_mask=ids.ne(PAD),
        position_ids=torch.arange(4).repeat(2).unsqueeze(0),
        attention_mask=allowed[None, None],
    ).last_hidden_state
    for row in range(2):
        for choice in range(2):
            apart = main_model.decoder(
                choices[choice : choice + 1],
                encoder_hidden_states=encoded[row : row + 1],
                encoder_attention_mask=ids[row : row + 1].ne(PAD),
            ).last_hidden_state
            torch.testing.assert_close(together[row : row + 1, choice * 4 : choice * 4 + 4], apart)


def test_the_encoder_is_blind_to_what_padding_holds(main_model: MetroT0ForConditionalGeneration) -> None:
    ids = random_ids([4, 12])
    mask = ids.ne(PAD)
    scribbled = torch.where(mask, ids, torch.full_like(ids, 17))
    clean = main_model.encoder(ids, mask).last_hidden_state
    other = main_model.encoder(scribbled, mask).last_hidden_state
    torch.testing.assert_close(clean, other)


@pytest.mark.parametrize("rate", [0.0, 0.5])
def test_dropout_works_in_training_alone(rate: float) -> None:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config(dropout_rate=rate)))
    ids = random_ids(LENGTHS)
    for training in (True, False):
        model.train(training)
        torch.manual_seed(0)
        first = model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
        second = model(input_ids=ids, decoder_input_ids=ids, use_cache=False).logits
        assert torch.equal(first, second) == (rate == 0.0 or not training)


@pytest.mark.parametrize("pad_left", [False, True], ids=["right", "left"])
def test_both_attention_implementations_agree(tmp_path: Path, pad_left: bool) -> None:
    """Logits, loss, every gradient, and what is shown of the attention, with the implementation named on loading."""
    randomize(MetroT0ForConditionalGeneration(tiny_config())).save_pretrained(tmp_path)
    ids = random_ids(LENGTHS, pad_left=pad_left)
    outputs, gradients = [], []
    for attention in ("eager", "sdpa"):
        model = MetroT0ForConditionalGeneration.from_pretrained(tmp_path, attn_implementation=attention)
        assert model.config._attn_implementation == attention
        output = model(input_ids=ids, labels=ids.masked_fill(ids == PAD, -100))
        output.loss.backward()
        shown = model(input_ids=ids, decoder_input_ids=ids, output_attentions=True, use_cache=False)
        weights = (*shown.encoder_attentions, *shown.decoder_attentions, *shown.cross_attentions)
        outputs.append((output.logits, output.loss, *weights))
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for eager, sdpa in zip(*outputs, strict=True):
        torch.testing.assert_close(sdpa, eager, rtol=1e-4, atol=1e-5)
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.filterwarnings("ignore::FutureWarning")  # the name has a successor in the newest transformers
def test_gradient_checkpointing_changes_nothing() -> None:
    gradients = []
    for checkpointing in (False, True):
        model = randomize(MetroT0ForConditionalGeneration(tiny_config())).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.is_gradient_checkpointing
        ids = random_ids(LENGTHS)
        model(input_ids=ids, labels=ids).loss.backward()
        gradients.append({name: parameter.grad for name, parameter in model.named_parameters()})
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], gradient, msg=name)


def test_tuples_instead_of_named_outputs(main_model: MetroT0ForConditionalGeneration) -> None:
    ids = random_ids(LENGTHS)
    named = main_model(input_ids=ids, labels=ids, use_cache=False)
    loss, logits, *_ = main_model(input_ids=ids, labels=ids, use_cache=False, return_dict=False)
    assert torch.equal(loss, named.loss) and torch.equal(logits, named.logits)
    again = main_model(
        input_ids=ids, labels=ids, encoder_outputs=(named.encoder_last_hidden_state,), use_cache=False
    )
    torch.testing.assert_close(again.logits, named.logits)


def test_mistakes_are_named(main_model: MetroT0ForConditionalGeneration) -> None:
    ids = random_ids([33])
    with pytest.raises(ValueError, match="33 tokens is longer than the 32 positions"):
        main_model.encoder(ids)
    states = main_model.encoder(ids[:, :8]).last_hidden_state
    with pytest.raises(ValueError, match="33 tokens is longer than the 32 positions"):
        main_model.decoder(ids, encoder_hidden_states=states)
    with pytest.raises(ValueError, match="either input_ids or inputs_embeds"):
        main_model.encoder()
    with pytest.raises(ValueError, match="needs encoder_hidden_states"):
        main_model.decoder(ids)
    with pytest.raises(ValueError, match="either decoder_input_ids or decoder_inputs_embeds"):
        main_model.decoder(encoder_hidden_states=states)


@pytest.mark.parametrize("apart", [0.0, 0.5])
def test_equal_weights_under_two_names_are_one_after_loading(apart: float, tmp_path: Path) -> None:
    """As ``torch.save`` writes tied weights; transformers 5.0 would leave them apart, and finetuning part them."""
    model = MetroT0ForConditionalGeneration(tiny_config())
    tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    tensors["lm_head.weight"] += apart
    model.save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(tensors, tmp_path / "pytorch_model.bin")

    loaded = MetroT0ForConditionalGeneration.from_pretrained(tmp_path)

    assert loaded.encoder.embed_tokens.weight is loaded.shared.weight
    assert loaded.decoder.embed_tokens.weight is loaded.shared.weight
    assert (loaded.lm_head.weight is loaded.shared.weight) == (apart == 0.0)
