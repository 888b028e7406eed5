"""Megabytes of text a second on one core: the normaliser beside its plain transcription, and all of tokenisation.

    python benchmarks/tokenizer.py                                                # the documentation of this Python
    python benchmarks/tokenizer.py 'wiki/*.jsonl.xz' --tokenizer vocabulary --megabytes 8

Random lines of the sources; without ``--tokenizer`` one of ``--vocab-size`` pieces is trained on them. CPU seconds, all
measured in turn, several rounds; printed is the median and the range. The transcription is the one that the tests
hold the normaliser to (``tests/plain_normalizer.py``), and its answers are compared once more here.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import sentencepiece

from metro_t0.data.corpora import read_documents
from metro_t0.tokenization.fast import fast_backend, find_differences
from metro_t0.tokenization.normalizer import TextNormalizer
from metro_t0.tokenization.sampling import random_lines
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer

sys.path.append(str(Path(__file__).parent.parent / "tests"))
from plain_normalizer import plain_normalize

MOST_LINES = 200_000


def drawn(sources: list[str], megabytes: float) -> list[str]:
    texts = (document.text for document in read_documents(sources))
    lines, size = [], 0
    for line in random_lines(texts, MOST_LINES, seed=0):
        lines.append(line)
        size += len(line.encode())
        if size >= 1e6 * megabytes:
            break
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="*", default=["pydocs"], help="as metro-t0 prepare reads them")
    parser.add_argument("--tokenizer", type=Path, help="folder of a vocabulary")
    parser.add_argument("--vocab-size", type=int, default=8192)
    parser.add_argument("--megabytes", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    lines = drawn(arguments.sources, arguments.megabytes)
    size = sum(len(line.encode()) for line in lines) / 1e6
    if arguments.tokenizer is None:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = train_tokenizer(lines, arguments.vocab_size, Path(folder) / "vocabulary")
    else:
        tokenizer = MetroT0Tokenizer.from_pretrained(str(arguments.tokenizer))
    normalize = TextNormalizer(tokenizer.lower)
    normalized = [normalize(line) for line in lines]
    assert normalized == [plain_normalize(line, tokenizer.lower) for line in lines]
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_content)
    backend = fast_backend(tokenizer)
    differing = len(find_differences(tokenizer, backend, lines))

    measured: dict[str, Callable[[], object]] = {
        "normaliser, transcribed": lambda: [plain_normalize(line, tokenizer.lower) for line in lines],
        "normaliser, ours": lambda: [normalize(line) for line in lines],
        "SentencePiece alone": lambda: processor.encode(normalized, out_type=int, num_threads=1),
        "encode_texts, all of it": lambda: tokenizer.encode_texts(lines),
        "export to tokenizers": lambda: [
            backend.encode(line, add_special_tokens=False).ids for line in lines
        ],
    }
    rates: dict[str, list[float]] = {name: [] for name in measured}
    for _ in range(arguments.rounds):
        for name, work in measured.items():
            begun = time.process_time()
            work()
            rates[name].append(size / (time.process_time() - begun))
    print(f"{len(lines):,} lines, {size:.1f} MB, {arguments.rounds} rounds, MB/s a core")
    for name, found in rates.items():
        print(f"{name:26} {median(found):6.1f}   {min(found):.1f} to {max(found):.1f}")
    pairs = zip(rates["normaliser, ours"], rates["normaliser, transcribed"], strict=True)
    print(f"{'ours beside transcribed':26} {median(ours / plain for ours, plain in pairs):6.1f} times")
    print(f"lines with other ids in the export: {differing}")


if __name__ == "__main__":
    main()
