"""What the tests of training share: a model and an objective small enough to see through, small configurations."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, Features, Value
from datasets import Sequence as SequenceFeature
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from metro_t0.config import OptimizerSettings, PretrainConfig, TrainingSettings, load_pretrain_config
from metro_t0.data.rows import TokenRows
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.base import Batch, ObjectiveOutput, Row, RowKey

SMALL_MODEL = [
    "model.d_model=16",
    "model.d_kv=8",
    "model.d_ff=32",
    "model.num_heads=2",
    "model.num_layers=1",
    "model.num_decoder_layers=1",
    "model.num_auxiliary_layers=1",
    "model.num_positions=64",
]
SMALL_RUN = [
    *SMALL_MODEL,
    "training.precision=fp32",
    "training.threads=1",
    "training.batch_tokens=512",
    "training.micro_batch_tokens=256",
    "training.log_every=1",
    "training.validation_rows=8",
]


def small_config(*overrides: str, preset: str = "tiny") -> PretrainConfig:
    """A pretraining run of milliseconds a step."""
    return load_pretrain_config(preset, overrides=[*SMALL_RUN, *overrides])


class BagConfig(PreTrainedConfig):
    model_type = "bag"

    def __init__(self, width: int = 8, **kwargs: Any) -> None:
        self.width = width
        super().__init__(**kwargs)


class Bag(PreTrainedModel):
    """Predicts each token's class from its embedding alone."""

    config_class = BagConfig

    def __init__(self, config: BagConfig) -> None:
        super().__init__(config)
        self.embedding = nn.Embedding(64, config.width)
        self.dropout = nn.Dropout(0.1)
        self.out = nn.Linear(config.width, 8)

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return self.out(self.dropout(self.embedding(input_ids)))


@dataclass
class BagObjective:
    """Classes are ids modulo 8; ``broken`` says at which steps the loss or the gradient is not a number."""

    broken: Mapping[int, str] = field(default_factory=dict)
    loss_parts = ("class_loss",)

    def collate(self, rows: Sequence[Row], keys: Sequence[RowKey]) -> Batch:
        ids = np.zeros((len(rows), max(len(row["input_ids"]) for row in rows)), dtype=np.int64)
        for place, row in enumerate(rows):
            ids[place, : len(row["input_ids"])] = row["input_ids"]
        how = {"loss": 1, "gradient": 2}.get(self.broken.get(keys[0][0], ""), 0)
        return {"ids": torch.from_numpy(ids), "broken": torch.tensor(how)}

    def counts(self, batch: Batch) -> dict[str, int]:
        return {"tokens": int(batch["ids"].ne(0).sum())}

    def __call__(
        self, model: nn.Module, batch: Batch, normalizers: Mapping[str, float | torch.Tensor] | None = None
    ) -> ObjectiveOutput:
        ids = batch["ids"]
        real = ids.ne(0)
        logits = model(ids)[real]
        total = F.cross_entropy(logits, ids[real] % 8, reduction="sum")
        if batch["broken"] == 1:
            total = total * float("nan")
        if batch["broken"] == 2:
            # The root of 0: value 0, slope infinite, times 0.
            total = total + (logits.sum() * 0.0).sqrt()
        count = real.sum().float()
        hits = logits.argmax(dim=-1).eq(ids[real] % 8).sum().float()
        totals = {
            "class_loss": torch.stack([total.detach(), count]),
            "accuracy": torch.stack([hits, count]),
        }
        return ObjectiveOutput(total / (normalizers or self.counts(batch))["tokens"], totals)


def small_network(seed: int) -> MetroT0ForPreTraining:
    """The real network, with its tied weights, as small as it goes."""
    torch.manual_seed(seed)
    shape = {"num_layers": 1, "num_decoder_layers": 1, "num_auxiliary_layers": 1, "num_heads": 2}
    return MetroT0ForPreTraining(MetroT0Config(vocab_size=600, d_model=16, d_kv=8, d_ff=32, **shape))


def token_rows(number: int, seed: int) -> TokenRows:
    """Rows of 1 to 20 ids from 1 to 63."""
    rng = np.random.default_rng(seed)
    ids = [rng.integers(1, 64, rng.integers(1, 21)).tolist() for _ in range(number)]
    features = Features({"input_ids": SequenceFeature(Value("uint16"))})
    return TokenRows(Dataset.from_dict({"input_ids": ids}, features=features), ("input_ids",))


def bag_model(width: int = 8, dropout: float = 0.1) -> Bag:
    torch.manual_seed(5)
    model = Bag(BagConfig(width=width))
    model.dropout.p = dropout
    return model.train()


def bag_settings(**values: Any) -> TrainingSettings:
    """Resolved settings of a run of 30 steps."""
    defaults: dict[str, Any] = {
        "steps": 30,
        "batch_tokens": 200,
        "micro_batch_tokens": 100,
        "device": "cpu",
        "precision": "fp32",
        "threads": 1,
        "log_every": 1,
        "validate_every": 10,
        "save_every": 10,
        "max_nonfinite": 0,
    }
    return TrainingSettings(**{**defaults, **values})


BAG_OPTIMIZER = OptimizerSettings(learning_rate=0.05, warmup_steps=3, clip_norm=1.0)


def losses(run: Path, kind: str = "train") -> dict[int, dict[str, Any]]:
    """Lines of ``metrics.jsonl`` by step, without what depends on the clock."""
    written = (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    # The last line may be half there, of a process that is writing it or was killed while it did.
    lines = [json.loads(line) for line in written if line.endswith("\n")]
    clock = {
        "seconds",
        "tokens_per_second",
        "processed_tokens_per_second",
        "data_wait_share",
        "mfu",
        "peak_memory_bytes",
    }
    return {
        line["step"]: {name: value for name, value in line.items() if name not in clock}
        for line in lines
        if line["kind"] == kind
    }


def started(corpus: Path, run: Path, *arguments: str) -> subprocess.Popen[str]:
    """``metro-t0 pretrain`` in a process of its own."""
    command = [
        sys.executable,
        "-m",
        "metro_t0.cli.main",
        "pretrain",
        "--data",
        str(corpus),
        "--out",
        str(run),
    ]
    return subprocess.Popen(
        [*command, *arguments], env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True
    )


def wait_until(process: subprocess.Popen[str], condition: Callable[[], bool]) -> None:
    """Wait, as long as the process lives, until something is so."""
    while not condition():
        assert process.poll() is None, process.communicate()
        time.sleep(0.001)


def wait_for_step(process: subprocess.Popen[str], run: Path, step: int) -> None:
    """Wait until a run has logged a step."""
    wait_until(process, lambda: run.exists() and max(losses(run), default=0) >= step)


def fill(disk: Path, room: int) -> None:
    """Leave a file system only so many bytes."""
    (disk / "filler").write_bytes(bytes(shutil.disk_usage(disk).free - room))
