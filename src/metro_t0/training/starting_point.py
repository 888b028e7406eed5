"""What a run starts from: a fresh model, another run's weights on a new corpus, or a pretrained model to finetune.

model = new_pretraining_model(config, tokenizer)
take_weights(model, Path("runs/other"), tokenizer)
model, tokenizer = pretrained_model(Path("runs/pretrain"), dropout_rate=0.1)
"""

from __future__ import annotations

from pathlib import Path

import torch

from metro_t0.config import MetroSettings, PretrainConfig
from metro_t0.interop.fairseq import load_pretraining
from metro_t0.interop.folders import read_network, read_parts
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.tokenization.inspection import open_tokenizer, vocabulary_difference
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

# What shapes the tensors that two models must share for one to take the other's weights.
_MAIN_SHAPE = (
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "relative_attention_num_buckets",
    "num_positions",
)
_PRETRAINING_SHAPE = ("num_auxiliary_layers", "auxiliary_sharing", "rtd_head")


def model_config(config: PretrainConfig, tokenizer: MetroT0Tokenizer) -> MetroT0Config:
    """The network's configuration: the run's ``model`` section and the tokenizer's vocabulary."""
    return MetroT0Config(
        **config.model.model_dump(),
        vocab_size=len(tokenizer),
        num_sentinel_tokens=tokenizer.num_sentinel_tokens,
    )


def new_pretraining_model(
    config: PretrainConfig, tokenizer: MetroT0Tokenizer
) -> MetroT0ForConditionalGeneration:
    """A fresh model for the run's objective, its weights a function of the run's seed."""
    torch.manual_seed(config.training.seed)
    wanted = model_config(config, tokenizer)
    if isinstance(config.objective, MetroSettings):
        return MetroT0ForPreTraining(wanted)
    return MetroT0ForConditionalGeneration(wanted)


def model_folder(path: Path) -> Path:
    """The folder of a model: the path itself, or ``model/`` of a run directory.

    Raises:
        ValueError: neither holds a model.
    """
    for folder in (path, path / "model"):
        if (folder / "config.json").is_file():
            return folder
    if path.is_file():
        raise ValueError(
            f"{path} is a file: a model is a folder, and a pretraining checkpoint of fairseq becomes one by "
            "metro-t0 pretrain --init-from"
        )
    if (path / "config.yaml").is_file():
        raise ValueError(f"{path} is a run that has no final model yet: finish it with --resume")
    raise ValueError(
        f"{path} is neither a run directory nor a model folder (no config.json in it or in its model/)"
    )


def take_weights(model: MetroT0ForConditionalGeneration, source: Path, tokenizer: MetroT0Tokenizer) -> None:
    """Replace a fresh model's weights by those of another run, model folder or fairseq pretraining checkpoint.

    Parts that only the source has (an auxiliary model that the new objective does not use) are left behind. A fairseq
    checkpoint (``.pt``) holds no vocabulary, so that only its size can be compared.

    Raises:
        ValueError: the source's vocabulary is another, it has another shape, or it lacks a part of the model.
    """
    if source.is_file():
        official = load_pretraining(source)
        _check_vocabulary_size(official.config, tokenizer, source)
        _check_shape(official.config, model, source)
        weights = official.state_dict()
        model.load_state_dict({name: weights[name] for name in model.state_dict()})
        return
    folder = model_folder(source)
    check_same_vocabulary(open_tokenizer(folder), tokenizer, source)
    _check_shape(MetroT0Config.from_pretrained(str(folder)), model, source)
    loaded, missing = read_parts(type(model), folder, torch.float32, config=model.config)
    if missing:
        raise ValueError(
            f"{source} cannot be taken: it has no {missing[0].split('.')[0]} part, which this objective trains "
            f"(a finetuned model has left it behind)"
        )
    model.load_state_dict(loaded.state_dict())


def _check_shape(stored: MetroT0Config, model: MetroT0ForConditionalGeneration, source: Path) -> None:
    pretraining = isinstance(model, MetroT0ForPreTraining)
    for field in (*_MAIN_SHAPE, *(_PRETRAINING_SHAPE if pretraining else ())):
        there, here = getattr(stored, field), getattr(model.config, field)
        if there != here:
            raise ValueError(
                f"{source} cannot be taken: its {field} is {there}, this configuration's is {here}"
            )
    # Not a shape, but what the rows of the relative bias tables mean.
    if _reach(stored) != _reach(model.config):
        raise ValueError(
            f"{source} cannot be taken: its relative bias reaches {_reach(stored)} tokens far, this configuration's "
            f"{_reach(model.config)}: set model.relative_attention_max_distance="
            f"{stored.relative_attention_max_distance} and model.max_positions={stored.max_positions}"
        )


def _reach(config: MetroT0Config) -> int:
    return min(config.relative_attention_max_distance, config.max_positions - 1)


def _check_vocabulary_size(stored: MetroT0Config, tokenizer: MetroT0Tokenizer, source: Path) -> None:
    there = (stored.vocab_size, stored.num_sentinel_tokens)
    here = (len(tokenizer), tokenizer.num_sentinel_tokens)
    if there != here:
        raise ValueError(
            f"{source} has another vocabulary than the corpus: {there[0]} ids, {there[1]} of them sentinels, not "
            f"{here[0]} and {here[1]}; prepare the corpus with its tokenizer (metro-t0 prepare --tokenizer)"
        )


def check_same_vocabulary(there: MetroT0Tokenizer, here: MetroT0Tokenizer, source: Path) -> None:
    """Refuse weights whose embedding rows mean other pieces.

    Raises:
        ValueError: says in what the vocabularies differ.
    """
    difference = vocabulary_difference(there, here)
    if difference is not None:
        raise ValueError(
            f"{source} has another vocabulary than the corpus: {difference}; prepare the corpus with its tokenizer "
            "(metro-t0 prepare --tokenizer)"
        )


def pretrained_model(
    source: Path, dropout_rate: float
) -> tuple[MetroT0ForConditionalGeneration, MetroT0Tokenizer]:
    """The main model of a run or model folder and its tokenizer; auxiliary model and RTD head are left behind.

    Raises:
        ValueError: there is no model, it cannot be read, or its tokenizer is not its own.
    """
    folder = model_folder(source)
    tokenizer = open_tokenizer(folder)
    config = MetroT0Config.from_pretrained(str(folder))
    config.dropout_rate = dropout_rate
    if len(tokenizer) != config.vocab_size:
        raise ValueError(
            f"{source}: the tokenizer has {len(tokenizer)} ids, the model {config.vocab_size}: they do not belong "
            "together"
        )
    model = read_network(MetroT0ForConditionalGeneration, folder, torch.float32, config=config)
    assert isinstance(model, MetroT0ForConditionalGeneration)
    return model, tokenizer
