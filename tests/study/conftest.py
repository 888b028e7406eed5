"""A real small corpus for studies."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from metro_t0.data.prepare import prepare


@pytest.fixture(scope="session")
def study_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 topics of the language reference, a vocabulary of 600 pieces, blocks of 48 tokens."""
    folder = tmp_path_factory.mktemp("study-corpus")
    source = folder / "topics.jsonl"
    texts = [topics[name] for name in sorted(topics)[:30]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare([source], folder / "prepared", vocab_size=600, validation_fraction=0.1, max_length=48)
    return folder / "prepared"
