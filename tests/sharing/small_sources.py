"""Small models with a tokenizer of their own, saved as this project saves them."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer
from tiny_networks import SENTINELS, randomize, tiny_config

TEXTS = ["The cat sat on the mat, and the dog did not.", "Is this right? Yes: it is 3,000.50!"]
PROMPTS = ["Is the cat right?", "The dog sat on the mat and the cat did not."]


@dataclass(frozen=True)
class Story:
    """Folders of two runs, and of an evaluation of the second."""

    pretraining: Path
    finetuning: Path
    evaluation: Path


def save_tokenizer(folder: Path) -> MetroT0Tokenizer:
    return train_tokenizer(TEXTS * 20, 90, folder, num_sentinel_tokens=SENTINELS)


def save_source(
    folder: Path,
    kind: type[MetroT0ForConditionalGeneration] = MetroT0ForConditionalGeneration,
    dtype: torch.dtype = torch.float32,
    **shape: int,
) -> MetroT0ForConditionalGeneration:
    """A model folder whose weights are all random, of the tiny shape unless said otherwise; gives the model."""
    tokenizer = save_tokenizer(folder)
    config = tiny_config(vocab_size=len(tokenizer), num_positions=64, **shape)
    model = randomize(kind(config)).to(dtype).eval()
    model.save_pretrained(folder)
    return model


def save_pretraining_source(folder: Path) -> MetroT0ForPreTraining:
    model = save_source(folder, MetroT0ForPreTraining)
    assert isinstance(model, MetroT0ForPreTraining)
    return model


def convert(
    *arguments: str | Path, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """The command, as a person runs it."""
    return subprocess.run(
        [sys.executable, "-m", "metro_t0.cli.main", "convert", *map(str, arguments)],
        capture_output=True,
        text=True,
        env=environment,
    )
