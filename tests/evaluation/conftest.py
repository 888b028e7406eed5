"""Folders that training and evaluation leave behind, as fixtures."""

from __future__ import annotations

from pathlib import Path

import pytest
from evaluation_folders import write_evaluation, write_run


@pytest.fixture
def pretraining_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "pretrain", objective="metro")


@pytest.fixture
def finetuning_run(tmp_path: Path) -> Path:
    return write_run(tmp_path / "finetune", objective="prompted", steps=150)


@pytest.fixture
def evaluation_folder(tmp_path: Path) -> Path:
    return write_evaluation(tmp_path / "evaluation")
