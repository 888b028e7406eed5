"""A corpus of 600 MB goes through in less than 1.2 GB, all processes together."""

from __future__ import annotations

import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from metro_t0.tokenization.training import train_tokenizer

SIZE = 600_000_000
LIMIT = 1_200_000_000
COMMAND = """
import sys
from pathlib import Path
from metro_t0.data.prepare import prepare
source, out, tokenizer = map(Path, sys.argv[1:])
prepare([source], out, tokenizer=tokenizer, processes=2)
"""


def paragraphs(seed: int) -> list[str]:
    """Two megabytes of lines that are real sentences in an order of their own."""
    lines = [line.strip() for text in topics.values() for line in text.splitlines() if line.strip()]
    rng = random.Random(seed)
    return [" ".join(rng.choices(lines, k=8)) for _ in range(5000)]


def write_text(path: Path) -> None:
    """One document of 600 MB."""
    with path.open("w", encoding="utf-8") as file:
        blocks = ["\n".join(paragraphs(seed)) + "\n" for seed in range(4)]
        number = 0
        while file.tell() < SIZE:
            file.write(f"part {number}\n{blocks[number % 4]}")
            number += 1


def write_compressed_json(path: Path) -> None:
    """Documents of 2 kB, 600 MB in one compressed stream."""
    texts = [paragraphs(seed) for seed in range(4)]
    written = number = 0
    with gzip.open(path, "wt", compresslevel=1, encoding="utf-8") as file:
        while written < SIZE:
            for start in range(0, 5000, 5):
                text = f"document {number} {start} " + "\n".join(texts[number % 4][start : start + 5])
                written += len(text)
                file.write(json.dumps({"text": text}) + "\n")
            number += 1


def resident_memory(process: int) -> int:
    """Bytes that a process and its children hold for themselves; pages of mapped files are the system's."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = [int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("RssAnon")]
    return sum(own) + sum(resident_memory(int(child)) for child in children)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("name", "write"), [("a.txt", write_text), ("a.jsonl.gz", write_compressed_json)])
def test_memory_is_bounded(tmp_path: Path, name: str, write: object) -> None:
    source, out, tokenizer = tmp_path / name, tmp_path / "out", tmp_path / "tokenizer"
    train_tokenizer(topics.values(), 2000, tokenizer)
    assert callable(write)
    write(source)
    process = subprocess.Popen([sys.executable, "-c", COMMAND, str(source), str(out), str(tokenizer)])
    peak = 0
    while process.poll() is None:
        peak = max(peak, resident_memory(process.pid))
        time.sleep(0.05)
    assert process.returncode == 0
    card = json.loads((out / "card.json").read_text(encoding="utf-8"))
    assert card["characters"] > 0.98 * SIZE and card["continued_documents"] == (71 if name == "a.txt" else 0)
    assert peak < LIMIT, f"{peak / 1e6:,.0f} MB"
