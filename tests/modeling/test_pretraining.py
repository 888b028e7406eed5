"""What pretraining's model holds: sizes, what is shared with what, and how its folder is saved and read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from tiny_networks import random_ids, random_text, randomize, tiny_config

SHARINGS = ("none", "token", "token_pos", "token_pos_norm")
SIZES = {
    "base": (MetroT0Config(), 225_618_432, 255_189_761),
    "base++": (MetroT0Config(vocab_size=64512), 249_604_608, 279_207_169),
    "large++": (
        MetroT0Config(
            vocab_size=64512,
            d_model=1024,
            d_ff=4096,
            num_heads=16,
            num_layers=24,
            relative_attention_num_buckets=128,
            relative_attention_max_distance=256,
            num_auxiliary_layers=6,
        ),
        773_644_288,
        851_402_753,
    ),
}


@pytest.mark.parametrize("size", SIZES)
def test_parameter_counts_are_the_papers(size: str) -> None:
    config, main, with_auxiliary = SIZES[size]
    with torch.device("meta"):
        for kind, expected in (
            (MetroT0ForConditionalGeneration, main),
            (MetroT0ForPreTraining, with_auxiliary),
        ):
            assert sum(parameter.numel() for parameter in kind(config).parameters()) == expected


def groups(model: torch.nn.Module) -> set[frozenset[str]]:
    """Names of parameters that are one tensor."""
    names: dict[int, set[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), set()).add(name)
    return {frozenset(together) for together in names.values() if len(together) > 1}


def expected_groups(sharing: str) -> set[frozenset[str]]:
    main = {
        "shared.weight",
        "lm_head.weight",
        "encoder.embed_tokens.weight",
        "decoder.embed_tokens.weight",
    }
    shared = {
        "none": [],
        "token": ["embed_tokens.weight"],
        "token_pos": ["embed_tokens.weight", "pos_embed.weight"],
        "token_pos_norm": [
            "embed_tokens.weight",
            "pos_embed.weight",
            "first_layer_norm.weight",
            "first_layer_norm.bias",
        ],
    }[sharing]
    expected = [main]
    for name in shared:
        if name == "embed_tokens.weight":
            main.add(f"auxiliary.encoder.{name}")
        else:
            expected.append({f"auxiliary.encoder.{name}", f"encoder.{name}"})
    return {frozenset(together) for together in expected}


@pytest.mark.parametrize("initialization", ["published", "clean"])
@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_round_trip_changes_nothing(sharing: str, initialization: str, tmp_path: Path) -> None:
    config = tiny_config(auxiliary_sharing=sharing, initialization=initialization)
    model = randomize(MetroT0ForPreTraining(config))
    assert groups(model) == expected_groups(sharing)
    model.save_pretrained(tmp_path)

    again, report = MetroT0ForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    assert groups(again) == expected_groups(sharing)
    assert again.config.auxiliary_sharing == sharing
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name

    main, report = MetroT0ForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert groups(main) == expected_groups("none")
    for name, tensor in main.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    ids = random_ids([7, 4])
    torch.testing.assert_close(
        main(input_ids=ids, decoder_input_ids=ids).logits,
        MetroT0ForConditionalGeneration.forward(model.eval(), input_ids=ids, decoder_input_ids=ids).logits,
    )


@pytest.mark.parametrize("head", ["none", "simple", "roberta"])
def test_heads_are_saved(head: str, tmp_path: Path) -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config(rtd_head=head)))
    model.save_pretrained(tmp_path)
    again = MetroT0ForPreTraining.from_pretrained(tmp_path)
    assert again.state_dict().keys() == model.state_dict().keys()
    assert (again.rtd_head is None) == (head == "none")


def test_nothing_is_said_about_what_is_left_behind(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    MetroT0ForPreTraining(tiny_config()).save_pretrained(tmp_path)
    MetroT0ForConditionalGeneration.from_pretrained(tmp_path)
    assert "auxiliary" not in caplog.text and "rtd_head" not in caplog.text


@pytest.mark.parametrize("sharing", SHARINGS)
def test_a_main_model_becomes_a_pretrainer(sharing: str, tmp_path: Path) -> None:
    """What the folder holds is read, the rest starts as in a fresh model, and what is shared is shared."""
    config = tiny_config(auxiliary_sharing=sharing, initialization="clean")
    main = randomize(MetroT0ForConditionalGeneration(config))
    main.save_pretrained(tmp_path)
    model, report = MetroT0ForPreTraining.from_pretrained(tmp_path, output_loading_info=True)
    assert all(name.startswith(("auxiliary.", "rtd_head.")) for name in report["missing_keys"])
    assert groups(model) == expected_groups(sharing)
    for name, tensor in main.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor), name
    fresh = model.auxiliary.encoder.block[0].layer[1].DenseReluDense
    assert fresh.wi.weight.std().item() == pytest.approx(0.02, rel=0.25)
    assert fresh.wi.bias.count_nonzero() == 0
    assert model.rtd_head.out.weight.count_nonzero() == 0
    assert model.auxiliary.head.layer_norm.weight.eq(1.0).all()


def test_parameters_carry_the_published_names() -> None:
    names = set(MetroT0ForConditionalGeneration(tiny_config()).state_dict())
    for name in (
        "shared.weight",
        "encoder.first_layer_norm.bias",
        "encoder.pos_embed.weight",
        "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight",
        "encoder.block.0.layer.1.DenseReluDense.wi.bias",
        "decoder.block.2.layer.1.EncDecAttention.k.weight",
        "decoder.block.0.layer.2.layer_norm.weight",
        "lm_head.weight",
    ):
        assert name in names


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_folders(dtype: torch.dtype, tmp_path: Path) -> None:
    model = randomize(MetroT0ForPreTraining(tiny_config())).to(dtype)
    model.save_pretrained(tmp_path)
    again = MetroT0ForPreTraining.from_pretrained(tmp_path)
    assert {parameter.dtype for parameter in again.parameters()} == {dtype}
    output = again(**random_text([9, 6]).inputs(), objective=MetroObjective())
    exact = model.float()(**random_text([9, 6]).inputs(), objective=MetroObjective())
    assert output.loss.dtype == torch.float32
    assert output.loss.item() == pytest.approx(exact.loss.item(), rel=0.05)


def test_the_token_embedding_is_replaced_everywhere() -> None:
    for sharing in SHARINGS:
        model = MetroT0ForPreTraining(tiny_config(auxiliary_sharing=sharing))
        model.set_input_embeddings(torch.nn.Embedding(43, 12))
        model.tie_weights()
        assert groups(model) == expected_groups(sharing)


def test_one_step_of_plain_descent_lowers_the_loss() -> None:
    torch.manual_seed(0)
    model = MetroT0ForPreTraining(tiny_config())
    text = random_text([20, 14, 9])
    objective = MetroObjective(rtd_weight=1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    losses = []
    for _ in range(5):
        output = model(**text.inputs(), objective=objective)
        losses.append(output.loss.item())
        optimizer.zero_grad()
        output.loss.backward()
        optimizer.step()
    assert losses == sorted(losses, reverse=True)
