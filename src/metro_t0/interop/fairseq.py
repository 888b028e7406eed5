"""Official pretraining checkpoints (fairseq ``.pt``): main model, auxiliary model and detection head.

>>> pretrainer = MetroT0ForPreTraining.from_fairseq("checkpoint_last.pt")

Depths and widths come from the tensors, since the official training stores a configuration that building the
auxiliary model has already overwritten (depth and dropout of the auxiliary model in place of the main model's).
So does what is shared: the stored options are at times of an older kind. Half-precision tensors become float32.

The settings may be plain dictionaries, omegaconf's containers or one argparse namespace, as fairseq's versions wrote
them; ``unpickling`` reads all three without omegaconf, and lets nothing in the file run.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from metro_t0.interop.unpickling import plain, read_checkpoint
from metro_t0.modeling.configuration import AUXILIARY_SHARINGS, MetroT0Config
from metro_t0.modeling.pretraining import MetroT0ForPreTraining

_RENAMES = (
    (r"^generator\.sentence_encoder\.", "auxiliary.encoder."),
    (r"^generator\.lm_head\.", "auxiliary.head."),
    (r"^rtd_head\.(weight|bias)$", r"rtd_head.out.\1"),
    (r"^decoder\.output_projection\.", "lm_head."),
    (r"embed_positions", "pos_embed"),
    (r"layernorm_embedding", "first_layer_norm"),
    (r"\.layers\.", ".block."),
    (r"\.self_attn\.(\w)\w*_proj\.", r".layer.0.SelfAttention.\1."),
    (r"\.self_attn_rel_pos\.rel_attn_bias\.", ".layer.0.SelfAttention.relative_attention_bias."),
    (r"\.self_attn_layer_norm\.", ".layer.0.layer_norm."),
    (r"\.encoder_attn\.(\w)\w*_proj\.", r".layer.1.EncDecAttention.\1."),
    (r"\.encoder_attn_layer_norm\.", ".layer.1.layer_norm."),
    (r"(encoder\.block\.\d+)\.(fc\d|final_layer_norm)\.", r"\1.layer.1.\2."),
    (r"(decoder\.block\.\d+)\.(fc\d|final_layer_norm)\.", r"\1.layer.2.\2."),
    (r"\.fc1\.", ".DenseReluDense.wi."),
    (r"\.fc2\.", ".DenseReluDense.wo."),
    (r"\.final_layer_norm\.", ".layer_norm."),
)
# Buffers without a value, and the auxiliary output projection, which is its embedding under a second name.
_DROPPED = re.compile(r"(^|\.)version$|^generator\.lm_head\.weight$")


def load_pretraining(path: str | PathLike[str], dropout_rate: float | None = None) -> MetroT0ForPreTraining:
    """Read an official pretraining checkpoint.

    Args:
        path: the ``.pt`` file.
        dropout_rate: dropout of the main model; as stored when None.

    Raises:
        ValueError: not such a checkpoint, or one whose tensors do not make a whole model.
    """
    path = Path(path)
    stored, official = _read(path)
    tensors = {rename(name): tensor for name, tensor in official.items() if not _DROPPED.search(name)}
    tensors["shared.weight"] = tensors["encoder.embed_tokens.weight"]
    try:
        config = _configuration(stored, tensors, dropout_rate)
    except KeyError as error:
        raise ValueError(
            f"{path} does not hold a whole METRO pretraining model: it has no {error}"
        ) from error
    except (TypeError, IndexError, AttributeError, ArithmeticError) as error:
        raise ValueError(f"{path} does not hold a METRO model's settings: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path} does not fit together: {error}") from error
    model = MetroT0ForPreTraining(config)
    _check_tensors(path, tensors, model.state_dict())
    model.load_state_dict(tensors)
    return model


def rename(name: str) -> str:
    """An official parameter name to ours (which is the published transformers name for the main model)."""
    for pattern, replacement in _RENAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _read(path: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Settings (``model`` and ``task``) and tensors of a checkpoint, under their official names."""
    checkpoint = read_checkpoint(path)
    if not isinstance(checkpoint, Mapping) or not isinstance(checkpoint.get("model"), Mapping):
        raise ValueError(f"{path} is not a fairseq checkpoint: it has no 'cfg' and 'model'")
    settings = plain(checkpoint.get("cfg"))
    if not settings and isinstance(flat := plain(checkpoint.get("args")), dict):
        # Before its sections, fairseq kept all settings in one namespace.
        settings = {"model": flat, "task": flat}
    if not isinstance(settings, dict):
        raise ValueError(f"{path} is not a fairseq checkpoint: it has no 'cfg' and 'model'")
    tensors = dict(checkpoint["model"])
    if "encoder.embed_tokens.weight" not in tensors:
        raise ValueError(f"{path} is not a METRO checkpoint: it has no encoder embedding")
    for name, tensor in tensors.items():
        if not (isinstance(name, str) and isinstance(tensor, torch.Tensor)):
            raise ValueError(f"{path} is not a METRO checkpoint: its {name} is no tensor")
    return settings, tensors


def _check_tensors(
    path: Path, tensors: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor]
) -> None:
    missing, unexpected = sorted(expected.keys() - tensors.keys()), sorted(tensors.keys() - expected.keys())
    if missing or unexpected:
        raise ValueError(
            f"{path} does not hold a whole METRO pretraining model: "
            f"missing {missing[:3]}, unexpected {unexpected[:3]}"
        )
    for name, tensor in expected.items():
        if tensors[name].shape != tensor.shape:
            raise ValueError(
                f"{path} does not fit together: {name} is {list(tensors[name].shape)}, "
                f"where the other tensors ask for {list(tensor.shape)}"
            )


def _configuration(
    stored: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], dropout_rate: float | None
) -> MetroT0Config:
    model = stored["model"]
    vocab_size, width = tensors["shared.weight"].shape
    positions = tensors["encoder.pos_embed.weight"].shape[0] - 2
    heads = int(model["encoder_attention_heads"])
    if heads < 1:
        raise ValueError(f"it has {heads} attention heads")
    bias = tensors["encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"]
    return MetroT0Config(
        vocab_size=vocab_size,
        d_model=width,
        d_kv=width // heads,
        d_ff=tensors["encoder.block.0.layer.1.DenseReluDense.wi.weight"].shape[0],
        num_layers=_depth(tensors, "encoder"),
        num_decoder_layers=_depth(tensors, "decoder"),
        num_heads=heads,
        relative_attention_num_buckets=bias.shape[0],
        relative_attention_max_distance=int(model["encoder_rp_max_dist"]),
        max_positions=positions,
        dropout_rate=float(model["dropout"]) if dropout_rate is None else dropout_rate,
        num_sentinel_tokens=int(stored["task"]["tokens_per_sample"]),
        num_positions=positions,
        num_auxiliary_layers=_depth(tensors, "auxiliary.encoder"),
        auxiliary_sharing=_sharing(tensors),
        rtd_head=_head(tensors),
    )


def _depth(tensors: Mapping[str, torch.Tensor], stack: str) -> int:
    pattern = re.compile(re.escape(stack) + r"\.block\.(\d+)\.")
    numbers = [int(match.group(1)) for name in tensors if (match := pattern.match(name))]
    if not numbers:
        raise ValueError(f"the checkpoint holds no {stack} layers: it is not a METRO pretraining checkpoint")
    return max(numbers) + 1


def _head(tensors: Mapping[str, torch.Tensor]) -> str:
    if "rtd_head.dense.weight" in tensors:
        return "roberta"
    return "simple" if "rtd_head.out.weight" in tensors else "none"


def _sharing(tensors: Mapping[str, torch.Tensor]) -> str:
    """What is equal is shared: the stored option may be a legacy value, and shared tensors stand under both names."""
    sharing = AUXILIARY_SHARINGS[0]
    for option, part in zip(
        AUXILIARY_SHARINGS[1:], ("embed_tokens", "pos_embed", "first_layer_norm"), strict=True
    ):
        if not torch.equal(tensors[f"auxiliary.encoder.{part}.weight"], tensors[f"encoder.{part}.weight"]):
            break
        sharing = option
    return sharing
