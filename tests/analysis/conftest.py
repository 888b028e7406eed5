"""A folder with runs, corpora and a suite to analyse."""

from __future__ import annotations

from pathlib import Path

import pytest
from analysed_runs import make_corpus, make_run, make_suite


@pytest.fixture(scope="session")
def analysed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``prepared`` and ``other/prepared``; the runs ``metro``, ``t5``, ``headless`` and ``tuned``; ``suite.yaml``."""
    folder = tmp_path_factory.mktemp("analysed")
    corpus = make_corpus(folder / "corpus")
    make_corpus(folder / "other", vocab_size=320)
    corpus.rename(folder / "prepared")
    for name, preset in (("metro", "tiny"), ("t5", "tiny-t5"), ("tuned", "finetune-tiny")):
        make_run(folder / name, folder / "prepared", preset)
    make_run(folder / "headless", folder / "prepared", "tiny", whole=False)
    make_run(folder / "stranger", folder / "other" / "prepared", "tiny-t5")
    make_suite(folder)
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "blank.txt").write_text("\n\n", encoding="utf-8")
    (folder / "invisible.txt").write_text("\u200b\u200b\n", encoding="utf-8")
    (folder / "own.txt").write_text(
        "A line of text.\nAnd another line, of more text.\n" * 9, encoding="utf-8"
    )
    return folder
