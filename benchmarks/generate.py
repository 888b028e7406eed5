"""Tokens a second of greedy generation on a CPU at the ``base`` shape, all ways in turn in one process.

    python benchmarks/generate.py --json benchmarks/results/generate.json
    python benchmarks/generate.py --batches 1 --ways fp32 t5 --rounds 5

Ways: our model as `metro-t0 generate` runs it, with its key-value cache, in fp32, bf16 and int8 (fp32 by oneDNN, and
"plain fp32" by torch's own choice of kernels); the same fp32 weights the old way, decoding everything anew at each
step; transformers' T5 of the same shape in fp32. The last two are as `model.generate` runs them. Weights are random,
no answer ends early, and the clock runs from prompt to last token, encoder included. A figure is the median of the
rounds; a ratio is that of two ways' medians. Whether cached and full decoding write the same tokens is compared in
every round. On a machine that does other work, `--clock cpu` counts this process's time alone: take one thread.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import T5Config, T5ForConditionalGeneration

from metro_t0 import MetroT0Config, MetroT0ForConditionalGeneration
from metro_t0.evaluation.quantization import quantize
from metro_t0.evaluation.ranking.linear import quick_linear

SHAPE = {
    "vocab_size": 33280,
    "d_model": 768,
    "d_kv": 64,
    "d_ff": 3072,
    "num_layers": 12,
    "num_decoder_layers": 12,
    "num_heads": 12,
}
OLD_WAY = "old way"
PLAIN = "plain fp32"
WAYS = ("fp32", "bf16", "int8", PLAIN, OLD_WAY, "t5")
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
Job = Callable[[torch.Tensor], torch.Tensor]


def networks(ways: list[str]) -> dict[str, Any]:
    """The model of each way; the old way shares fp32's."""
    torch.manual_seed(0)
    ours = MetroT0ForConditionalGeneration(MetroT0Config(**SHAPE)).eval()
    made: dict[str, Any] = {"fp32": ours, PLAIN: ours, OLD_WAY: ours}
    if "bf16" in ways:
        made["bf16"] = copy.deepcopy(ours).bfloat16()
    if "int8" in ways:
        made["int8"] = quantize(copy.deepcopy(ours))
    if "t5" in ways:
        made["t5"] = T5ForConditionalGeneration(T5Config(**SHAPE, decoder_start_token_id=0)).eval()
    return {way: made[way] for way in ways}


def job(model: Any, way: str, new_tokens: int) -> Job:
    def write(ids: torch.Tensor) -> torch.Tensor:
        with quick_linear() if way in ("fp32", "bf16", "int8") else nullcontext():
            return model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=new_tokens,
                min_new_tokens=new_tokens,
                do_sample=False,
                use_cache=way != OLD_WAY,
            )

    return write


def measure(
    jobs: dict[str, Job],
    batch: int,
    prompt_tokens: int,
    new_tokens: int,
    rounds: int,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, Any]:
    """Seconds of each way, taken in turn on the same prompts; the first round warms up."""
    seconds: dict[str, list[float]] = {way: [] for way in jobs}
    same = True
    generator = torch.Generator().manual_seed(batch)
    for turn in range(rounds + 1):
        ids = torch.randint(5, 30000, (batch, prompt_tokens), generator=generator)
        written: dict[str, torch.Tensor] = {}
        for way, write in jobs.items():
            begun = clock()
            # A warm-up need not be long, and the old way's would be.
            written[way] = write(ids) if turn or way != OLD_WAY else ids
            if turn:
                seconds[way].append(clock() - begun)
        if turn and {PLAIN, OLD_WAY} <= set(written):
            same &= torch.equal(written[PLAIN], written[OLD_WAY])
    medians = {way: statistics.median(taken) for way, taken in seconds.items()}
    speeds = {way: batch * new_tokens / median for way, median in medians.items()}
    return {
        "batch": batch,
        "tokens_per_second": {way: round(speed, 1) for way, speed in speeds.items()},
        "seconds": {way: [round(one, 3) for one in taken] for way, taken in seconds.items()},
        "times_the_old_way": _ratios(speeds, OLD_WAY),
        "times_t5": _ratios(speeds, "t5"),
        "same_tokens_as_the_old_way": same if {PLAIN, OLD_WAY} <= set(jobs) else None,
    }


def _ratios(speeds: dict[str, float], to: str) -> dict[str, float] | None:
    if to not in speeds:
        return None
    return {way: round(speed / speeds[to], 2) for way, speed in speeds.items() if way != to}


def show(result: dict[str, Any]) -> None:
    speeds = "  ".join(f"{way} {speed:.1f}" for way, speed in result["tokens_per_second"].items())
    print(f"batch {result['batch']:2}: tokens/s {speeds}", flush=True)
    for key, than in (("times_the_old_way", OLD_WAY), ("times_t5", "t5")):
        if result[key]:
            ratios = "  ".join(f"{way} {ratio:.2f}" for way, ratio in result[key].items())
            print(f"          times {than}: {ratios}", flush=True)


def facts(settings: argparse.Namespace) -> dict[str, Any]:
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return {
        "benchmark": "generate",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip() or None,
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "shape": SHAPE,
        "prompt_tokens": settings.prompt_tokens,
        "new_tokens": settings.new_tokens,
        "rounds": settings.rounds,
        "clock": settings.clock,
    }


def _processor() -> str:
    cpu_info = Path("/proc/cpuinfo")
    lines = cpu_info.read_text(encoding="utf-8").splitlines() if cpu_info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--prompt-tokens", type=int, default=256)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there too")
    settings = parser.parse_args()
    described = facts(settings)
    print(f"base, {described['processor']}, {described['threads']} threads, load {described['load_before']}")
    jobs = {way: job(model, way, settings.new_tokens) for way, model in networks(settings.ways).items()}
    results = []
    for batch in settings.batches:
        lengths = (settings.prompt_tokens, settings.new_tokens)
        results.append(measure(jobs, batch, *lengths, settings.rounds, CLOCKS[settings.clock]))
        show(results[-1])
    if settings.json:
        text = json.dumps({**described, "results": results}, indent=1)
        settings.json.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
