"""A model and its tokenizer from a folder, a run directory or the Hub.

model, tokenizer = load_model("runs/finetune")
model, tokenizer = load_model("google/flan-t5-base", precision="bf16")    # or int8, on the CPU
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Precision = Literal["fp32", "bf16", "int8", "auto"]
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


def load_model(
    path: str | Path, precision: Precision = "fp32", device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model without dropout, on the GPU if there is one, and its tokenizer.

    A folder of the published format or ours becomes a ``MetroT0ForConditionalGeneration``; any other is read by
    transformers' Auto classes and must be an encoder-decoder. Every weight comes from the folder: a model that
    transformers would complete with random ones is refused.

    Args:
        path: a model folder, a run directory, or a Hub name.
        precision: of the weights and of all that is computed with them; log-probabilities are float32 in any case.
            ``int8`` rounds the weights of linear layers to 8 bits, on the CPU alone, and leaves the rest in float32;
            ``auto`` is bf16 where the device multiplies it itself, else fp32.
        device: as torch names it; by default the GPU if there is one (the CPU for int8).

    Raises:
        ValueError: there is no model, it cannot be read, it is no encoder-decoder, its decoder has no start token, or
            int8 was asked for where it cannot be.
    """
    import torch

    from metro_t0.evaluation.quantization import quantize

    folder = model_folder(path)
    device = device or ("cuda" if torch.cuda.is_available() and precision != "int8" else "cpu")
    precision = resolved_precision(precision, device)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    try:
        model, tokenizer = _read(folder, dtype)
    except (OSError, ImportError, KeyError, RuntimeError) as error:
        raise ValueError(f"cannot read the model at {path}: {error}") from error
    model = model.eval().to(device)
    return (quantize(model) if precision == "int8" else model), tokenizer


def resolved_precision(precision: Precision, device: str | None) -> Precision:
    """The precision that ``auto`` stands for on a device (None: the GPU if there is one); any other as it is."""
    if precision != "auto":
        return precision
    import torch

    from metro_t0.evaluation.quantization import multiplies_bfloat16

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    return "bf16" if multiplies_bfloat16(device) else "fp32"


def _read(folder: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Model and tokenizer by the kind that the folder's configuration names."""
    from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedConfig

    from metro_t0.evaluation.ranking.plain import start_token, vocabulary_rows
    from metro_t0.interop.folders import check_files, read_network
    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

    described, _ = PreTrainedConfig.get_config_dict(folder)
    if described.get("model_type") == MetroT0ForConditionalGeneration.config_class.model_type:
        check_files(folder)
        model = read_network(MetroT0ForConditionalGeneration, folder, dtype)
        tokenizer: Any = MetroT0Tokenizer.from_pretrained(folder)
        # Up to a multiple of 128, rows may be padding.
        if not 0 <= model.config.vocab_size - len(tokenizer) < 128:
            raise ValueError(_strangers(folder, len(tokenizer), model.config.vocab_size))
    else:
        config = AutoConfig.from_pretrained(folder)
        if not config.is_encoder_decoder:
            raise ValueError(
                f"the model at {folder} is no encoder-decoder ({config.model_type}): answers are ranked by models that "
                "encode a prompt and decode an answer, as T5 and BART do"
            )
        tokenizer = AutoTokenizer.from_pretrained(folder)
        # Where a folder holds no tokenizer, transformers makes an empty one: special tokens and at most a space.
        if len(tokenizer) <= len(tokenizer.all_special_ids) + 1:
            raise ValueError(f"there is no tokenizer in {folder}: save the model's own there")
        model = read_network(AutoModelForSeq2SeqLM, folder, dtype)
        rows = vocabulary_rows(model)
        if len(tokenizer) > rows:
            raise ValueError(_strangers(folder, len(tokenizer), rows))
    start_token(model)
    return model, tokenizer


def _strangers(folder: str, ids: int, rows: int) -> str:
    tokenizer = f"the tokenizer at {folder} has {ids} ids"
    return f"{tokenizer}, but the model's embedding has {rows} rows: they do not belong together"
