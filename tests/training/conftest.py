"""A real small corpus, and rows for the model of small_runs.py."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from small_runs import token_rows

from metro_t0.data.prepare import prepare
from metro_t0.training.training_data import TrainingData


@pytest.fixture(scope="session")
def bag_data() -> TrainingData:
    return TrainingData(token_rows(120, 1), token_rows(20, 2))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of 30 topics of the language reference: real text, a real vocabulary of 600 pieces."""
    folder = tmp_path_factory.mktemp("corpus")
    source = folder / "topics.jsonl"
    texts = [topics[name] for name in sorted(topics)[:30]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare([source], folder / "prepared", vocab_size=600, validation_fraction=0.1, max_length=64)
    return folder / "prepared"
