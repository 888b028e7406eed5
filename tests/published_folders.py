"""Small folders in the format in which the authors publish their models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.training import train_tokenizer
from tiny_networks import randomize, tiny_config

TEXTS = ["The cat sat on the mat, and the dog did not.", "Is this right? Yes: it is 3,000.50!"] * 20
# What config.json of a published folder says; the rest is left to the configuration's defaults.
FIELDS = """
d_ff d_kv d_model decoder_start_token_id dropout_rate eos_token_id is_encoder_decoder layer_norm_epsilon max_positions
num_decoder_layers num_heads num_layers pad_token_id relative_attention_max_distance relative_attention_num_buckets
use_cache vocab_size
""".split()  # noqa: SIM905


def save_published(folder: Path, dtype: torch.dtype = torch.float32, **changes: Any) -> Path:
    """Random weights in ``pytorch_model.bin``, a vocabulary of 90 pieces and 512 sentinels."""
    tokenizer = train_tokenizer(TEXTS, 90, folder)
    config = tiny_config(
        vocab_size=len(tokenizer), num_sentinel_tokens=512, num_positions=1024, max_positions=512, **changes
    )
    model = randomize(MetroT0ForConditionalGeneration(config))
    torch.save(
        {name: value.to(dtype).clone() for name, value in model.state_dict().items()},
        folder / "pytorch_model.bin",
    )
    published = {"architectures": ["FairseqT5ForConditionalGeneration"], "model_type": "fairseq_t5"}
    values = config.to_dict()
    content = {**published, **{name: values[name] for name in FIELDS}, "torch_dtype": "float32"}
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def edit_config(folder: Path, **changes: Any) -> None:
    """Change values of ``config.json``."""
    path = folder / "config.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**content, **changes}), encoding="utf-8")


def edit_weights(folder: Path, changes: dict[str, Any]) -> None:
    """Replace values of ``pytorch_model.bin``, or take out those that become None."""
    weights = {**torch.load(folder / "pytorch_model.bin", weights_only=True), **changes}
    kept = {name: value for name, value in weights.items() if value is not None}
    torch.save(kept, folder / "pytorch_model.bin")
