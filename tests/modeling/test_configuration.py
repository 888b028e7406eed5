"""The configuration: defaults, what it refuses, and how it is written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.metro import MetroObjective
from tiny_networks import random_text, tiny_config


def test_defaults_are_base() -> None:
    config = MetroT0Config()
    assert (config.num_layers, config.num_decoder_layers, config.d_model) == (12, 12, 768)
    assert config.mask_token_id == 32768
    assert (config.bos_token_id, config.pad_token_id, config.eos_token_id) == (0, 1, 2)
    assert config.decoder_start_token_id == 2
    assert config.is_encoder_decoder and config.tie_word_embeddings
    assert MetroT0Config(num_layers=5).num_decoder_layers == 5


def test_a_few_sizes_make_a_working_pretrainer() -> None:
    config = MetroT0Config(d_model=64, d_kv=16, d_ff=96, num_heads=4, num_layers=1)
    output = MetroT0ForPreTraining(config)(**random_text([7, 5]).inputs(), objective=MetroObjective())
    assert torch.isfinite(output.loss)


def test_a_published_configuration_is_read(tmp_path: Path) -> None:
    """Fields that we do not know stay, fields that it does not have are METRO-T0's defaults."""
    published = {
        "architectures": ["FairseqT5ForConditionalGeneration"],
        "d_ff": 64,
        "d_kv": 8,
        "d_model": 32,
        "decoder_start_token_id": 2,
        "dropout_rate": 0.1,
        "eos_token_id": 2,
        "feed_forward_proj": "relu",
        "max_positions": 512,
        "model_type": "fairseq_t5",
        "num_decoder_layers": 2,
        "num_heads": 4,
        "num_layers": 3,
        "pad_token_id": 1,
        "relative_attention_max_distance": 128,
        "relative_attention_num_buckets": 32,
        "vocab_size": 33280,
    }
    (tmp_path / "config.json").write_text(json.dumps(published))
    config = AutoConfig.from_pretrained(tmp_path)
    assert type(config) is MetroT0Config
    assert {field: getattr(config, field) for field in published} == published
    assert (config.num_positions, config.mask_token_id) == (1024, 32768)
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (32, 3, 4)


def test_written_and_read_again(tmp_path: Path) -> None:
    config = tiny_config(rtd_head="simple", auxiliary_sharing="token", initialization="clean")
    config.save_pretrained(tmp_path)
    again = AutoConfig.from_pretrained(tmp_path)
    written, read = config.to_dict(), again.to_dict()
    for values in (written, read):
        values.pop("_name_or_path", None)
    assert read == written


def test_the_decoders_view_has_the_decoders_depth() -> None:
    config = tiny_config(num_layers=2, num_decoder_layers=3)
    assert config.get_text_config(decoder=True).num_hidden_layers == 3
    assert config.get_text_config(encoder=True).num_hidden_layers == 2
    assert config.get_text_config().num_hidden_layers == config.num_layers == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"d_model": 13}, r"num_heads \* d_kv must be d_model, but 3 \* 4 is not 13"),
        (
            {"auxiliary_sharing": "true"},
            "auxiliary_sharing must be one of none, token, token_pos, token_pos_norm",
        ),
        ({"rtd_head": "linear"}, "rtd_head must be one of none, simple, roberta, not 'linear'"),
        ({"rtd_location": "both"}, "rtd_location must be one of encoder, decoder"),
        ({"initialization": "zero"}, "initialization must be one of published, clean"),
        ({"num_sentinel_tokens": 43}, r"num_sentinel_tokens must lie between 1 and vocab_size - 1 \(42\)"),
        ({"num_sentinel_tokens": 0}, "num_sentinel_tokens must lie between 1"),
    ],
    ids=str,
)
def test_what_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny_config(**changes)


def test_a_changed_vocabulary_keeps_old_tokens() -> None:
    model = MetroT0ForConditionalGeneration(tiny_config()).eval()
    ids = random_text([7, 5]).original
    before = model(input_ids=ids, decoder_input_ids=ids).logits
    model.resize_token_embeddings(50, mean_resizing=False)
    after = model(input_ids=ids, decoder_input_ids=ids).logits
    assert after.shape == (2, 7, 50)
    torch.testing.assert_close(after[..., :43], before)
    assert model.lm_head.weight is model.encoder.embed_tokens.weight is model.shared.weight
