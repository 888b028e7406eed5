"""To the published format and back: the same bits, the same answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from small_sources import PROMPTS, TEXTS, save_pretraining_source, save_source

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.sharing.export import export_model
from metro_t0.sharing.published_format import write_published
from metro_t0.sharing.source import read_source
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer

EMBEDDINGS = {
    "shared.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "lm_head.weight",
}


def stored(folder: Path) -> dict[str, torch.Tensor]:
    return torch.load(folder / "pytorch_model.bin", weights_only=True)


def bits(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().view(torch.uint8).numpy().tobytes()


def assert_same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype and tensor.shape == other[name].shape, name
        assert bits(tensor) == bits(other[name]), name


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_there_and_back_keeps_every_bit(tmp_path: Path, dtype: torch.dtype) -> None:
    model = save_source(tmp_path / "source", dtype=dtype)
    write_published(read_source(tmp_path / "source"), tmp_path / "published")
    tensors = stored(tmp_path / "published")
    assert_same_bits(tensors, dict(model.state_dict()))
    assert len({tensors[name].data_ptr() for name in EMBEDDINGS}) == 1
    export_model(read_source(tmp_path / "published"), tmp_path / "ours", "")
    ours, source = (load_file(tmp_path / name / "model.safetensors") for name in ("ours", "source"))
    assert_same_bits(ours, source)
    write_published(read_source(tmp_path / "ours"), tmp_path / "again")
    assert_same_bits(stored(tmp_path / "again"), tensors)
    for name in ("config.json", "tokenizer_config.json", "sp.model", "dict.txt", "generation_config.json"):
        assert (tmp_path / "again" / name).read_bytes() == (tmp_path / "published" / name).read_bytes(), name


def test_not_even_bits_that_are_no_numbers_change(tmp_path: Path) -> None:
    save_source(tmp_path / "source")
    write_published(read_source(tmp_path / "source"), tmp_path / "published")
    tensors = stored(tmp_path / "published")
    tensors["encoder.first_layer_norm.bias"][:3] = torch.tensor([float("nan"), -0.0, float("inf")])
    tensors["shared.weight"][5, 5] = float("nan")
    torch.save(tensors, tmp_path / "published" / "pytorch_model.bin")
    export_model(read_source(tmp_path / "published"), tmp_path / "ours", "")
    write_published(read_source(tmp_path / "ours"), tmp_path / "again")
    assert_same_bits(stored(tmp_path / "again"), tensors)


def test_the_configuration_says_what_the_published_ones_say(tmp_path: Path) -> None:
    save_source(tmp_path / "source")
    source = read_source(tmp_path / "source")
    write_published(source, tmp_path / "published")
    config = json.loads((tmp_path / "published" / "config.json").read_text())
    assert config["model_type"] == "fairseq_t5" and config["torch_dtype"] == "float32"
    assert config["relative_attention_num_buckets"] == 16 and config["relative_attention_max_distance"] == 22
    # What differs from the published models, and has no key there.
    assert config["num_positions"] == 64 and config["num_sentinel_tokens"] == 9
    assert not {"rtd_head", "auxiliary_sharing", "initialization", "auto_map"} & config.keys()
    tokenizer = json.loads((tmp_path / "published" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "FairseqT5Tokenizer" and tokenizer["n_sentinel_tokens"] == 9
    again = read_source(tmp_path / "published").config
    kept = config.keys() - {"architectures", "torch_dtype"}
    assert all(getattr(again, key) == config[key] for key in kept)


def test_what_the_configuration_leaves_out_is_read_off_tensors_and_tokenizer(tmp_path: Path) -> None:
    model = save_source(tmp_path / "source")
    write_published(read_source(tmp_path / "source"), tmp_path / "published")
    file = tmp_path / "published" / "config.json"
    config = json.loads(file.read_text())
    del config["num_positions"], config["num_sentinel_tokens"]
    file.write_text(json.dumps(config))
    again = read_source(tmp_path / "published").config
    assert (again.num_positions, again.num_sentinel_tokens) == (64, 9)
    assert again.mask_token_id == model.config.mask_token_id


def test_the_auxiliary_model_stays_behind(tmp_path: Path) -> None:
    model = save_pretraining_source(tmp_path / "source")
    write_published(read_source(tmp_path / "source"), tmp_path / "published")
    main = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(("auxiliary.", "rtd_head."))
    }
    assert_same_bits(stored(tmp_path / "published"), main)


def test_a_tokenizer_that_others_would_misread_is_refused(tmp_path: Path) -> None:
    save_source(tmp_path / "source")
    source = read_source(tmp_path / "source")
    train_tokenizer(TEXTS * 20, 360, tmp_path / "neutral", normalizer="neutral", num_sentinel_tokens=9)
    neutral = MetroT0Tokenizer.from_pretrained(tmp_path / "neutral")
    with pytest.raises(ValueError, match="knows only the english normaliser"):
        write_published(type(source)(**{**vars(source), "tokenizer": neutral}), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_official_checkpoint_there_and_back(golden: Path, tmp_path: Path) -> None:
    golden = golden / "hf_tiny"
    export_model(read_source(golden), tmp_path / "ours", "")
    write_published(read_source(tmp_path / "ours"), tmp_path / "published")
    assert_same_bits(stored(tmp_path / "published"), stored(golden))
    for name in ("sp.model", "dict.txt", "special_tokens_map.json", "tokenizer_config.json"):
        if name.endswith(".json"):
            assert json.loads((tmp_path / "published" / name).read_text()) == json.loads(
                (golden / name).read_text()
            )
        else:
            assert (tmp_path / "published" / name).read_bytes() == (golden / name).read_bytes()
    official = json.loads((golden / "config.json").read_text())
    written = json.loads((tmp_path / "published" / "config.json").read_text())
    assert written == {key: value for key, value in official.items() if key != "transformers_version"}

    cases, strings = load_file(golden / "cases.safetensors"), json.loads((golden / "cases.json").read_text())
    for folder in (tmp_path / "ours", tmp_path / "published"):
        model = MetroT0ForConditionalGeneration.from_pretrained(folder).eval()
        batch = MetroT0Tokenizer.from_pretrained(folder)(
            strings["strings"], padding=True, truncation=True, max_length=64, return_tensors="pt"
        )
        assert torch.equal(batch["input_ids"], cases["input_ids"])
        assert torch.equal(model.generate(**batch, max_new_tokens=16, do_sample=False), cases["greedy"])
        beams = model.generate(**batch, max_new_tokens=12, do_sample=False, num_beams=4)
        assert torch.equal(beams, cases["beam4"])
        with torch.no_grad():
            logits = model(**batch, labels=cases["labels"]).logits
        known = cases["labels"] != -100
        torch.testing.assert_close(logits[known], cases["logits"][known], rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("build", ["roberta-token_pos_norm", "simple-token", "none-none"])
def test_an_official_pretraining_goes_both_ways(golden: Path, tmp_path: Path, build: str) -> None:
    file = golden / "pretrain_tiny" / f"{build}.pt"
    model = MetroT0ForPreTraining.from_fairseq(file)
    sentinels = model.config.num_sentinel_tokens
    pieces = model.config.vocab_size - sentinels
    words = [f"{text} {number}" for number in range(300) for text in TEXTS + PROMPTS]
    train_tokenizer(words, pieces, tmp_path / "tokenizer", num_sentinel_tokens=sentinels)
    source = read_source(file, tmp_path / "tokenizer")
    export_model(source, tmp_path / "ours", "")
    again = MetroT0ForPreTraining.from_pretrained(tmp_path / "ours" / "pretraining")
    assert_same_bits(dict(again.state_dict()), dict(model.state_dict()))
    write_published(source, tmp_path / "published")
    write_published(read_source(tmp_path / "ours"), tmp_path / "again")
    assert_same_bits(stored(tmp_path / "published"), stored(tmp_path / "again"))
