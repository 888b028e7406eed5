"""fairseq pretraining checkpoints of our own models, as the official training would have saved them."""

from __future__ import annotations

from typing import Any

import torch

from metro_t0.modeling.pretraining import MetroT0ForPreTraining


def official_name(name: str) -> str:
    """Our parameter names as the official training writes them: said here once more, from that side."""
    parts = name.split(".")
    if parts[0] == "lm_head":
        return "decoder.output_projection.weight"
    if parts[0] == "rtd_head":
        return "rtd_head." + parts[-1] if parts[1] == "out" else name
    if parts[:2] == ["auxiliary", "head"]:
        return "generator.lm_head." + ".".join(parts[2:])
    stack, rest = (
        (parts[0], parts[1:]) if parts[0] != "auxiliary" else ("generator.sentence_encoder", parts[2:])
    )
    if rest[0] != "block":
        first = {
            "embed_tokens": "embed_tokens",
            "pos_embed": "embed_positions",
            "first_layer_norm": "layernorm_embedding",
        }[rest[0]]
        return f"{stack}.{first}.{rest[1]}"
    _, layer, _, sublayer, module, *last = rest
    attention = {"0": "self_attn", "1": "encoder_attn"}
    is_feed_forward = sublayer == ("2" if stack == "decoder" else "1")
    if module == "layer_norm":
        owner = "final" if is_feed_forward else attention[sublayer]
        inner = f"{owner}_layer_norm"
    elif module == "DenseReluDense":
        inner = {"wi": "fc1", "wo": "fc2"}[last.pop(0)]
    elif last[0] == "relative_attention_bias":
        inner = "self_attn_rel_pos.rel_attn_bias"
        last.pop(0)
    else:
        projection = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}[last.pop(0)]
        inner = f"{attention[sublayer]}.{projection}"
    return ".".join([stack, "layers", layer, inner, *last])


def checkpoint_of(model: MetroT0ForPreTraining) -> dict[str, Any]:
    """What the official training would save of this model, its overwritten configuration included."""
    config = model.config
    tensors = {
        official_name(name): tensor for name, tensor in model.state_dict().items() if name != "shared.weight"
    }
    for stack in ("encoder", "decoder", "generator.sentence_encoder"):
        tensors[f"{stack}.version"] = torch.tensor([3.0])
    tensors["generator.lm_head.weight"] = tensors["generator.sentence_encoder.embed_tokens.weight"]
    settings = {
        "_name": "t5_metro_base_rpe",
        "encoder_layers": config.num_auxiliary_layers,
        "decoder_layers": config.num_auxiliary_layers + 7,
        "encoder_attention_heads": config.num_heads,
        "encoder_rp_bins": config.relative_attention_num_buckets,
        "encoder_rp_max_dist": config.relative_attention_max_distance,
        "share_generator_discriminator_embed": "true",
        "rtd_head": "true",
        "dropout": 0.25,
    }
    task = {"_name": "t5_metro", "tokens_per_sample": config.num_sentinel_tokens}
    return {"cfg": {"model": settings, "task": task}, "model": tensors, "extra_state": {"epoch": 3}}
