"""The peak memory of real training steps, measured in a process of its own: ``python measured_step.py '{...}'``.

Prints the growth of memory over the bare process in bytes. On a CPU that is the peak of the resident set, with an
allocator that gives every large block back (the environment below); on CUDA what torch's allocator had in use.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

# Large blocks come from the system and go back to it at once, so that the peak is what was in use.
ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}


def measure(**case: Any) -> int:
    """Run a case in a fresh process; see ``main`` for its keys."""
    environment = {**os.environ, **ALLOCATOR}
    command = [sys.executable, str(Path(__file__)), json.dumps(case)]
    found = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return int(found.stdout)


def status(key: str) -> int:
    """A line of /proc/self/status in bytes."""
    for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) * 1024
    raise AssertionError(key)


def main(case: dict[str, Any]) -> int:
    """One update of a short row, which makes the optimizer's moments, then one of two micro-batches.

    Keys: ``network`` (of MetroT0Config), ``objective`` (settings), ``rows``, ``length``, ``precision``, ``device``,
    ``checkpointing``.
    """
    import torch

    from metro_t0.config import MetroSettings, OptimizerSettings, SpanCorruptionSettings
    from metro_t0.modeling.configuration import MetroT0Config
    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.modeling.pretraining import MetroT0ForPreTraining
    from metro_t0.objectives.build import build_objective
    from metro_t0.training.activation_checkpointing import checkpoint_activations
    from metro_t0.training.distributed import Parallel
    from metro_t0.training.optimizer import build_optimizer
    from metro_t0.training.update import Updater

    def updates(network: MetroT0Config, rows: int, length: int) -> None:
        torch.manual_seed(0)
        metro = case["objective"]["kind"] == "metro"
        settings = (MetroSettings if metro else SpanCorruptionSettings)(**case["objective"])
        model = (MetroT0ForPreTraining if metro else MetroT0ForConditionalGeneration)(network)
        model = model.train().to(case["device"])
        if case["checkpointing"]:
            checkpoint_activations(model)
        optimizer_settings = OptimizerSettings(learning_rate=1e-4, clip_norm=2.0)
        optimizer = build_optimizer(model.parameters(), optimizer_settings)
        objective = build_objective(settings, network, seed=1)
        updater = Updater(
            Parallel(model, objective), optimizer, precision=case["precision"], seed=1, clip_norm=2.0
        )
        words = network.vocab_size - network.num_sentinel_tokens
        generator = np.random.default_rng(1)
        for step, (micro_batches, places, tokens) in enumerate([(1, 1, 32), (2, rows, length)], start=1):
            batches = []
            for micro_batch in range(micro_batches):
                texts = [{"input_ids": generator.integers(4, words, tokens)} for _ in range(places)]
                keys = [(step, micro_batch * places + place) for place in range(places)]
                batches.append(objective.collate(texts, keys))
            updater.run(step, batches, 1e-4)

    small = {
        "d_model": 64,
        "d_kv": 16,
        "d_ff": 128,
        "num_heads": 4,
        "num_layers": 1,
        "num_auxiliary_layers": 1,
    }
    updates(MetroT0Config(**{**small, "vocab_size": 2000, "num_sentinel_tokens": 500}), 2, 64)
    if case["device"] == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        updates(MetroT0Config(**case["network"]), case["rows"], case["length"])
        return torch.cuda.max_memory_allocated() - before
    before = status("VmRSS")
    updates(MetroT0Config(**case["network"]), case["rows"], case["length"])
    return status("VmHWM") - before


if __name__ == "__main__":
    print(main(json.loads(sys.argv[1])))
