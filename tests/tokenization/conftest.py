"""A small vocabulary of the language reference that comes with Python, trained once a session."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import pytest

from metro_t0.tokenization.training import train_tokenizer


@pytest.fixture(scope="session")
def reference_texts() -> list[str]:
    """About 600 kB of real English in about 80 documents."""
    return list(pydoc_data.topics.topics.values())


@pytest.fixture(scope="session")
def small_vocabulary(reference_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of an uncased vocabulary of 1000 pieces and 64 sentinels."""
    folder = tmp_path_factory.mktemp("vocabulary") / "small"
    train_tokenizer(reference_texts, 1000, folder, num_sentinel_tokens=64)
    return folder
