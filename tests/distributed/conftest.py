"""What the tests of training share is shared with those of training on many processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
sys.path += [str(TESTS / "training"), str(TESTS)]

from topics_corpus import topics_corpus  # noqa: E402


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared corpus of 12 topics of the language reference."""
    folder = tmp_path_factory.mktemp("corpus")
    return topics_corpus(folder, 12, vocab_size=400, max_length=64)


@pytest.fixture(scope="session")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A task of forty questions."""
    folder = tmp_path_factory.mktemp("mixture")
    words = ["python", "module", "class", "string", "object"]
    rows = [{"word": words[i % 5], "other": words[i % 3], "same": int(i % 5 == i % 3)} for i in range(40)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "templates.yaml").write_text(
        "dataset: rows\ntemplates:\n  one: !Template\n    name: same\n"
        '    jinja: "is {{word}} the same as {{other}}? ||| {{answer_choices[same]}}"\n'
        '    answer_choices: "no ||| yes"\n',
        encoding="utf-8",
    )
    (folder / "mixture.yaml").write_text(
        "templates: templates.yaml\ntasks:\n- {dataset: rows, train: rows.jsonl}\n", encoding="utf-8"
    )
    return folder / "mixture.yaml"
