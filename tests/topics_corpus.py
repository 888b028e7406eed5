"""A small real corpus for whoever trains: topics of Python's language reference, prepared.

prepared = topics_corpus(folder, 30, vocab_size=600, max_length=64)
"""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

from metro_t0.data.prepare import prepare


def topics_corpus(folder: Path, number: int, *, vocab_size: int, max_length: int) -> Path:
    """The first so many topics by name, a tenth of them held out; the folder that ``prepare`` made."""
    source = folder / "topics.jsonl"
    texts = [topics[name] for name in sorted(topics)[:number]]
    source.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")
    prepare(
        [source],
        folder / "prepared",
        vocab_size=vocab_size,
        validation_fraction=0.1,
        max_length=max_length,
    )
    return folder / "prepared"
