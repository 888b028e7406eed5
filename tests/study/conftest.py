"""A real small corpus for studies."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from small_studies import TOO_HIGH, write_study

from metro_t0.data.prepare import prepare
from metro_t0.study.preparation import StudySettings
from metro_t0.study.runner import run_study
from metro_t0.study.study_file import load_study


@pytest.fixture(scope="session")
def study_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 topics of the language reference, a vocabulary of 600 pieces, blocks of 48 tokens."""
    folder = tmp_path_factory.mktemp("study-corpus")
    source = folder / "topics.jsonl"
    texts = [topics[name] for name in sorted(topics)[:30]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare([source], folder / "prepared", vocab_size=600, validation_fraction=0.1, max_length=48)
    return folder / "prepared"


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
