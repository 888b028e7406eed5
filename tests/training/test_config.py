"""Presets, overrides, and what a misspelt key is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metro_t0.config import (
    FinetuneConfig,
    MetroSettings,
    PretrainConfig,
    SpanCorruptionSettings,
    changed_settings,
    dump_config,
    load_finetune_config,
    load_preset,
    load_pretrain_config,
    preset_names,
    read_config,
)

SIZES = ("tiny", "small", "base-day", "base", "base++", "large++")


def test_every_size_has_both_objectives() -> None:
    assert set(preset_names("pretrain")) == {name + suffix for name in SIZES for suffix in ("", "-t5")}
    assert set(preset_names("finetune")) == {"finetune", "finetune-tiny"}


@pytest.mark.parametrize("size", SIZES)
def test_the_baseline_differs_in_the_objective(size: str) -> None:
    metro, t5 = load_pretrain_config(size), load_pretrain_config(f"{size}-t5")
    assert isinstance(metro.objective, MetroSettings)
    assert isinstance(t5.objective, SpanCorruptionSettings)
    assert t5.model == metro.model
    assert t5.training.batch_tokens == metro.training.batch_tokens
    assert t5.training.steps == metro.training.steps


@pytest.mark.parametrize(
    ("name", "steps", "rate", "clip", "micro", "gated"),
    [
        ("base", 125_000, 4e-4, 0.0, 8192, True),
        ("base++", 2_000_000, 2e-4, 2.0, 8192, False),
        ("large++", 2_000_000, 1e-4, 2.0, 2048, False),
    ],
)
def test_the_published_recipe(
    name: str, steps: int, rate: float, clip: float, micro: int, gated: bool
) -> None:
    config = load_preset(name)
    assert isinstance(config, PretrainConfig)
    assert isinstance(config.objective, MetroSettings)
    optimizer, training = config.optimizer, config.training
    assert (training.steps, training.batch_tokens, training.micro_batch_tokens) == (steps, 2**20, micro)
    assert (optimizer.learning_rate, optimizer.warmup_steps, optimizer.clip_norm) == (rate, 10_000, clip)
    assert (optimizer.betas, optimizer.epsilon, optimizer.weight_decay) == ((0.9, 0.98), 1e-6, 0.01)
    assert config.objective.gate_lm_by_rtd is gated
    assert config.objective.rtd_weight == 50.0
    assert config.model.dropout_rate == 0.1


def test_finetuning_is_a_stated_recipe() -> None:
    config = load_finetune_config("finetune")
    assert (config.dropout_rate, config.max_input_length, config.max_target_length) == (0.1, 512, 512)


def test_overrides_are_yaml_scalars() -> None:
    config = load_pretrain_config(
        "tiny",
        overrides=[
            "training.steps=100",
            "optimizer.learning_rate=1e-4",
            "objective.gate_lm_by_rtd=true",
            "training.threads=2",
        ],
    )
    assert config.training.steps == 100
    assert config.optimizer.learning_rate == 1e-4
    assert isinstance(config.objective, MetroSettings) and config.objective.gate_lm_by_rtd is True
    assert config.training.threads == 2


def test_a_budget_replaces_steps_and_steps_a_budget() -> None:
    config = load_pretrain_config("tiny", overrides=["training.budget_seconds=60"])
    assert (config.training.steps, config.training.budget_seconds) == (None, 60)
    config = load_pretrain_config("tiny", overrides=["training.budget_seconds=60", "training.steps=5"])
    assert (config.training.steps, config.training.budget_seconds) == (5, None)


def test_another_objective_replaces_the_whole_section() -> None:
    config = load_pretrain_config("tiny", overrides=["objective={kind: span-corruption, max_span_length: 3}"])
    assert config.objective == SpanCorruptionSettings(max_span_length=3)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("training.stesp=1", "no setting 'training.stesp'; the nearest is 'training.steps'"),
        ("steps=1", "no setting 'steps'; the nearest is 'training.steps'"),
        ("model.dmodel=1", "no setting 'model.dmodel'; the nearest is 'model.d_model'"),
        ("trainnig.steps=1", "the nearest is 'training"),
        ("objective.masking.probabilty=1", "the nearest is 'objective.masking.probability'"),
        ("optimizer.lr=1", "no setting 'optimizer.lr'"),
        ("training.steps=abc", "training.steps: input should be a valid integer, not 'abc'"),
        ("training.steps=-3", "training.steps: input should be greater than 0, not -3"),
        (
            "objective.masking.probability=1.5",
            "objective.masking.probability: input should be less than or equal to 1",
        ),
        ("objective.kind=bert", "objective"),
        ("training.precision=fp8", "training.precision: input should be 'auto', 'fp32' or 'bf16'"),
        ("training.steps", "'training.steps' is not an override; write it as section.key=value"),
        ("training=3", "training: input should be a valid"),
        ("training.steps={", "not a YAML scalar"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_setting(override: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        load_pretrain_config("tiny", overrides=[override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unknown_preset_names_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"no preset 'bas\+\+'; the nearest is 'base\+\+'"):
        load_preset("bas++")


def test_a_preset_of_the_other_kind_is_refused() -> None:
    with pytest.raises(
        ValueError, match="preset finetune is a finetune configuration; this needs a pretrain one"
    ):
        load_pretrain_config("finetune")


def test_a_file_extends_a_preset(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("extends: tiny\ntraining: {steps: 7}\n", encoding="utf-8")
    config = load_pretrain_config(file=file)
    assert config == load_pretrain_config("tiny", overrides=["training.steps=7"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1", "must hold a mapping"),
        ("a: [", "not valid YAML"),
        ("format_version: 9\nextends: tiny", "format version 9"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        load_pretrain_config(file=file)
    with pytest.raises(ValueError, match="there is no configuration file"):
        load_pretrain_config(file=tmp_path / "none.yaml")


@pytest.mark.parametrize("name", preset_names())
def test_a_dumped_configuration_reads_back(tmp_path: Path, name: str) -> None:
    config = load_preset(name)
    file = tmp_path / "config.yaml"
    file.write_text(dump_config(config, measured={"precision": "said why"}), encoding="utf-8")
    assert file.read_text(encoding="utf-8").startswith("format_version: 1\n")
    assert read_config(file) == config


def test_changes_are_found_but_not_in_what_the_run_decides() -> None:
    stored = load_pretrain_config("tiny", overrides=["training.precision=fp32", "training.threads=2"])
    assert changed_settings(stored, load_pretrain_config("tiny")) == []
    asked = load_pretrain_config("tiny", overrides=["training.seed=9"])
    assert changed_settings(stored, asked) == [("training.seed", 1, 9)]


@given(st.integers(1, 10**9), st.floats(1e-9, 1.0), st.booleans())
def test_any_value_survives_an_override(steps: int, rate: float, gated: bool) -> None:
    config = load_pretrain_config(
        "tiny",
        overrides=[
            f"training.steps={steps}",
            f"optimizer.learning_rate={rate!r}",
            f"objective.gate_lm_by_rtd={str(gated).lower()}",
        ],
    )
    assert isinstance(config.objective, MetroSettings)
    assert (config.training.steps, config.optimizer.learning_rate) == (steps, rate)
    assert config.objective.gate_lm_by_rtd is gated


def test_finetune_defaults_are_a_finetune_config() -> None:
    assert isinstance(load_preset("finetune-tiny"), FinetuneConfig)
