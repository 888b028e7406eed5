"""Preparing a corpus and reading it back: MB of text a second end to end, and blocks a second of the loader.

    python benchmarks/data.py wikipedia.jsonl.xz --tokenizer DIR --processes 1 2
    python benchmarks/data.py wikipedia.jsonl.xz --tokenizer DIR --fastest-training 150000

A MB is a million characters' worth of UTF-8 as the documents hold it, not of the (compressed) file. Each round prepares
the corpus anew with every number of processes in turn, in this process; medians are printed. The loader is what
training reads from: sampled rows, masked and padded to batches, on one core. ``--fastest-training`` is the tokens a
second that the fastest training would eat (512 a block); the loader should give 20 times as many blocks.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import torch

from metro_t0.config import load_pretrain_config
from metro_t0.data.corpora import read_documents
from metro_t0.data.prepare import PreparedCorpus, prepare
from metro_t0.data.rows import TokenRows
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.objectives.build import build_objective
from metro_t0.training.run_directory import environment
from metro_t0.training.training_data import TrainingData

RESULTS = Path(__file__).parent / "results"
HEADROOM = 20


def prepared_rate(sources: list[str], tokenizer: Path, processes: int, megabytes: float, out: Path) -> float:
    """MB/s of one preparation."""
    shutil.rmtree(out, ignore_errors=True)
    begun = time.perf_counter()
    prepare(sources, out, tokenizer=tokenizer, processes=processes)
    return megabytes / (time.perf_counter() - begun)


def loader_rate(corpus: PreparedCorpus, seconds: float) -> float:
    """Blocks/s that come out of the loader as METRO's batches."""
    config = load_pretrain_config("base")
    train, validation = (TokenRows(part, ("input_ids",)) for part in (corpus.train, corpus.validation))
    data = TrainingData(train, validation)
    objective = build_objective(
        config.objective, MetroT0Config(vocab_size=corpus.card["tokenizer"]["vocabulary_size"]), seed=0
    )
    settings = config.training.model_copy(update={"batch_tokens": 65536, "micro_batch_tokens": 8192})
    sampler = data.sampler(settings)
    blocks, begun = 0, time.perf_counter()
    while time.perf_counter() - begun < seconds:
        for micro_batch in sampler.next_step().micro_batches:
            data.collate(objective, micro_batch)
            blocks += len(micro_batch.rows)
    return blocks / (time.perf_counter() - begun)


def fastest_training() -> float:
    """Tokens/s of the fastest step on record here."""
    records = [json.loads(file.read_text(encoding="utf-8")) for file in RESULTS.glob("step-*.json")]
    return max(step["tokens_per_second"] for record in records for step in record["steps"].values())


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sources", nargs="+")
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long the loader is read")
    parser.add_argument("--fastest-training", type=float, help="tokens/s; the fastest on record unless given")
    parser.add_argument("--out", type=Path, help="write the figures there as JSON")
    settings = parser.parse_args()
    torch.set_num_threads(1)
    megabytes = sum(len(document.text.encode()) for document in read_documents(settings.sources)) / 1e6
    rates: dict[int, list[float]] = {processes: [] for processes in settings.processes}
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "prepared"
        for turn in range(settings.rounds + 1):
            for processes in settings.processes:
                rate = prepared_rate(settings.sources, settings.tokenizer, processes, megabytes, out)
                if turn:  # the first round warms the disk's cache
                    rates[processes].append(rate)
        loaded = loader_rate(PreparedCorpus.load(out), settings.seconds)
    medians = {processes: statistics.median(of) for processes, of in rates.items()}
    for processes, rate in medians.items():
        print(
            f"prepare, {megabytes:.1f} MB, {processes} process(es): {rate:6.2f} MB/s, "
            f"{rate / processes:5.2f} MB/s a core, {rate / medians[settings.processes[0]]:.2f} times the first"
        )
    eaten = (settings.fastest_training or fastest_training()) / 512
    print(
        f"loader: {loaded:,.0f} blocks/s on one core; training eats {eaten:,.1f}: {loaded / eaten:,.0f} times "
        f"({HEADROOM} wanted)"
    )
    if settings.out:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "environment": environment(),
            "megabytes": megabytes,
            "prepare_mb_per_second": {str(processes): of for processes, of in rates.items()},
            "loader_blocks_per_second": loaded,
        }
        settings.out.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
