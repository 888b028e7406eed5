"""A folder in the format of the published METRO-T0 models, for programs that read those.

    write_published(read_source(Path("runs/finetune")), Path("as-published"))

    as-published/config.json               model_type fairseq_t5, the published keys
                 pytorch_model.bin         by torch.save, the embedding under all four of its names
                 sp.model, dict.txt, tokenizer_config.json, special_tokens_map.json, generation_config.json

Settings that the published format has no key for are written beside its own where they differ from the published
models', so that nothing is lost on the way back.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metro_t0.data.output import new_directory
from metro_t0.sharing.export import write_generation_config, write_json, write_tokenizer

if TYPE_CHECKING:
    from metro_t0.sharing.source import Source

_PUBLISHED_KEYS = (
    "vocab_size",
    "d_model",
    "d_kv",
    "d_ff",
    "num_layers",
    "num_decoder_layers",
    "num_heads",
    "relative_attention_num_buckets",
    "relative_attention_max_distance",
    "max_positions",
    "dropout_rate",
    "layer_norm_epsilon",
    "pad_token_id",
    "eos_token_id",
    "decoder_start_token_id",
    "is_encoder_decoder",
    "use_cache",
)
# Stated in every published folder; there is no other choice.
_CONSTANTS = {
    "architectures": ["FairseqT5ForConditionalGeneration"],
    "model_type": "fairseq_t5",
    "feed_forward_proj": "relu",
    "initializer_factor": 1.0,
}
_OURS = ("num_positions", "num_sentinel_tokens", "bos_token_id")


def write_published(source: Source, out: Path) -> None:
    """Write the main model in the published format, whole or not at all.

    Auxiliary model and detection head are left behind: the format has no room for them.

    Args:
        source: the model.
        out: the folder to make.

    Raises:
        ValueError: ``out`` holds something or cannot be written, or the tokenizer is one that programs for the
            published format would read otherwise.
    """
    import torch

    if source.tokenizer.text_normalizer != "english":
        raise ValueError(
            f"the published format knows only the english normaliser, and this model's tokenizer has the "
            f"{source.tokenizer.text_normalizer} one: other programs would cut texts otherwise (convert it to hub)"
        )
    weights = {name: tensor.contiguous() for name, tensor in source.main_weights.items()}
    # One tensor under several names is stored once.
    weights.update({name: weights[first] for name, first in source.main_tied.items()})
    with new_directory(out) as folder:
        try:
            write_json(folder / "config.json", _configuration(source))
            torch.save(weights, folder / "pytorch_model.bin")
            write_generation_config(source, folder)
            write_tokenizer(source.tokenizer, folder)
            _as_published(folder)
        except (OSError, RuntimeError) as error:
            raise ValueError(f"cannot write to {out}: {error}") from error


def _configuration(source: Source) -> dict[str, Any]:
    from metro_t0.modeling.configuration import MetroT0Config

    config, usual = source.config, MetroT0Config()
    settings = {key: getattr(config, key) for key in _PUBLISHED_KEYS}
    differing = {key: getattr(config, key) for key in _OURS if getattr(config, key) != getattr(usual, key)}
    dtype = str(config.dtype).removeprefix("torch.")
    return dict(sorted({**settings, **differing, **_CONSTANTS, "torch_dtype": dtype}.items()))


def _as_published(folder: Path) -> None:
    """Leave out what only we know, and add the file from which transformers before version 5 reads special tokens."""
    file = folder / "tokenizer_config.json"
    described = json.loads(file.read_text(encoding="utf-8"))
    described.pop("normalizer", None)
    write_json(file, described)
    names = ("bos_token", "cls_token", "eos_token", "pad_token", "sep_token", "unk_token")
    write_json(folder / "special_tokens_map.json", {name: described[name] for name in names})
