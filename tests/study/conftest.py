"""A real small corpus for studies."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_studies import TOO_HIGH, write_study

from metro_t0.study.preparation import StudySettings
from metro_t0.study.runner import run_study
from metro_t0.study.study_file import load_study
from topics_corpus import topics_corpus


@pytest.fixture(scope="session")
def study_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 topics of the language reference, a vocabulary of 600 pieces, blocks of 48 tokens."""
    folder = tmp_path_factory.mktemp("study-corpus")
    return topics_corpus(folder, 30, vocab_size=600, max_length=48)


@pytest.fixture(scope="session")
def study_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of three runs: the base, a gate, and a rate at which training cannot but diverge."""
    return write_study(tmp_path_factory.mktemp("study"), axes={"rtd-gate": None, "rate": TOO_HIGH})


@pytest.fixture(scope="session")
def made_study(tmp_path_factory: pytest.TempPathFactory, study_file: Path, study_corpus: Path) -> Path:
    """That study's folder when all is done."""
    out = tmp_path_factory.mktemp("made") / "out"
    run_study(load_study(study_file), study_corpus, out, StudySettings())
    return out
