"""The files that travel with a checkpoint work without the package, as transformers' remote code runs them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import metro_t0
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.tokenization.training import train_tokenizer
from tiny_networks import randomize, tiny_config

PACKAGE = Path(metro_t0.__file__).parent
TEXTS = ["The cat sat on the mat, and the dog did not.", "Is this right? Yes: it is 3,000.50!"] * 20

ALONE = """
import importlib.abc, json, sys
from pathlib import Path

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.split(".")[0] == "metro_t0":
            raise ModuleNotFoundError(f"refused: {name}", name=name)

sys.meta_path.insert(0, Refuse())
folder = Path(sys.argv[1])
sys.path.insert(0, str(folder))
import torch
"""


def run_alone(code: str, folder: Path) -> str:
    """Standard output of a script that cannot import the package."""
    environment = {"HF_HOME": str(folder / "cache"), "HF_HUB_OFFLINE": "1", "PATH": "/usr/bin:/bin"}
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        [sys.executable, "-c", ALONE + code, str(folder)],
        capture_output=True,
        text=True,
        env=environment,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A package ``travelling`` of the copied files, a saved model and a saved tokenizer beside it."""
    folder = tmp_path_factory.mktemp("remote")
    package = folder / "travelling"
    package.mkdir()
    for source in (
        *(PACKAGE / "modeling").glob("*.py"),
        PACKAGE / "tokenization" / "normalizer.py",
        PACKAGE / "tokenization" / "tokenizer.py",
    ):
        if source.name != "__init__.py":
            shutil.copy(source, package)
    (package / "__init__.py").touch()
    randomize(MetroT0ForPreTraining(tiny_config())).save_pretrained(folder / "model")
    train_tokenizer(TEXTS, 90, folder / "vocabulary")
    return folder


def test_networks_and_tokenizer_in_an_empty_package(folder: Path) -> None:
    printed = run_alone(
        """
from travelling.encoder_decoder import MetroT0ForConditionalGeneration
from travelling.pretraining import MetroT0ForPreTraining
from travelling.tokenizer import MetroT0Tokenizer

model = MetroT0ForConditionalGeneration.from_pretrained(folder / "model")
ids = torch.tensor([[0, 5, 6, 7, 2], [0, 9, 2, 1, 1]])
tokens = model.generate(input_ids=ids, attention_mask=ids.ne(1).long(), max_new_tokens=6, do_sample=False)
pretrainer = MetroT0ForPreTraining.from_pretrained(folder / "model")
hidden = pretrainer.auxiliary.encoder(ids, ids.ne(1)).last_hidden_state
pretrainer.save_pretrained(folder / "again")
tokenizer = MetroT0Tokenizer.from_pretrained(folder / "vocabulary")
print(json.dumps({
    "tokens": tokens.tolist(),
    "logits": pretrainer.auxiliary.project(hidden).sum().item(),
    "detection": pretrainer.rtd_head(hidden).sum().item(),
    "ids": tokenizer("Is the cat right?").input_ids,
    "modules": [name for name in sys.modules if name.startswith("metro_t0")],
}))
try:
    MetroT0ForPreTraining.from_fairseq("checkpoint.pt")
except ModuleNotFoundError as error:  # the one call that needs the package says so
    assert "metro_t0" in str(error)
else:
    raise SystemExit("loading an official checkpoint needs the package")
""",
        folder,
    )
    theirs = json.loads(printed)
    assert theirs["modules"] == []
    model = MetroT0ForPreTraining.from_pretrained(folder / "again")
    ids = torch.tensor([[0, 5, 6, 7, 2], [0, 9, 2, 1, 1]])
    main = MetroT0ForConditionalGeneration.from_pretrained(folder / "model")
    tokens = main.generate(input_ids=ids, attention_mask=ids.ne(1).long(), max_new_tokens=6, do_sample=False)
    assert tokens.tolist() == theirs["tokens"]
    hidden = model.auxiliary.encoder(ids, ids.ne(1)).last_hidden_state
    assert model.auxiliary.project(hidden).sum().item() == pytest.approx(theirs["logits"], rel=1e-4)
    assert model.rtd_head(hidden).sum().item() == pytest.approx(theirs["detection"], rel=1e-4)
    assert theirs["ids"][0] == 0 and theirs["ids"][-1] == 2 and 3 not in theirs["ids"]


@pytest.mark.slow
def test_as_remote_code_of_a_folder(folder: Path) -> None:
    """A folder that carries the files and names them, as one on the Hub would."""
    carrying = folder / "carrying"
    model = randomize(MetroT0ForConditionalGeneration(tiny_config())).eval()
    model.save_pretrained(carrying)
    for source in (folder / "travelling").glob("*.py"):
        shutil.copy(source, carrying)
    settings = json.loads((carrying / "config.json").read_text())
    settings["model_type"] = "unknown_to_transformers"
    settings["auto_map"] = {
        "AutoConfig": "configuration.MetroT0Config",
        "AutoModelForSeq2SeqLM": "encoder_decoder.MetroT0ForConditionalGeneration",
    }
    (carrying / "config.json").write_text(json.dumps(settings))
    printed = run_alone(
        """
from transformers import AutoModelForSeq2SeqLM
model = AutoModelForSeq2SeqLM.from_pretrained(folder / "carrying", trust_remote_code=True)
ids = torch.tensor([[0, 5, 6, 7, 2]])
print(json.dumps(model(input_ids=ids, decoder_input_ids=ids).logits.sum().item()))
""",
        folder,
    )
    ids = torch.tensor([[0, 5, 6, 7, 2]])
    assert model(input_ids=ids, decoder_input_ids=ids).logits.sum().item() == pytest.approx(
        json.loads(printed), rel=1e-4
    )
