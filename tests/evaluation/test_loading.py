"""What becomes of a folder: our model, another encoder-decoder, or one clear line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from foreign_models import make_foreign_tokenizer, save_foreign_model
from small_models import make_model, make_tokenizer
from transformers import BertConfig, BertModel, GPT2Config, GPT2LMHeadModel, T5ForConditionalGeneration

from metro_t0.evaluation.loading import load_model, resolved_precision
from metro_t0.evaluation.quantization import multiplies_bfloat16
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    tokenizer = make_tokenizer(tmp_path / "tokenizer")
    make_model(tokenizer).save_pretrained(tmp_path / "run" / "model")
    tokenizer.save_pretrained(tmp_path / "run" / "model")
    return tmp_path / "run"


def test_a_run_is_our_model_and_another_folder_is_its_own(ours: Path, tmp_path: Path) -> None:
    model, tokenizer = load_model(ours)
    assert isinstance(model, MetroT0ForConditionalGeneration) and isinstance(tokenizer, MetroT0Tokenizer)
    assert model.dtype == torch.float32 and not model.training
    other, _ = load_model(save_foreign_model("t5", tmp_path / "t5"), "bf16")
    assert isinstance(other, T5ForConditionalGeneration) and other.lm_head.weight.dtype == torch.bfloat16
    assert {parameter.dtype for parameter in load_model(ours, "bf16")[0].parameters()} == {torch.bfloat16}


def test_the_precision_that_a_device_is_quick_in(ours: Path) -> None:
    model, _ = load_model(ours, "auto", "cpu")
    assert model.dtype == (torch.bfloat16 if multiplies_bfloat16("cpu") else torch.float32)
    assert resolved_precision("int8", "cpu") == "int8"


def test_the_published_format(golden: Path) -> None:
    model, _ = load_model(golden / "hf_tiny", device="cpu")
    assert isinstance(model, MetroT0ForConditionalGeneration) and model.device.type == "cpu"


def test_what_is_no_encoder_decoder(tmp_path: Path) -> None:
    encoder = BertConfig(
        vocab_size=64, hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8
    )
    BertModel(encoder).save_pretrained(tmp_path / "bert")
    GPT2LMHeadModel(GPT2Config(vocab_size=64, n_embd=8, n_layer=1, n_head=2)).save_pretrained(
        tmp_path / "gpt2"
    )
    for kind in ("bert", "gpt2"):
        make_foreign_tokenizer("bart").save_pretrained(tmp_path / kind)
        with pytest.raises(ValueError, match=rf"{kind} is no encoder-decoder \({kind}\)"):
            load_model(tmp_path / kind)


def test_a_decoder_without_a_start_token(ours: Path) -> None:
    path = ours / "model" / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**config, "decoder_start_token_id": None}), encoding="utf-8")
    (ours / "model" / "generation_config.json").unlink()
    with pytest.raises(ValueError, match=r"write decoder_start_token_id into its config\.json"):
        load_model(ours)


def test_strangers_and_broken_files(ours: Path, tmp_path: Path) -> None:
    small = save_foreign_model("t5", tmp_path / "t5")
    config = json.loads((small / "config.json").read_text(encoding="utf-8"))
    weights = (small / "model.safetensors").read_bytes()
    (small / "model.safetensors").write_bytes(weights[:-100])
    with pytest.raises(ValueError, match="cannot read the model at"):
        load_model(small)
    (small / "model.safetensors").write_bytes(weights)
    tokenizer = make_foreign_tokenizer("t5")
    tokenizer.add_tokens([f"new{index}" for index in range(40)])
    tokenizer.save_pretrained(small)
    with pytest.raises(ValueError, match=f"but the model's embedding has {config['vocab_size']} rows"):
        load_model(small)
    (small / "config.json").write_text(json.dumps({**config, "model_type": "unheard_of"}), encoding="utf-8")
    with pytest.raises(ValueError, match="unheard_of"):
        load_model(small)
    make_tokenizer(tmp_path / "tokenizer").save_pretrained(ours / "model")
    bigger = MetroT0Tokenizer(
        str(tmp_path / "tokenizer" / "sp.model"),
        str(tmp_path / "tokenizer" / "dict.txt"),
        n_sentinel_tokens=513,
    )
    bigger.save_pretrained(ours / "model")
    with pytest.raises(ValueError, match="they do not belong together"):
        load_model(ours)
