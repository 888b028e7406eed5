"""Run configurations: strict settings, presets, and dotted overrides.

A configuration is one YAML file. Every key is known: a misspelt one is an error that names the nearest key.

    config = load_pretrain_config("tiny", overrides=["training.steps=100", "optimizer.learning_rate=1e-3"])
    config = load_finetune_config(file=Path("my-recipe.yaml"))

A file may begin with ``extends: NAME`` to change only some values of a shipped preset.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, cast

import yaml
from pydantic import Field, ValidationError, model_validator

from metro_t0.settings import Settings, YamlLoader, check_keys, one_line, parse_yaml

FORMAT_VERSION = 1
"""Of the run directory: its files and the keys of ``config.yaml``."""

Probability = Annotated[float, Field(ge=0.0, le=1.0)]
Rate = Annotated[float, Field(ge=0.0, lt=1.0)]


class ModelSettings(Settings):
    """The network, field by field as ``MetroT0Config`` names it; the vocabulary comes from the tokenizer.

    Sources: RECIPE sections 2.1-2.4 (the published networks).
    """

    d_model: int = Field(gt=0, description="width of the residual stream")
    d_kv: int = Field(gt=0, description="width of one attention head")
    d_ff: int = Field(gt=0, description="width of the feed-forward layers")
    num_layers: int = Field(gt=0, description="encoder layers")
    num_decoder_layers: int = Field(gt=0)
    num_heads: int = Field(gt=0)
    relative_attention_num_buckets: int = Field(default=32, ge=4)
    relative_attention_max_distance: int = Field(default=128, ge=2)
    max_positions: int = Field(default=512, gt=0, description="positions that the relative bias tells apart")
    num_positions: int = Field(default=1024, gt=0, description="longest sequence, in tokens")
    dropout_rate: Rate = 0.1
    layer_norm_epsilon: float = Field(default=1e-5, gt=0)
    num_auxiliary_layers: int = Field(default=4, gt=0)
    auxiliary_sharing: Literal["none", "token", "token_pos", "token_pos_norm"] = "token_pos_norm"
    auxiliary_dropout_rate: Rate = 0.0
    rtd_head: Literal["roberta", "simple", "none"] = "roberta"
    rtd_location: Literal["encoder", "decoder"] = "encoder"
    initialization: Literal["published", "clean"] = "published"


class MaskingSettings(Settings):
    """Which tokens the auxiliary model must recover (RECIPE section 1.2)."""

    probability: Probability = 0.15
    span_length: int = Field(default=1, gt=0, description="1 = single tokens, k = contiguous spans of k")
    keep_probability: Probability = Field(default=0.1, description="of a masked token staying as it is")
    random_probability: Probability = Field(
        default=0.1, description="of a masked token becoming a random one"
    )


class MetroSettings(Settings):
    """The METRO objective: masking, auxiliary model, replaced-token detection, language model (RECIPE 1)."""

    kind: Literal["metro"] = "metro"
    masking: MaskingSettings = MaskingSettings()
    decoder_target: Literal["all", "masked"] = Field(
        default="all",
        description="the decoder sees the whole text, or a short target of the masked tokens only",
    )
    lm_positions: Literal["masked", "all"] = Field(default="masked", description="where the LM loss is taken")
    rtd_positions: Literal["all", "masked"] = Field(default="all", description="where the RTD loss is taken")
    gate_lm_by_rtd: bool = False
    lm_weight: float = Field(default=1.0, ge=0)
    rtd_weight: float = Field(default=50.0, ge=0)
    sampling: Literal["train", "eval"] = Field(
        default="train", description="mode of the sampling auxiliary model"
    )


class SpanCorruptionSettings(Settings):
    """T5's span corruption on the same network, the paper's baseline (RECIPE section 1.7)."""

    kind: Literal["span-corruption"] = "span-corruption"
    probability: Probability = 0.15
    empty_probability: Probability = 0.1
    max_span_length: int = Field(default=5, gt=0, description="span lengths are near uniform on 1..this")


class PromptedSettings(Settings):
    """Sequence-to-sequence training on rendered prompts (RECIPE section 4.2)."""

    kind: Literal["prompted"] = "prompted"


class OptimizerSettings(Settings):
    """AdamW with decoupled decay on all parameters, linear warm-up and linear decay to 0 (RECIPE 3.1)."""

    learning_rate: float = Field(gt=0, description="at the end of the warm-up")
    warmup_steps: int | None = Field(default=None, ge=0, description="null: warmup_fraction of the run")
    warmup_fraction: Rate = 0.08
    betas: tuple[Rate, Rate] = Field(default=(0.9, 0.98), strict=False)
    epsilon: float = Field(default=1e-6, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    clip_norm: float = Field(default=0.0, ge=0, description="largest gradient norm; 0 = no clipping")


class TrainingSettings(Settings):
    """The loop: length, batches, precision, and how often it logs, validates and saves.

    ``steps``, ``budget_seconds`` or ``budget_tokens`` says how long a run is. Values that are ``auto`` or null are
    decided when a run starts and written resolved into its ``config.yaml``.
    """

    steps: int | None = Field(default=None, gt=0)
    budget_seconds: float | None = Field(
        default=None, gt=0, description="wall-clock time for the whole training"
    )
    budget_tokens: int | None = Field(
        default=None, gt=0, description="real tokens to read, all steps together"
    )
    batch_tokens: int = Field(gt=0, description="real tokens of one update")
    micro_batch_tokens: int = Field(gt=0, description="padded tokens that go through the network at once")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    parallel: Literal["ddp", "fsdp"] = Field(
        default="ddp",
        description="on many processes: each holds the whole network (ddp) or a share of it (fsdp)",
    )
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    activation_checkpointing: bool = Field(
        default=False, description="layers recompute in the backward pass: less memory, a third more time"
    )
    compile_layers: bool = Field(
        default=False, description="by torch.compile, layer by layer; where it cannot, a line says so"
    )
    threads: int | Literal["auto"] = Field(default="auto", description="CPU threads of torch")
    seed: int = Field(default=1, ge=0)
    log_every: int = Field(default=10, gt=0, description="steps")
    validate_every: int | None = Field(default=None, gt=0, description="steps; null: a tenth of the run")
    save_every: int | None = Field(default=None, gt=0, description="steps; null: as validate_every")
    keep_last: int = Field(
        default=2,
        gt=0,
        description="newest checkpoints kept: should a disk damage one, there is one before it",
    )
    keep_every: int | None = Field(
        default=None, gt=0, description="steps; checkpoints saved there are kept for ever; null: none"
    )
    validation_rows: int = Field(default=256, ge=0, description="fixed held-out rows; 0 = no validation")
    trackers: tuple[Literal["tensorboard", "wandb"], ...] = Field(
        default=(), strict=False, description="get what metrics.jsonl gets"
    )
    max_nonfinite: int | None = Field(
        default=None, ge=0, description="updates that may be skipped; null: 0 in fp32, 10 in bf16"
    )

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.steps is None and self.budget_seconds is None and self.budget_tokens is None:
            raise ValueError("say how long to train: training.steps, budget_seconds or budget_tokens")
        if self.budget_seconds is not None and self.budget_tokens is not None:
            raise ValueError("training.budget_seconds and budget_tokens both say how long to train: give one")
        if isinstance(self.threads, int) and self.threads < 1:
            raise ValueError(f"training.threads must be at least 1 or auto, not {self.threads}")
        return self

    @property
    def nonfinite_limit(self) -> int:
        """How many skipped updates a run survives."""
        if self.max_nonfinite is not None:
            return self.max_nonfinite
        return 10 if self.precision == "bf16" else 0


class PretrainConfig(Settings):
    """Everything a pretraining run is made of, but its corpus."""

    kind: Literal["pretrain"] = "pretrain"
    model: ModelSettings
    objective: MetroSettings | SpanCorruptionSettings = Field(discriminator="kind")
    optimizer: OptimizerSettings
    training: TrainingSettings


class FinetuneConfig(Settings):
    """Everything a prompt-finetuning run is made of, but its model and its mixture."""

    kind: Literal["finetune"] = "finetune"
    dropout_rate: Rate = Field(default=0.1, description="replaces the pretrained model's")
    max_input_length: int = Field(default=512, gt=1, description="tokens; longer prompts are cut and counted")
    max_target_length: int = Field(default=512, gt=1)
    objective: PromptedSettings = PromptedSettings()
    optimizer: OptimizerSettings
    training: TrainingSettings


ConfigType = TypeVar("ConfigType", PretrainConfig, FinetuneConfig)

# Settings of which one says how long a run is.
_LENGTHS = frozenset({"steps", "budget_seconds", "budget_tokens"})


def preset_names(kind: Literal["pretrain", "finetune"] | None = None) -> list[str]:
    """Names of the shipped presets, of one kind or all."""
    names = []
    for entry in resources.files("metro_t0").joinpath("presets").iterdir():
        if entry.name.endswith(".yaml"):
            name = entry.name.removesuffix(".yaml")
            if kind is None or name.startswith("finetune") == (kind == "finetune"):
                names.append(name)
    return sorted(names)


def load_preset(name: str, overrides: Iterable[str] = ()) -> PretrainConfig | FinetuneConfig:
    """Read a shipped preset and apply overrides.

    Args:
        name: one of ``preset_names()``.
        overrides: ``"section.key=value"``, the value read as a YAML scalar. Of ``training.steps``,
            ``training.budget_seconds`` and ``training.budget_tokens`` the one overridden last replaces the others.

    Raises:
        ValueError: unknown preset or key (named with the nearest one), or a value that does not fit.
    """
    return load_config(preset=name, overrides=overrides)


def load_config(
    preset: str | None = None, file: Path | None = None, overrides: Iterable[str] = ()
) -> PretrainConfig | FinetuneConfig:
    """Read a configuration of either kind, preset or file; overrides and errors as ``load_preset``."""
    values, where = _read(preset, file)
    return _build_any(values, overrides, where)


def load_pretrain_config(
    preset: str | None = None, file: Path | None = None, overrides: Iterable[str] = ()
) -> PretrainConfig:
    """Read a pretraining configuration, preset or file; overrides and errors as ``load_preset``."""
    return _load(PretrainConfig, preset, file, overrides)


def load_finetune_config(
    preset: str | None = None, file: Path | None = None, overrides: Iterable[str] = ()
) -> FinetuneConfig:
    """Read a finetuning configuration, preset or file; overrides and errors as ``load_preset``."""
    return _load(FinetuneConfig, preset, file, overrides)


def _load(
    kind: type[ConfigType], preset: str | None, file: Path | None, overrides: Iterable[str]
) -> ConfigType:
    values, where = _read(preset, file)
    found = _config_class(values)
    if found is not kind:
        wanted, is_ = kind.model_fields["kind"].default, found.model_fields["kind"].default
        raise ValueError(f"{where} is a {is_} configuration; this needs a {wanted} one: {_listed(wanted)}")
    return _build(kind, values, overrides, where)


def _read(preset: str | None, file: Path | None) -> tuple[dict[str, Any], str]:
    """Settings as they are written, and where."""
    if (preset is None) == (file is None):
        raise ValueError("give a preset's name or a configuration file, one of the two")
    if file is not None:
        return _read_file(file), str(file)
    assert preset is not None
    return _read_preset(preset), f"preset {preset}"


def _listed(kind: Literal["pretrain", "finetune"]) -> str:
    return ", ".join(preset_names(kind))


def _config_class(values: Mapping[str, Any]) -> type[PretrainConfig] | type[FinetuneConfig]:
    return FinetuneConfig if values.get("kind") == "finetune" else PretrainConfig


def _read_preset(name: str) -> dict[str, Any]:
    names = preset_names()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)[0]
        raise ValueError(f"there is no preset {name!r}; the nearest is {near!r} (all: {', '.join(names)})")
    text = resources.files("metro_t0").joinpath("presets", f"{name}.yaml").read_text(encoding="utf-8")
    return _extended(parse_yaml(text, f"preset {name}"))


def _read_file(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ValueError(f"there is no configuration file {file}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot read the configuration file {file}: {error}") from None
    values = _extended(parse_yaml(text, str(file)))
    if (version := values.pop("format_version", FORMAT_VERSION)) != FORMAT_VERSION:
        raise ValueError(f"{file} has format version {version}; this metro-t0 reads version {FORMAT_VERSION}")
    values.pop("measured", None)
    return values


def _extended(values: dict[str, Any]) -> dict[str, Any]:
    parent = values.pop("extends", None)
    return values if parent is None else _merged(_read_preset(str(parent)), values)


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """``above`` wins key by key; a section of another ``kind`` replaces the one below whole."""
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        same_kind = (
            isinstance(under, Mapping)
            and isinstance(value, Mapping)
            and ("kind" not in value or value["kind"] == under.get("kind"))
        )
        merged[key] = _merged(under, value) if same_kind else value  # type: ignore[arg-type]
    return merged


def _build_any(
    values: dict[str, Any], overrides: Iterable[str], where: str
) -> PretrainConfig | FinetuneConfig:
    if _config_class(values) is FinetuneConfig:
        return _build(FinetuneConfig, values, overrides, where)
    return _build(PretrainConfig, values, overrides, where)


def _build(
    kind: type[ConfigType], values: dict[str, Any], overrides: Iterable[str], where: str
) -> ConfigType:
    for override in overrides:
        given = _parse_override(override)
        if isinstance(training := given.get("training"), dict) and _LENGTHS & set(training):
            training.update(dict.fromkeys(_LENGTHS - set(training)))
        values = _merged(values, given)
    check_keys(kind, values, where)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ValueError(f"{where}: {one_line(error)}") from None


def _parse_override(override: str) -> dict[str, Any]:
    path, separator, text = override.partition("=")
    keys = path.strip().split(".")
    if not separator or not all(keys):
        raise ValueError(f"{override!r} is not an override; write it as section.key=value")
    try:
        value = yaml.load(text, Loader=YamlLoader)
    except yaml.YAMLError:
        raise ValueError(f"{override!r}: the value is not a YAML scalar") from None
    for key in reversed(keys):
        value = {key: value}
    return cast(dict[str, Any], value)


def dump_config(config: PretrainConfig | FinetuneConfig, measured: Mapping[str, Any] | None = None) -> str:
    """The YAML of a run's ``config.yaml``; ``measured`` says what the measurements at its start decided."""
    values: dict[str, Any] = {"format_version": FORMAT_VERSION, **config.model_dump(mode="json")}
    if measured:
        values["measured"] = dict(measured)
    return yaml.safe_dump(values, sort_keys=False, allow_unicode=True)


def read_config(file: Path) -> PretrainConfig | FinetuneConfig:
    """Read a run's ``config.yaml`` (or any configuration file) of either kind."""
    values = _read_file(file)
    return _build_any(values, (), str(file))


def changed_settings(
    stored: PretrainConfig | FinetuneConfig, asked: PretrainConfig | FinetuneConfig
) -> list[tuple[str, Any, Any]]:
    """Settings that differ, as (path, stored, asked); one left to the run (``auto``, null) never differs."""
    before, now = dict(_leaves(stored.model_dump(mode="json"))), dict(_leaves(asked.model_dump(mode="json")))
    return [
        (path, before.get(path), value)
        for path, value in now.items()
        if value is not None and value != "auto" and not _equal(before.get(path), value)
    ]


def _equal(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, float):
        return math.isclose(a, b, rel_tol=1e-12)
    return bool(a == b)


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value
