"""A small model in a folder, and servers of it: real processes that answer over real HTTP."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The small models are the evaluation tests' own.
sys.path.append(str(Path(__file__).parents[1] / "evaluation"))

from running_server import Server, running
from small_models import make_model, make_tokenizer


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with random weights and a vocabulary of 60 pieces."""
    pytest.importorskip("fastapi")
    folder = tmp_path_factory.mktemp("served")
    tokenizer = make_tokenizer(folder / "vocabulary")
    model = make_model(tokenizer, positions=128)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def server(model_folder: Path) -> Iterator[Server]:
    with running(model_folder) as server:
        yield server
        assert server.process.poll() is None, "it is alive after all that"
        assert server.stop() == 0
        assert "Traceback" not in server.log()
