"""A small vocabulary of the language reference that comes with Python, trained once a session."""

from __future__ import annotations

import pydoc_data.topics
from pathlib import Path

import pytest
from language_texts import SCRIPTS, sentences

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


@pytest.fixture(scope="session")
def cased_vocabulary(reference_texts: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a cased vocabulary of 1000 pieces and 16 sentinels."""
    folder = tmp_path_factory.mktemp("vocabulary") / "cased"
    train_tokenizer(reference_texts, 1000, folder, lower=False, num_sentinel_tokens=16)
    return folder


@pytest.fixture(scope="session")
def languages_vocabulary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a neutral vocabulary of 1000 pieces and 16 sentinels, learned from eight scripts."""
    folder = tmp_path_factory.mktemp("vocabulary") / "languages"
    texts = ["\n".join(sentences(script, 300, seed=0)) for script in SCRIPTS]
    train_tokenizer(texts, 1000, folder, normalizer="neutral", num_sentinel_tokens=16)
    return folder
