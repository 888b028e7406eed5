"""Opens a trained model for evaluation: a model folder, a run directory, or a name on the Hugging Face Hub.

model, tokenizer = load_model("runs/finetune")
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def model_folder(path: str | Path) -> str:
    """The folder that ``from_pretrained`` reads: the path itself, or ``model/`` of a run directory.

    A path that does not exist and looks like a name on the Hub is returned as it is.

    Raises:
        ValueError: there is no such folder, or it holds no model.
    """
    folder = Path(path)
    if not folder.exists():
        if _HUB_NAME.fullmatch(str(path)):
            return str(path)
        raise ValueError(f"no model at {path}: there is no such folder")
    for candidate in (folder, folder / "model"):
        if (candidate / "config.json").is_file():
            return str(candidate)
    raise ValueError(
        f"no model at {path}: neither it nor its model/ holds a config.json (is the run finished?)"
    )


def load_model(path: str | Path) -> tuple[MetroT0ForConditionalGeneration, MetroT0Tokenizer]:
    """The model in float32 without dropout, on the GPU if there is one, and its tokenizer.

    Args:
        path: a model folder (published format or ours), a run directory, or a Hub name.

    Raises:
        ValueError: there is no model, or it cannot be read.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

    folder = model_folder(path)
    shows_progress = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        model = MetroT0ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
        tokenizer = MetroT0Tokenizer.from_pretrained(folder)
    except OSError as error:
        raise ValueError(f"cannot read the model at {path}: {error}") from error
    finally:
        if shows_progress:
            transformers_logging.enable_progress_bar()
    if len(tokenizer) != model.config.vocab_size:
        raise ValueError(
            f"the tokenizer at {path} has {len(tokenizer)} ids, but the model's embedding has "
            f"{model.config.vocab_size} rows: they do not belong together"
        )
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return model.eval().to(device), tokenizer
