"""The folder for the Hub: whole, loadable with and without the package, the same answers everywhere."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import torch
from fresh_environment import make_environment, run_fresh
from safetensors.torch import load_file
from small_sources import PROMPTS, save_pretraining_source, save_source
from transformers import AutoModelForSeq2SeqLM, GenerationConfig

from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.sharing.export import export_model
from metro_t0.sharing.model_card import CardSettings, model_card
from metro_t0.sharing.published_format import write_published
from metro_t0.sharing.source import read_source
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

REMOTE = """
import importlib.util, json, sys
assert importlib.util.find_spec("metro_t0") is None
import torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
folder, texts = sys.argv[1], json.loads(sys.argv[2])
config = AutoConfig.from_pretrained(folder, trust_remote_code=True)
model = AutoModelForSeq2SeqLM.from_pretrained(folder, trust_remote_code=True).eval()
tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
batch = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
with torch.no_grad():
    logits = model(**batch, decoder_input_ids=batch.input_ids[:, :3]).logits
print(json.dumps({
    "dtype": str(model.dtype),
    "type": config.model_type,
    "ids": batch.input_ids.tolist(),
    "logits": logits.float().tolist(),
    "greedy": model.generate(**batch, max_new_tokens=16, do_sample=False).tolist(),
    "beam4": model.generate(**batch, max_new_tokens=12, do_sample=False, num_beams=4).tolist(),
    "modules": [name for name in sys.modules if name.split(".")[0] == "metro_t0"],
}))
"""


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that knows transformers, torch and sentencepiece, and not this package."""
    return make_environment(tmp_path_factory.mktemp("fresh") / "environment")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MetroT0ForPreTraining]:
    folder = tmp_path_factory.mktemp("exported")
    model = save_pretraining_source(folder / "source")
    source = read_source(folder / "source")
    export_model(source, folder / "out", model_card(source, CardSettings("out")))
    return folder / "out", model


def test_a_folder_for_the_hub_is_whole(exported: tuple[Path, MetroT0ForPreTraining]) -> None:
    folder, _ = exported
    for name in ("README.md", "sp.model", "dict.txt", "tokenizer_config.json", "encoder_decoder.py"):
        assert (folder / name).stat().st_size > 0
    config = json.loads((folder / "config.json").read_text())
    assert config["architectures"] == ["MetroT0ForConditionalGeneration"]
    assert config["auto_map"]["AutoModelForSeq2SeqLM"] == "encoder_decoder.MetroT0ForConditionalGeneration"
    generation = GenerationConfig.from_pretrained(str(folder))
    assert (generation.eos_token_id, generation.pad_token_id, generation.decoder_start_token_id) == (2, 1, 2)
    # Nothing of this machine.
    for path in folder.rglob("*.json"):
        assert str(folder.parent) not in path.read_text()
    assert {path.stat().st_mode & 0o777 for path in folder.rglob("*") if path.is_file()} == {
        (folder / "README.md").stat().st_mode & 0o777
    }


def test_every_tensor_is_the_sources(exported: tuple[Path, MetroT0ForPreTraining]) -> None:
    folder, model = exported
    main = load_file(folder / "model.safetensors")
    assert "shared.weight" in main and "lm_head.weight" not in main
    assert not any(name.startswith(("auxiliary.", "rtd_head.")) for name in main)
    everything = load_file(folder / "pretraining" / "model.safetensors")
    for name, tensor in {**main, **everything}.items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_ours_and_the_auto_class_load_it(exported: tuple[Path, MetroT0ForPreTraining]) -> None:
    folder, model = exported
    tokenizer = MetroT0Tokenizer.from_pretrained(folder)
    batch = tokenizer(PROMPTS, padding=True, return_tensors="pt")
    ids = batch["input_ids"]
    main = MetroT0ForConditionalGeneration.from_pretrained(folder).eval()
    wanted = main(**batch, decoder_input_ids=ids).logits
    assert torch.equal(
        AutoModelForSeq2SeqLM.from_pretrained(folder)(**batch, decoder_input_ids=ids).logits, wanted
    )
    hidden = model.get_encoder()(ids, batch["attention_mask"]).last_hidden_state
    assert torch.equal(main.get_encoder()(ids, batch["attention_mask"]).last_hidden_state, hidden)


def test_pretraining_goes_on_from_its_folder(exported: tuple[Path, MetroT0ForPreTraining]) -> None:
    folder, model = exported
    again, info = MetroT0ForPreTraining.from_pretrained(folder / "pretraining", output_loading_info=True)
    assert not any(info[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert again.config.to_diff_dict().keys() >= {"rtd_head", "num_auxiliary_layers"}
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name
    assert len(MetroT0Tokenizer.from_pretrained(folder / "pretraining")) == again.config.vocab_size


def test_a_finetuned_model_has_no_pretraining_folder(tmp_path: Path) -> None:
    save_source(tmp_path / "source")
    export_model(read_source(tmp_path / "source"), tmp_path / "out", "")
    assert not (tmp_path / "out" / "pretraining").exists()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_number_formats_stay(tmp_path: Path, dtype: torch.dtype) -> None:
    model = save_source(tmp_path / "source", dtype=dtype)
    export_model(read_source(tmp_path / "source"), tmp_path / "out", "")
    again = MetroT0ForConditionalGeneration.from_pretrained(tmp_path / "out")
    assert again.dtype == dtype
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor), name


@pytest.mark.slow
def test_remote_code_in_a_fresh_environment(
    exported: tuple[Path, MetroT0ForPreTraining], fresh: Path, tmp_path: Path
) -> None:
    folder, _ = exported
    theirs = json.loads(run_fresh(fresh, REMOTE, tmp_path / "there", str(folder), json.dumps(PROMPTS)))
    assert theirs["modules"] == [] and theirs["type"] == "fairseq_t5" and theirs["dtype"] == "torch.float32"
    model = MetroT0ForConditionalGeneration.from_pretrained(folder).eval()
    batch = MetroT0Tokenizer.from_pretrained(folder)(PROMPTS, padding=True, return_tensors="pt")
    ids = batch["input_ids"]
    assert theirs["ids"] == ids.tolist()
    with torch.no_grad():
        logits = model(**batch, decoder_input_ids=ids[:, :3]).logits
    torch.testing.assert_close(torch.tensor(theirs["logits"]), logits)
    greedy = model.generate(**batch, max_new_tokens=16, do_sample=False)
    assert theirs["greedy"] == greedy.tolist()
    # What the model card tells its reader to do.
    [example] = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    here = f"import os; os.chdir({str(folder.parent)!r})\n"
    assert run_fresh(fresh, here + example, tmp_path / "there").startswith("['")


@pytest.mark.slow
def test_remote_code_gives_the_official_answers(golden: Path, fresh: Path, tmp_path: Path) -> None:
    golden = golden / "hf_tiny"
    export_model(read_source(golden), tmp_path / "out", "")
    strings = json.loads((golden / "cases.json").read_text())["strings"]
    cases = load_file(golden / "cases.safetensors")
    theirs = json.loads(
        run_fresh(fresh, REMOTE, tmp_path / "there", str(tmp_path / "out"), json.dumps(strings))
    )
    for name, key in (("ids", "input_ids"), ("greedy", "greedy"), ("beam4", "beam4")):
        assert theirs[name] == cases[key].tolist()


def test_a_tokenizer_without_its_dictionary_gets_one(tmp_path: Path) -> None:
    save_source(tmp_path / "source")
    expected = MetroT0Tokenizer.from_pretrained(tmp_path / "source")
    (tmp_path / "source" / "dict.txt").unlink()
    export_model(read_source(tmp_path / "source"), tmp_path / "out", "")
    tokenizer = MetroT0Tokenizer.from_pretrained(tmp_path / "out")
    assert (tmp_path / "out" / "dict.txt").is_file() and tokenizer.get_vocab() == expected.get_vocab()
    assert tokenizer(PROMPTS)["input_ids"] == expected(PROMPTS)["input_ids"]


def test_nothing_is_left_where_it_cannot_be_written(tmp_path: Path) -> None:
    save_source(tmp_path / "source")
    source = read_source(tmp_path / "source")
    (tmp_path / "source" / "generation_config.json").write_text("{")
    with pytest.raises(ValueError, match=r"generation_config\.json in .* cannot be read"):
        export_model(source, tmp_path / "deep" / "out", "")
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="already holds something"):
        export_model(source, tmp_path / "out", "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine"]


@pytest.mark.parametrize("small_disk", [1], indirect=True)
@pytest.mark.parametrize("room", [0, 20_000, 60_000, 250_000])
def test_a_full_disk_is_one_line_and_leaves_nothing(small_disk: Path, tmp_path: Path, room: int) -> None:
    save_source(tmp_path / "source", d_model=96, d_kv=32)
    source = read_source(tmp_path / "source")
    (small_disk / "filler").write_bytes(bytes(shutil.disk_usage(small_disk).free - room))
    for write in (lambda out: export_model(source, out, ""), lambda out: write_published(source, out)):
        with pytest.raises(ValueError, match=r"cannot be written|cannot write") as refused:
            write(small_disk / "out")
        assert "\n" not in str(refused.value)
        assert [path.name for path in small_disk.iterdir()] == ["filler"]
