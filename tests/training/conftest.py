"""A real small corpus, and rows for the model of small_runs.py."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import token_rows

from metro_t0.training.training_data import TrainingData
from topics_corpus import topics_corpus


@pytest.fixture(scope="session")
def bag_data() -> TrainingData:
    return TrainingData(token_rows(120, 1), token_rows(20, 2))


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of 30 topics of the language reference: real text, a real vocabulary of 600 pieces."""
    folder = tmp_path_factory.mktemp("corpus")
    return topics_corpus(folder, 30, vocab_size=600, max_length=64)
