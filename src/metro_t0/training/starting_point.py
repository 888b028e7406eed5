"""What a run starts from: a fresh model, another run's weights on a new corpus, or a pretrained model to finetune.

model = new_pretraining_model(config, tokenizer)
take_weights(model, Path("runs/other"), tokenizer)
model, tokenizer = pretrained_model(Path("runs/pretrain"), dropout_rate=0.1)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from metro_t0.config import MetroSettings, PretrainConfig
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.tokenization.inspection import open_tokenizer
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.training.checkpoint import without_transformers_bars

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
    if (path / "config.yaml").is_file():
        raise ValueError(f"{path} is a run that has no final model yet: finish it with --resume")
    raise ValueError(
        f"{path} is neither a run directory nor a model folder (no config.json in it or in its model/)"
    )


def take_weights(model: MetroT0ForConditionalGeneration, source: Path, tokenizer: MetroT0Tokenizer) -> None:
    """Replace a fresh model's weights by those of another run or model folder.

    Parts that only the source has (an auxiliary model that the new objective does not use) are left behind.

    Raises:
        ValueError: the source's vocabulary is another, it has another shape, or it lacks a part of the model.
    """
    folder = model_folder(source)
    check_same_vocabulary(open_tokenizer(folder), tokenizer, source)
    stored = MetroT0Config.from_pretrained(str(folder))
    pretraining = isinstance(model, MetroT0ForPreTraining)
    for field in (*_MAIN_SHAPE, *(_PRETRAINING_SHAPE if pretraining else ())):
        there, here = getattr(stored, field), getattr(model.config, field)
        if there != here:
            raise ValueError(
                f"{source} cannot be taken: its {field} is {there}, this configuration's is {here}"
            )
    loaded, missing = _from_pretrained(type(model), folder, model.config)
    if missing:
        raise ValueError(
            f"{source} cannot be taken: it has no {missing[0].split('.')[0]} part, which this objective trains "
            f"(a finetuned model has left it behind)"
        )
    model.load_state_dict(loaded.state_dict())


def check_same_vocabulary(there: MetroT0Tokenizer, here: MetroT0Tokenizer, source: Path) -> None:
    """Refuse weights whose embedding rows mean other pieces.

    Raises:
        ValueError: says in what the vocabularies differ.
    """
    start = f"{source} has another vocabulary than the corpus"
    mend = "prepare the corpus with its tokenizer (metro-t0 prepare --tokenizer)"
    if len(there) != len(here):
        raise ValueError(f"{start}: {len(there)} ids, not {len(here)}; {mend}")
    ids = list(range(len(there)))
    pieces = zip(there.convert_ids_to_tokens(ids), here.convert_ids_to_tokens(ids), strict=True)
    differing = sum(one != other for one, other in pieces)
    if differing:
        raise ValueError(f"{start}: {differing} of {len(there)} ids stand for other pieces; {mend}")
    if there.lower != here.lower:
        raise ValueError(f"{start}: one is cased, the other is not; {mend}")


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
    model, missing = _from_pretrained(MetroT0ForConditionalGeneration, folder, config)
    if missing:
        raise ValueError(f"{source} lacks weights of the model, such as {missing[0]}")
    return model, tokenizer


def _from_pretrained(
    kind: type[MetroT0ForConditionalGeneration], folder: Path, config: MetroT0Config
) -> tuple[MetroT0ForConditionalGeneration, list[str]]:
    """A model in float32 and the names that its folder does not hold."""
    try:
        with without_transformers_bars():
            found: Any = kind.from_pretrained(
                str(folder), config=config, dtype=torch.float32, output_loading_info=True
            )
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"the model in {folder} cannot be read: {' '.join(str(error).split())[:300]}"
        ) from error
    model, info = found
    return model, sorted(info["missing_keys"])
