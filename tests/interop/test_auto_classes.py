"""The Auto classes after ``import metro_t0``, each order of imports in a process of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from published_folders import save_published

AUTO_MAPS = {
    "config.json": {
        "AutoConfig": "configuration_fairseq_t5.FairseqT5Config",
        "AutoModelForSeq2SeqLM": "somebody/elses--modeling_fairseq_t5.FairseqT5ForConditionalGeneration",
    },
    "tokenizer_config.json": {"AutoTokenizer": ["tokenization_fairseq_t5.FairseqT5Tokenizer", None]},
}
LOAD = """
import json, sys, torch
from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer
for folder in sys.argv[1:]:
    config = AutoConfig.from_pretrained(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    batch = tokenizer(["the cat", "the dog did not"], padding=True, return_tensors="pt")
    ids = model.generate(**batch, max_new_tokens=5, do_sample=False)
    kinds = [kind.__module__ for kind in map(type, (config, tokenizer, model))]
    print(json.dumps([kinds, batch["input_ids"].tolist(), ids.tolist()]))
assert not [finder for finder in sys.meta_path if "metro" in type(finder).__module__]
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A folder in the published format, and one with the Hub's ``auto_map`` to files that are not there."""
    plain = save_published(tmp_path_factory.mktemp("auto") / "plain")
    mapped = shutil.copytree(plain, plain.parent / "mapped")
    for name, auto_map in AUTO_MAPS.items():
        content = json.loads((mapped / name).read_text(encoding="utf-8"))
        (mapped / name).write_text(json.dumps({**content, "auto_map": auto_map}), encoding="utf-8")
    return [plain, mapped]


@pytest.mark.parametrize(
    "first",
    [
        pytest.param("import metro_t0"),
        pytest.param(
            "from transformers import AutoConfig, AutoModelForSeq2SeqLM, AutoTokenizer; import metro_t0"
        ),
        pytest.param("import metro_t0; from transformers import GenerationMixin", marks=pytest.mark.slow),
        pytest.param("import metro_t0.modeling.encoder_decoder", marks=pytest.mark.slow),
        pytest.param("import metro_t0.tokenization.tokenizer", marks=pytest.mark.slow),
        pytest.param("from metro_t0 import MetroT0Config; import transformers", marks=pytest.mark.slow),
    ],
)
def test_folders_load_without_remote_code(first: str, folders: list[Path], tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", f"{first}\n{LOAD}", *map(str, folders)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "custom code" not in done.stderr
    plain, mapped = map(json.loads, done.stdout.splitlines())
    assert plain == mapped
    modules, ids, generated = plain
    assert all(module.startswith("metro_t0.") for module in modules)
    assert len(ids) == len(generated) == 2 and len(generated[0]) > 1


def test_names_on_the_hub(folders: list[Path], tmp_path: Path) -> None:
    """Out of the Hub's cache, without a network: as after a first download."""
    names = ["gonglinyuan/metro_t0_base", "gonglinyuan/metro_t0pp_base"]
    for name, folder in zip(names, folders, strict=True):
        cached = tmp_path / "hub" / f"models--{name.replace('/', '--')}"
        shutil.copytree(folder, cached / "snapshots" / ("0" * 40))
        (cached / "refs").mkdir()
        (cached / "refs" / "main").write_text("0" * 40, encoding="utf-8")
    code = f"""
import metro_t0
{LOAD}
from metro_t0.evaluation.loading import load_model
for name in sys.argv[1:]:
    ours = metro_t0.MetroT0ForConditionalGeneration.from_pretrained(name)
    loaded, tokenizer = load_model(name)
    for key, value in model.state_dict().items():
        assert torch.equal(ours.state_dict()[key], value) and torch.equal(loaded.state_dict()[key], value)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, *names],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "HF_HUB_CACHE": str(tmp_path / "hub"), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = done.stdout.splitlines()
    assert one == other


def test_looking_for_a_module_without_importing_it_changes_nothing() -> None:
    code = """
import importlib, importlib.util, inspect, pickle, sys, metro_t0
assert importlib.util.find_spec("metro_t0.config") and importlib.util.find_spec("metro_t0.no_such") is None
import metro_t0.config
assert "exec_module" not in vars(metro_t0.config.__loader__) and inspect.getsource(metro_t0.config)
assert importlib.reload(metro_t0.config).__spec__.name == "metro_t0.config"
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True)
