"""The examples that use a model with other libraries, run as their reader would run them, in seconds."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from metro_t0.evaluation.loading import load_model
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer
from tiny_networks import randomize, tiny_config

FOLDER = Path(__file__).parent.parent / "examples"
pytestmark = pytest.mark.filterwarnings("ignore")  # of other libraries; what counts here is the outcome


@pytest.fixture(scope="module")
def rows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("rows") / "rows.jsonl"
    colours = ("red", "green", "blue", "black")
    written = [
        {
            "input": f"House {number} is {colours[number % 4]}. Which colour is it?",
            "target": colours[number % 4],
        }
        for number in range(80)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in written), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def model_folder(rows: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "small"
    train_tokenizer([rows.read_text(encoding="utf-8")], 90, folder, num_sentinel_tokens=4)
    tokenizer = MetroT0Tokenizer.from_pretrained(folder)
    size = {"d_model": 48, "d_kv": 12, "num_heads": 4, "d_ff": 96, "num_positions": 64, "max_positions": 64}
    config = tiny_config(num_layers=1, num_decoder_layers=1, vocab_size=len(tokenizer), **size)
    randomize(MetroT0ForConditionalGeneration(config), scale=0.1).save_pretrained(folder)
    return folder


def run(example: str, *words: str | Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What an example prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [example, *map(str, words)])
        runpy.run_path(str(FOLDER / example), run_name="__main__")
    return capsys.readouterr().out


def test_export(model_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    prompts = ["Which colour is house 7?", "Is it red?"]
    printed = run(
        "export.py", "--model", model_folder, "--out", tmp_path / "out", "--prompt", *prompts, capsys=capsys
    )
    assert printed.splitlines()[-1] == "the same ids as generate(): True"
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"encoder.pt2", "step.pt2"}


def test_seq2seq_trainer(
    model_folder: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("accelerate")
    words = ("--model", model_folder, "--data", rows, "--out", tmp_path / "out")
    printed = run("seq2seq_trainer.py", *words, "--steps", "60", "--learning-rate", "3e-3", capsys=capsys)
    [before, after] = [float(word) for word in printed.split("eval_loss ")[1].splitlines()[0].split(" -> ")]
    assert after < before / 2
    model, tokenizer = load_model(tmp_path / "out")
    assert len(tokenizer) == model.config.vocab_size


def test_lora(model_folder: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("peft")
    out, merged = tmp_path / "out", tmp_path / "merged"
    words = ("--model", model_folder, "--data", rows, "--out", out, "--merged", merged)
    printed = run("lora.py", *words, "--steps", "60", "--learning-rate", "2e-2", capsys=capsys)
    first, last = (float(line.split("loss ")[1]) for line in printed.splitlines() if line.startswith("step "))
    assert last < first * 0.8
    assert all("lora_" in name for name in load_file(out / "adapter_model.safetensors"))
    changed, plain = (load_model(folder)[0].state_dict() for folder in (merged, model_folder))
    different = {name for name, values in plain.items() if not torch.equal(values, changed[name])}
    assert different and all(name.endswith((".q.weight", ".v.weight")) for name in different)
