"""lm-eval's tasks on one of our models: by our adapter, and by lm-eval's own sequence-to-sequence path beside it.

    python benchmarks/lm_eval_adapter.py --tokenizer DIR --data-root DIR      # random weights of the base shape
    python benchmarks/lm_eval_adapter.py --model DIR --data-root DIR --limit 50

Two tasks of lm-eval's kind are made of the rows of RTE (2 answers) and of ARC-Challenge (4 answers). Both ways go
through ``lm_eval.simple_evaluate``; what is timed is their ``loglikelihood``, tokenizing included. A ratio is the
median over the rounds, by wall time and by time of the processor, which other work on the machine disturbs less.
Needs ``pip install 'metro-t0[lm-eval]' accelerate``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import torch
import yaml
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from metro_t0 import MetroT0Config, MetroT0ForConditionalGeneration, MetroT0Tokenizer
from metro_t0.evaluation.lm_eval_adapter import MetroT0LM
from metro_t0.evaluation.loading import load_model
from metro_t0.prompts.sources import data_root_file
from metro_t0.training.run_directory import environment

TASKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "rte": (
        "super_glue",
        "rte",
        {
            "doc_to_text": "{{premise}} Question: {{hypothesis}} True or False?",
            "doc_to_choice": ["True", "False"],
            "doc_to_target": "label",
        },
    ),
    "arc": (
        "ai2_arc",
        "ARC-Challenge",
        {
            "doc_to_text": "Question: {{question}} Answer:",
            "doc_to_choice": "{{choices.text}}",
            "doc_to_target": "{{choices.label.index(answerKey)}}",
        },
    ),
}
METRICS = ("acc", "acc_norm")


@dataclass
class Measured:
    """One way on one task in one round."""

    wall: float = 0.0
    processor: float = 0.0
    likelihoods: list[float] = field(default_factory=list)
    accuracies: dict[str, float] = field(default_factory=dict)
    documents: int = 0


def write_tasks(folder: Path, data_root: Path) -> None:
    for name, (dataset, subset, asks) in TASKS.items():
        rows = list(data_root_file(data_root, dataset, subset, "validation").rows(None))
        if name == "arc":
            rows = [row for row in rows if len(row["choices"]["text"]) == 4]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / f"{name}.json").write_text(lines, encoding="utf-8")
        task = {
            "task": name,
            "dataset_path": "json",
            "dataset_kwargs": {"data_files": {"validation": str(folder / f"{name}.json")}},
            "validation_split": "validation",
            "output_type": "multiple_choice",
            "metric_list": [
                {"metric": metric, "aggregation": "mean", "higher_is_better": True} for metric in METRICS
            ],
        }
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(task | asks), encoding="utf-8")


def measure(model: Any, task: str, manager: TaskManager, limit: int | None) -> Measured:
    measured = Measured()
    ask: Callable[..., list[tuple[float, bool]]] = model.loglikelihood

    def timed(*arguments: Any, **named: Any) -> list[tuple[float, bool]]:
        wall, processor = time.perf_counter(), time.process_time()
        results = ask(*arguments, **named)
        measured.wall = time.perf_counter() - wall
        measured.processor = time.process_time() - processor
        measured.likelihoods = [likelihood for likelihood, _ in results]
        return results

    model.loglikelihood = timed
    try:
        found = lm_eval.simple_evaluate(
            model, tasks=[task], task_manager=manager, limit=limit, bootstrap_iters=0, log_samples=False
        )
    finally:
        del model.loglikelihood
    assert found is not None
    measured.documents = found["results"][task]["sample_len"]
    measured.accuracies = {metric: found["results"][task][f"{metric},none"] for metric in METRICS}
    return measured


def compare(task: str, ways: dict[str, Any], manager: TaskManager, limit: int | None, rounds: int) -> Any:
    """Prints and returns the figures of one task."""
    seen: dict[str, list[Measured]] = {name: [] for name in ways}
    for model in ways.values():  # the first calls of a process take longer
        measure(model, task, manager, limit=2)
    for _ in range(rounds):
        for name, model in ways.items():
            seen[name].append(measure(model, task, manager, limit))
    ours, theirs = (seen[name] for name in ways)
    difference = max(
        abs(one - other) / max(1.0, abs(other))
        for one, other in zip(ours[0].likelihoods, theirs[0].likelihoods, strict=True)
    )
    figures: dict[str, Any] = {"documents": ours[0].documents, "largest_relative_difference": difference}
    for name, rows in seen.items():
        wall = statistics.median(row.documents / row.wall for row in rows)
        processor = statistics.median(row.documents / row.processor for row in rows)
        figures[name] = {
            **rows[0].accuracies,
            "documents_per_second": wall,
            "documents_per_processor_second": processor,
        }
        told = ", ".join(f"{metric} {value:.4f}" for metric, value in rows[0].accuracies.items())
        print(f"{task:5} {name:14} {told}   {wall:7.2f} documents/s", flush=True)
    for kind in ("wall", "processor"):
        figures[f"times_by_{kind}"] = statistics.median(
            getattr(other, kind) / getattr(one, kind) for one, other in zip(ours, theirs, strict=True)
        )
    print(
        f"{task:5} {figures['times_by_wall']:.2f} times by wall time, {figures['times_by_processor']:.2f} by "
        f"processor time; largest difference of a likelihood {difference:.0e}, relative",
        flush=True,
    )
    return figures


def random_base(tokenizer: Path) -> tuple[MetroT0ForConditionalGeneration, MetroT0Tokenizer]:
    torch.manual_seed(0)
    vocabulary = MetroT0Tokenizer.from_pretrained(str(tokenizer))
    model = MetroT0ForConditionalGeneration(MetroT0Config(vocab_size=len(vocabulary))).eval()
    with torch.no_grad():
        # Logits of a few units, so that a loss of precision shows.
        model.get_input_embeddings().weight.normal_(0, 0.11)
    return model, vocabulary


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--model", help="a model folder, a run directory or a Hub name")
    which.add_argument("--tokenizer", type=Path, help="of a model of the base shape with random weights")
    parser.add_argument("--data-root", type=Path, required=True)
    parser.add_argument("--limit", type=int, help="documents a task")
    parser.add_argument("--batch-size", type=int, default=16, help="of lm-eval's own path")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the figures there")
    settings = parser.parse_args()
    model, tokenizer = load_model(settings.model) if settings.model else random_base(settings.tokenizer)
    ways = {
        "adapter": MetroT0LM(model, tokenizer, max_length=512),
        "lm-eval's own": HFLM(
            pretrained=model,
            tokenizer=tokenizer,
            backend="seq2seq",
            batch_size=settings.batch_size,
            max_length=512,
        ),
    }
    with tempfile.TemporaryDirectory() as scratch:
        write_tasks(Path(scratch), settings.data_root)
        manager = TaskManager(include_path=scratch, include_defaults=False)
        figures = {
            task: compare(task, ways, manager, settings.limit, max(1, settings.rounds)) for task in TASKS
        }
    if settings.json:
        record = {
            "date": datetime.now(UTC).date().isoformat(),
            "environment": environment() | {"lm_eval": version("lm_eval")},
            "model": settings.model or "random weights, base shape",
            "threads": torch.get_num_threads(),
            "batch_size": settings.batch_size,
            "rounds": settings.rounds,
            "tasks": figures,
        }
        settings.json.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
