"""Runs, a corpus and a suite to analyse, made in a moment: weights at random, everything else as in a real run."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

from metro_t0.config import dump_config, load_preset
from metro_t0.data.prepare import prepare
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from tiny_networks import randomize, tiny_config

TEMPLATE = """
dataset: reviews
templates:
  one: !Template
    name: like
    jinja: "{{ text }} Good? ||| {{ answer_choices[label] }}"
    answer_choices: "No ||| Yes"
  two: !Template
    name: open
    jinja: "{{ text }} ||| so it is"
"""


def make_corpus(folder: Path, vocab_size: int = 300) -> Path:
    """A prepared corpus of eight topics of the language reference."""
    folder.mkdir(parents=True)
    source = folder / "topics.jsonl"
    texts = [topics[name] for name in sorted(topics)[:8]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare([source], folder / "prepared", vocab_size=vocab_size, validation_fraction=0.2, max_length=32)
    return folder / "prepared"


def make_suite(folder: Path) -> Path:
    """A suite of one task of twenty rows under two templates, one of them without answers to choose from."""
    rows = [{"text": f"Bought {n}.", "label": n % 2} for n in range(20)]
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "template.yaml").write_text(TEMPLATE, encoding="utf-8")
    (folder / "suite.yaml").write_text(
        "tasks:\n  - dataset: reviews\n    evaluation: reviews.jsonl\n    templates: template.yaml\n",
        encoding="utf-8",
    )
    return folder / "suite.yaml"


def make_run(folder: Path, corpus: Path, preset: str, *, whole: bool = True) -> Path:
    """A run directory of a preset's objective; ``whole`` keeps the auxiliary model, where there is one."""
    tokenizer = MetroT0Tokenizer.from_pretrained(str(corpus / "tokenizer"))
    config = tiny_config(vocab_size=len(tokenizer), num_sentinel_tokens=tokenizer.num_sentinel_tokens)
    kind = MetroT0ForPreTraining if preset == "tiny" and whole else MetroT0ForConditionalGeneration
    model = randomize(kind(config), seed=len(preset))
    model.save_pretrained(str(folder / "model"))
    tokenizer.save_pretrained(str(folder / "model"))
    (folder / "config.yaml").write_text(dump_config(load_preset(preset)), encoding="utf-8")
    return folder
