"""How weights start, measured: the published way with its quirks, and the clean way."""

from __future__ import annotations

import math

import pytest
import torch

from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from tiny_networks import PAD, randomize, tiny_config

WIDTH, INNER, VOCABULARY, POSITIONS = 192, 320, 3000, 700


def build(initialization: str, sharing: str, head: str = "roberta") -> MetroT0ForPreTraining:
    torch.manual_seed(0)
    config = MetroT0Config(
        vocab_size=VOCABULARY,
        d_model=WIDTH,
        d_kv=24,
        d_ff=INNER,
        num_heads=8,
        num_layers=1,
        num_decoder_layers=1,
        num_auxiliary_layers=1,
        num_positions=POSITIONS,
        relative_attention_num_buckets=128,
        auxiliary_sharing=sharing,
        rtd_head=head,
        initialization=initialization,
    )
    return MetroT0ForPreTraining(config)


@pytest.fixture(scope="module", params=["published", "clean"])
def model(request: pytest.FixtureRequest) -> MetroT0ForPreTraining:
    return build(request.param, "none")


def is_normal(tensor: torch.Tensor, deviation: float) -> None:
    """Mean and deviation within five standard errors, and the fourth moment of a normal distribution."""
    values, count = tensor.detach().double().flatten(), tensor.numel()
    assert abs(values.mean()) < 5 * deviation / math.sqrt(count)
    assert values.std().item() == pytest.approx(deviation, rel=5 / math.sqrt(2 * count))
    assert ((values / values.std()) ** 4).mean().item() == pytest.approx(3.0, abs=5 * math.sqrt(96 / count))


def is_uniform(tensor: torch.Tensor, bound: float) -> None:
    """Between the bounds, reaching both, with a uniform distribution's deviation."""
    values, count = tensor.detach().double().flatten(), tensor.numel()
    assert -bound <= values.min() < -bound * (1 - 20 / count)
    assert bound >= values.max() > bound * (1 - 20 / count)
    assert values.std().item() == pytest.approx(bound / math.sqrt(3), rel=5 / math.sqrt(2 * count))


def is_constant(tensor: torch.Tensor, value: float) -> None:
    assert torch.equal(tensor, torch.full_like(tensor, value))


def test_main_linear_layers(model: MetroT0ForPreTraining) -> None:
    published = model.config.initialization == "published"
    checked = 0
    for stack in (model.encoder, model.decoder):
        for module in stack.modules():
            if isinstance(module, torch.nn.Linear):
                fan_out, fan_in = module.weight.shape
                is_normal(module.weight, (2 * fan_out if published else fan_in + fan_out) ** -0.5)
                is_constant(module.bias, 0.0)
                checked += 1
    assert checked == (4 + 2) + (8 + 2)


def test_token_embedding(model: MetroT0ForPreTraining) -> None:
    weight = model.shared.weight
    if model.config.initialization == "published":
        is_normal(weight, (2 * VOCABULARY) ** -0.5)
        is_normal(weight[PAD], (2 * VOCABULARY) ** -0.5)
    else:
        others = torch.cat([weight[:PAD], weight[PAD + 1 :]])
        is_uniform(others, math.sqrt(3 / (2 * WIDTH)))
        is_constant(weight[PAD], 0.0)
    assert model.lm_head.weight is weight


def test_main_position_tables(model: MetroT0ForPreTraining) -> None:
    for table in (model.encoder.pos_embed.weight, model.decoder.pos_embed.weight):
        assert table.shape == (POSITIONS + 2, WIDTH)
        is_uniform(torch.cat([table[:PAD], table[PAD + 1 :]]), math.sqrt(3 / (2 * WIDTH)))
        is_constant(table[PAD], 0.0)
    assert not torch.equal(model.encoder.pos_embed.weight, model.decoder.pos_embed.weight)


def test_relative_bias(model: MetroT0ForPreTraining) -> None:
    def of(stack: torch.nn.Module) -> torch.Tensor:
        return stack.block[0].layer[0].SelfAttention.relative_attention_bias.weight

    is_constant(of(model.encoder), 0.0)
    is_normal(of(model.auxiliary.encoder), 0.02)


def test_layer_norms(model: MetroT0ForPreTraining) -> None:
    norms = [module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)]
    assert len(norms) == (1 + 2) + (1 + 3) + (1 + 2) + 1 + 1
    for norm in norms:
        is_constant(norm.weight, 1.0)
        is_constant(norm.bias, 0.0)


def test_auxiliary_encoder_starts_as_bert(model: MetroT0ForPreTraining) -> None:
    encoder = model.auxiliary.encoder
    for module in encoder.modules():
        if isinstance(module, torch.nn.Linear):
            is_normal(module.weight, 0.02)
            is_constant(module.bias, 0.0)
    for table in (encoder.embed_tokens.weight, encoder.pos_embed.weight):
        is_normal(torch.cat([table[:PAD], table[PAD + 1 :]]), 0.02)
        is_constant(table[PAD], 0.0)


def test_heads(model: MetroT0ForPreTraining) -> None:
    for dense in (model.auxiliary.head.dense, model.rtd_head.dense):
        is_uniform(dense.weight, WIDTH**-0.5)
        assert dense.bias.abs().max() <= WIDTH**-0.5
        assert dense.bias.std().item() == pytest.approx((3 * WIDTH) ** -0.5, rel=0.25)
    is_constant(model.auxiliary.head.bias, 0.0)
    is_constant(model.rtd_head.out.weight, 0.0)
    is_constant(model.rtd_head.out.bias, 0.0)
    simple = build("published", "none", head="simple").rtd_head
    is_constant(simple.out.weight, 0.0)
    is_constant(simple.out.bias, 0.0)


@pytest.mark.parametrize("initialization", ["published", "clean"])
def test_what_is_shared_starts_as_the_main_models(initialization: str) -> None:
    model = build(initialization, "token_pos_norm")
    auxiliary = model.auxiliary.encoder
    assert auxiliary.embed_tokens.weight is model.shared.weight
    if initialization == "published":
        is_normal(model.shared.weight, (2 * VOCABULARY) ** -0.5)
    else:
        is_constant(model.shared.weight[PAD], 0.0)
    is_uniform(auxiliary.pos_embed.weight[PAD + 1 :], math.sqrt(3 / (2 * WIDTH)))
    is_constant(auxiliary.pos_embed.weight[PAD], 0.0)
    assert auxiliary.first_layer_norm.weight is model.encoder.first_layer_norm.weight


def test_sizes_that_coincide_are_not_confused() -> None:
    """A feed-forward layer or a position table as long as the vocabulary is none."""
    config = tiny_config(vocab_size=2002, d_ff=2002, num_positions=2000)
    model = MetroT0ForConditionalGeneration(config)
    inner = model.decoder.block[0].layer[2].DenseReluDense
    is_normal(inner.wi.weight, (2 * 2002) ** -0.5)
    is_constant(inner.wi.bias, 0.0)
    is_uniform(model.encoder.pos_embed.weight[PAD + 1 :], math.sqrt(3 / 24))
    is_constant(model.encoder.pos_embed.weight[PAD], 0.0)
    clean = MetroT0ForConditionalGeneration(
        tiny_config(vocab_size=2002, d_ff=2002, num_positions=2000, initialization="clean")
    )
    is_normal(clean.decoder.block[0].layer[2].DenseReluDense.wi.weight, (2002 + 12) ** -0.5)
    is_uniform(clean.shared.weight[PAD + 1 :], math.sqrt(3 / 24))


def test_a_fresh_model_depends_on_the_seed_alone() -> None:
    states = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        states.append(MetroT0ForPreTraining(tiny_config()).state_dict())
    assert all(torch.equal(tensor, states[1][name]) for name, tensor in states[0].items())
    assert not torch.equal(states[0]["shared.weight"], states[2]["shared.weight"])


def test_initializing_again_moves_nothing_that_was_loaded() -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config()))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        parameter._is_hf_initialized = True
    model.apply(model._init_weights)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
