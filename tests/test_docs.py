"""Every command, file and piece of Python in the README and docs/ runs, shrunk where it is long.

Fenced blocks: ``bash`` runs line by line, ``python`` runs whole, ``yaml`` that begins with ``# file: NAME`` becomes
that file. ``<!-- tests -->`` before a block leaves it to continuous integration, ``<!-- demo -->`` to the demo's test.
"""

from __future__ import annotations

import glob
import json
import lzma
import os
import pydoc_data.topics
import re
import shlex
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml

from metro_t0 import MetroT0Config, MetroT0ForPreTraining, MetroT0Tokenizer
from official_checkpoints import checkpoint_of
from published_folders import save_published

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"(?:<!-- (?P<mark>\w+) -->\n)?```(?P<language>\w*)\n(?P<body>.*?)```", re.DOTALL)

TINY_MODEL = (
    "model.d_model=32 model.d_kv=8 model.d_ff=64 model.num_heads=4 model.num_layers=1 model.num_decoder_layers=1 "
    "model.num_auxiliary_layers=1"
)
SHORT_RUN = (
    "training.steps=3 training.batch_tokens=512 training.micro_batch_tokens=512 training.validation_rows=4 "
    "training.precision=fp32 training.threads=1"
)
SHRINK = {"pretrain": f"{TINY_MODEL} {SHORT_RUN}", "finetune": SHORT_RUN, "ablate": "training.threads=1"}


@dataclass(frozen=True)
class Block:
    mark: str | None
    language: str
    body: str


def blocks(page: Path) -> list[Block]:
    return [
        Block(match["mark"], match["language"], match["body"])
        for match in FENCE.finditer(page.read_text(encoding="utf-8"))
    ]


def expanded(word: str) -> str:
    """``$DATA`` as the shell would have it; of a pattern only the smallest file."""
    if "$DATA" not in word:
        return word
    path = word.replace("$DATA", os.environ["METRO_T0_DATA"])
    found = [Path(match) for match in glob.glob(path)]  # noqa: PTH207
    return str(min(found, key=lambda file: file.stat().st_size)) if "*" in path else path


def shrunk(command: str) -> list[str]:
    words = [expanded(word) for word in shlex.split(command)]
    if words[:4] == ["metro-t0", "mixture", "build", "t0"]:
        words += ["--cap", "300", "--epochs", "1"]
    if words[:2] == ["metro-t0", "evaluate"] and not {"t0", "mmlu"}.isdisjoint(words):
        words += ["--limit", "2"]
    if words[0] == "metro-t0" and (words[1] != "ablate" or "--data" in words):
        words += shlex.split(SHRINK.get(words[1], ""))
    if words[1] in SHRINK and "--budget" in words:
        words[words.index("--budget") + 1] = "3-steps"
        words.remove("training.steps=3")
    if words[0] == "torchrun":
        # Each process must have a row of every step.
        verb = words[words.index("metro_t0.cli.main") + 1]
        words += shlex.split(f"{SHRINK.get(verb, '')} training.batch_tokens=4096")
    return [re.sub(r"^(8000|32768)$", "600", word) for word in words]


def shrunk_file(text: str) -> str:
    """A page's YAML file; a study with small networks and short runs, one a configuration."""
    study = yaml.safe_load(text) if "\naxes:" in text else None
    if study is None:
        return text
    settings = dict(setting.split("=") for setting in f"{TINY_MODEL} {SHORT_RUN}".split())
    del settings["training.steps"]
    read = {key: yaml.safe_load(value) for key, value in settings.items()}
    study["settings"] |= read
    study["tokens"], study["seeds"] = 1500, study["seeds"][:1]
    for axis in filter(None, study["axes"].values()):
        for value in axis["values"].values():
            value["settings"] = dict.fromkeys(value["settings"], 32)
    for finetuning in study["finetunings"].values():
        finetuning["settings"] |= {"training.steps": 2, "training.threads": 1, "training.precision": "fp32"}
    return yaml.safe_dump(study, sort_keys=False)


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the pages' reader would have it."""
    folder = tmp_path_factory.mktemp("reader")
    topics = list(pydoc_data.topics.topics.values())
    (folder / "my-texts").mkdir()
    for number, topic in enumerate(topics[:40]):
        (folder / "my-texts" / f"{number}.txt").write_text(topic, encoding="utf-8")
    news = "".join(json.dumps({"text": topic}) + "\n" for topic in topics[40:44])
    (folder / "news-1.jsonl.xz").write_bytes(lzma.compress(news.encode()))
    seasons = [{"report": f"{number} degrees.", "label": int(number > 10)} for number in range(24)]
    reviews = [{"text": ("Fine." if n % 2 else "Poor.") + f" Bought {n}.", "label": n % 2} for n in range(24)]
    for name, rows in {
        "reviews.jsonl": reviews[::2],
        "more-reviews.jsonl": reviews[1::2],
        "weather-train.jsonl": seasons[::2],
        "weather-test.jsonl": seasons[1::2],
        "questions.jsonl": [{"input": "Is it cold?", "choices": ["Yes", "No"]}],
    }.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    save_published(folder / "metro_t0_base")
    save_official(folder / "metro_t0_base", folder / "checkpoint_last.pt")
    return folder


def save_official(tokenizer: Path, path: Path) -> None:
    """A pretraining checkpoint of the shape that ``shrunk`` gives to the preset ``base``."""
    shape = dict(setting.removeprefix("model.").split("=") for setting in TINY_MODEL.split())
    config = MetroT0Config(
        **{key: int(value) for key, value in shape.items()},
        vocab_size=len(MetroT0Tokenizer.from_pretrained(str(tokenizer))),
    )
    torch.save(checkpoint_of(MetroT0ForPreTraining(config)), path)


def run(command: list[str], folder: Path) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    found = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert found.returncode == 0, f"{shlex.join(command)}\n{found.stdout}\n{found.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page_runs(page: Path, workplace: Path) -> None:
    on_data = any("$DATA" in block.body for block in blocks(page) if block.language == "bash")
    if on_data and "METRO_T0_DATA" not in os.environ:
        pytest.skip("its data is not here")
    for block in blocks(page):
        if block.mark in ("demo", "tests"):
            continue
        if block.language == "yaml" and (name := re.match(r"# file: (\S+)\n", block.body)):
            (workplace / name[1]).write_text(shrunk_file(block.body), encoding="utf-8")
        elif block.language == "bash":
            for command in block.body.strip().splitlines():
                run(shrunk(command), workplace)
        elif block.language == "python":
            run([sys.executable, "-c", block.body], workplace)


def test_two_commands_do_their_own_set_up() -> None:
    marked = {block.mark: block.body.strip() for block in blocks(PAGES[0]) if block.mark}
    for command in marked.values():
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install -q -c constraints.txt ")
    assert marked["demo"].endswith("&& .venv/bin/metro-t0 demo")
    assert marked["tests"].endswith("&& .venv/bin/pytest")


def test_every_verb_is_in_the_pages_and_explains_itself() -> None:
    listed = subprocess.run(
        [sys.executable, "-m", "metro_t0.cli.main", "--help"], capture_output=True, text=True, check=True
    ).stdout
    verbs = re.findall(r"^│ (\w[\w-]*) ", listed, flags=re.MULTILINE)
    assert {"prepare", "pretrain", "finetune", "evaluate", "rank", "generate", "report", "demo"} <= set(verbs)
    pages = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for verb in verbs:
        assert f"metro-t0 {verb}" in pages
        shown = subprocess.run(
            [sys.executable, "-m", "metro_t0.cli.main", verb, "--help"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        assert "Usage: " in shown and len(shown.split()) > 40


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"
