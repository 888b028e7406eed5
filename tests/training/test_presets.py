"""Every preset makes its network: the published counts of parameters, and a real update at its width."""

from __future__ import annotations

import pytest
import torch

from metro_t0.config import MetroSettings, load_pretrain_config, preset_names
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.build import build_objective
from metro_t0.training.distributed import Parallel
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.update import Updater

VOCABULARIES = {
    "tiny": 8704,
    "small": 33280,
    "base": 33280,
    "base-day": 33280,
    "base++": 64512,
    "large++": 64512,
}
# Main model, and all with auxiliary model and RTD head (RECIPE 2.3; tiny and small are ours).
PARAMETERS = {
    "base": (225_618_432, 255_189_761),
    "base++": (249_604_608, 279_207_169),
    "large++": (773_644_288, 851_402_753),
}


def count(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("name", ["base", "base++", "large++"])
def test_parameters_are_the_published_counts(name: str) -> None:
    settings = load_pretrain_config(name).model.model_dump()
    config = MetroT0Config(**settings, vocab_size=VOCABULARIES[name])
    with torch.device("meta"):
        counts = count(MetroT0ForConditionalGeneration(config)), count(MetroT0ForPreTraining(config))
    assert counts == PARAMETERS[name]


@pytest.mark.parametrize("name", preset_names("pretrain"))
def test_every_preset_builds(name: str) -> None:
    config = load_pretrain_config(name)
    size = name.removesuffix("-t5")
    network = MetroT0Config(**config.model.model_dump(), vocab_size=VOCABULARIES[size])
    kind = (
        MetroT0ForPreTraining
        if isinstance(config.objective, MetroSettings)
        else MetroT0ForConditionalGeneration
    )
    with torch.device("meta"):
        model = kind(network)
    counted = PARAMETERS.get(size)
    if counted:
        assert count(model) == counted[1 if kind is MetroT0ForPreTraining else 0]
    if size == "small":
        assert 50e6 < count(model) < 90e6


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.slow] if name.startswith("large") else [])
        for name in preset_names("pretrain")
    ],
)
def test_a_real_update_at_each_width_with_one_layer_a_stack(name: str) -> None:
    one_layer = {"num_layers": 1, "num_decoder_layers": 1, "num_auxiliary_layers": 1}
    config = load_pretrain_config(name)
    torch.manual_seed(0)
    # The width is the preset's; the vocabulary, which only makes the test slow, is not.
    network = MetroT0Config(
        **{**config.model.model_dump(), **one_layer}, vocab_size=1024, num_sentinel_tokens=64
    )
    is_metro = isinstance(config.objective, MetroSettings)
    model = (MetroT0ForPreTraining if is_metro else MetroT0ForConditionalGeneration)(network).train()
    objective = build_objective(config.objective, network, seed=1)
    generator = torch.Generator().manual_seed(1)
    rows = [
        {"input_ids": torch.randint(4, 900, (length,), generator=generator).numpy()} for length in (40, 33)
    ]
    batch = objective.collate(rows, [(1, 0), (1, 1)])
    optimizer = build_optimizer(model.parameters(), config.optimizer)
    clip = config.optimizer.clip_norm
    updater = Updater(Parallel(model, objective), optimizer, precision="fp32", seed=1, clip_norm=clip)
    before = {key: parameter.detach().clone() for key, parameter in model.named_parameters()}
    tally = updater.run(1, [batch], config.optimizer.learning_rate)
    assert not tally.nonfinite.any() and float(tally.loss) > 0
    # The head's zero initialisation leaves its inner layers without a gradient in the first step; decay moves all.
    still = [key for key, parameter in model.named_parameters() if torch.equal(parameter, before[key])]
    assert all(before[key].eq(0).all() for key in still), still
