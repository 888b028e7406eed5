"""Counts of firing units against the stacks' own hidden states, recomputed by hand."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn

from metro_t0.analysis.activation import ActivationCounter, LayerActivation
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.layers import FeedForward
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from tiny_networks import PAD, random_ids, random_text, randomize, tiny_config


@contextmanager
def inputs_of_relu(model: nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    """What each feed-forward layer reads, by its name, one tensor a call."""
    seen: dict[str, list[torch.Tensor]] = {}
    handles = []
    for name, module in model.named_modules():
        if isinstance(module, FeedForward):
            seen[name] = []

            def keep(part: FeedForward, given: tuple[torch.Tensor], at: str = name) -> None:
                seen[at].append(given[0].detach() @ part.wi.weight.T + part.wi.bias)

            handles.append(module.register_forward_pre_hook(keep))
    yield seen
    for handle in handles:
        handle.remove()


def model_and_batch(seed: int = 0) -> tuple[MetroT0ForConditionalGeneration, dict[str, torch.Tensor]]:
    model = randomize(MetroT0ForConditionalGeneration(tiny_config()), seed).eval()
    return model, {"input_ids": random_ids([9, 5, 7], 1), "decoder_input_ids": random_ids([4, 6, 3], 2)}


def by_place(summary: list[LayerActivation]) -> dict[tuple[str, int], LayerActivation]:
    return {(layer.stack, layer.layer): layer for layer in summary}


def test_counts_are_those_of_the_states_without_padding() -> None:
    model, batch = model_and_batch()
    with inputs_of_relu(model) as seen, ActivationCounter(model) as counter:
        model(**batch)
        model(**batch)
    found = by_place(counter.summary())
    assert list(found) == [("encoder", 0), ("encoder", 1), ("decoder", 0), ("decoder", 1), ("decoder", 2)]
    for (stack, index), layer in found.items():
        ids = batch["input_ids" if stack == "encoder" else "decoder_input_ids"]
        place = f"{stack}.block.{index}.layer.{1 if stack == 'encoder' else 2}.DenseReluDense"
        fires = (torch.cat([states[ids != PAD] for states in seen[place]]) > 0).double().numpy()
        rates = fires.mean(axis=0)
        assert layer.tokens == len(fires) == 2 * int((ids != PAD).sum())
        assert layer.units == 20
        assert layer.share == pytest.approx(fires.mean(axis=1).mean())
        assert layer.dead == (rates == 0).sum()
        assert layer.always_on == (rates == 1).sum()
        pairs = np.abs(rates[:, None] - rates).mean() / (2 * rates.mean())
        assert layer.gini == pytest.approx(pairs)
        shares = rates[rates > 0] / rates.sum()
        assert layer.entropy == pytest.approx(-(shares * np.log(shares)).sum() / np.log(20))
        assert layer.rates[0] == rates.min()
        assert layer.rates[16] == pytest.approx(np.median(rates))
        assert layer.rates[-1] == rates.max()


def test_wider_padding_and_other_row_order_change_nothing() -> None:
    model, batch = model_and_batch()
    padded = {name: torch.nn.functional.pad(ids.flip(0), (0, 5), value=PAD) for name, ids in batch.items()}
    with ActivationCounter(model) as one:
        model(**batch)
    with ActivationCounter(model) as other:
        model(**padded)
    for here, there in zip(one.layers, other.layers, strict=True):
        assert torch.equal(here.fired, there.fired)
        assert torch.equal(here.tokens, there.tokens)


def test_generation_counts_each_token_once() -> None:
    model, batch = model_and_batch()
    with ActivationCounter(model) as counter:
        answer = model.generate(batch["input_ids"][:1], max_new_tokens=5, min_new_tokens=5, do_sample=False)
    with ActivationCounter(model) as again:
        model(input_ids=batch["input_ids"][:1], decoder_input_ids=answer[:, :-1])
    for here, there in zip(counter.layers, again.layers, strict=True):
        assert torch.equal(here.tokens, there.tokens)
        assert torch.equal(here.fired, there.fired)


def test_pretraining_counts_the_auxiliary_model_and_the_last_layers_chosen_positions() -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config(num_auxiliary_layers=2))).train()
    text = random_text([9, 7, 5], seed=3)
    with ActivationCounter(model) as counter:
        model(**text.inputs(), objective=MetroObjective(vocab_size=43, num_sentinel_tokens=9))
    found = by_place(counter.summary())
    tokens, masked = int((text.original != PAD).sum()), int(text.mask.sum())
    assert [place for place in found if place[0] == "auxiliary"] == [("auxiliary", 0), ("auxiliary", 1)]
    assert found["encoder", 1].tokens == tokens
    assert found["auxiliary", 0].tokens == tokens
    # A row of fewer masked tokens than another repeats its last position to fill up.
    assert len(set(text.mask.sum(dim=1).tolist())) > 1 and bool(text.mask.any(dim=1).all())
    assert found["auxiliary", 1].tokens == masked
    with ActivationCounter(model) as whole, torch.no_grad():
        model(**text.inputs(), objective=MetroObjective(vocab_size=43, num_sentinel_tokens=9))
    assert by_place(whole.summary())["decoder", 2].tokens >= tokens


def test_layers_computed_again_in_the_backward_pass_count_once() -> None:
    model, batch = model_and_batch()
    model.train()
    with ActivationCounter(model) as plain:
        model(**batch).logits.sum().backward()
    model.gradient_checkpointing_enable()
    with ActivationCounter(model) as counter:
        model(**batch).logits.sum().backward()
    for here, there in zip(counter.layers, plain.layers, strict=True):
        assert torch.equal(here.fired, there.fired)
        assert torch.equal(here.tokens, there.tokens)


def test_compiled_layers_are_counted() -> None:
    model, batch = model_and_batch()
    with ActivationCounter(model) as plain:
        model(**batch)
    for block in [*model.encoder.block, *model.decoder.block]:
        block.compile(backend="eager", dynamic=True)
    model(**batch)
    with ActivationCounter(model) as counter:
        model(**batch)
    model(**batch)
    for here, there in zip(counter.layers, plain.layers, strict=True):
        assert torch.equal(here.fired, there.fired)


def test_autocast_and_half_precision_count_as_many_tokens() -> None:
    model, batch = model_and_batch()
    with ActivationCounter(model) as counter, torch.autocast("cpu", torch.bfloat16):
        model(**batch)
    tokens = [int(layer.tokens) for layer in counter.layers]
    with ActivationCounter(model.to(torch.bfloat16)) as half:
        model(**batch)
    assert tokens == [int(layer.tokens) for layer in half.layers]


def test_hooks_go_and_results_stay() -> None:
    model, batch = model_and_batch()
    expected = model(**batch).logits
    with pytest.raises(ZeroDivisionError), ActivationCounter(model) as counter:
        assert torch.equal(model(**batch).logits, expected)
        _ = 1 / 0
    before = counter.summary()
    model(**batch)
    assert counter.summary() == before
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in model.modules())


def test_a_stack_that_did_not_run_is_not_in_the_summary() -> None:
    model, batch = model_and_batch()
    with ActivationCounter(model) as counter:
        model.encoder(batch["input_ids"])
    assert {layer.stack for layer in counter.summary()} == {"encoder"}
    # Without a mask nothing is padding, as the encoder has it.
    assert counter.summary()[0].tokens == batch["input_ids"].numel()


def test_another_kind_of_network_is_refused() -> None:
    with pytest.raises(ValueError, match="Linear has no stack of METRO-T0's layers"):
        ActivationCounter(nn.Linear(2, 2))
