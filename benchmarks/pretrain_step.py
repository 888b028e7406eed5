"""What a pretraining step costs here, and what a peer's costs: tokens a second, the share of the machine's own rate.

    python benchmarks/pretrain_step.py                                  # base, bf16, METRO and span corruption
    python benchmarks/pretrain_step.py --precision fp32 --rows 4
    python benchmarks/pretrain_step.py --out benchmarks/results/step.json

Rows are full blocks of random tokens, so that nothing is padding. Everything runs in one process, in turn: one step of
each candidate, round after round; medians are printed. The peer is transformers' T5ForConditionalGeneration of equal
width and depth on the very batch of span corruption, with its two kinds of attention.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from transformers import T5Config, T5ForConditionalGeneration

from metro_t0.config import PretrainConfig, load_pretrain_config
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.objectives.build import build_objective
from metro_t0.training.allocator import keep_freed_memory
from metro_t0.training.compilation import compile_layers
from metro_t0.training.distributed import Parallel
from metro_t0.training.measure import peak_flops
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.plan.flops import flops_per_token
from metro_t0.training.run_directory import environment
from metro_t0.training.update import Updater, autocast, move, summed_counts

VOCABULARY, SENTINELS = 33280, 512
SPANS = "span corruption, dropout 0.1"
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
PHASES = ("data", "forward", "backward", "optimizer")


class Clock:
    """Seconds by phase of one step; waits for the device at every mark."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: list[float] = []
        self._last = self._now()

    def _now(self) -> float:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return time.perf_counter()

    def mark(self) -> None:
        now = self._now()
        self.seconds.append(now - self._last)
        self._last = now


def matrix_rate(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of products of 2048 x 768 and 768 x 3072, the best of a few runs."""
    left, right = (
        torch.randn(2048, 768, device=device, dtype=dtype),
        torch.randn(768, 3072, device=device, dtype=dtype),
    )
    repeats, best = (20 if device.type == "cuda" else 4), float("inf")
    for _ in range(8):
        clock = Clock(device)
        for _ in range(repeats):
            left @ right
        clock.mark()
        best = min(best, clock.seconds[0] / repeats)
    return 2 * 2048 * 768 * 3072 / best


Step = Callable[[], list[float]]


def ours(
    config: PretrainConfig, rows: int, length: int, device: torch.device, compiled: bool
) -> Callable[[float], Step]:
    """One network of ours: from a dropout rate to a function that makes a step and gives its seconds by phase."""
    torch.manual_seed(0)
    network = MetroT0Config(**config.model.model_dump(), vocab_size=VOCABULARY, num_sentinel_tokens=SENTINELS)
    metro = config.objective.kind == "metro"
    model = (MetroT0ForPreTraining if metro else MetroT0ForConditionalGeneration)(network)
    torch.nn.Module.to(model, device).train()
    if compiled:
        compile_layers(model, print)
    objective = build_objective(config.objective, network, seed=1)
    optimizer = build_optimizer(model.parameters(), config.optimizer)
    assert config.training.precision != "auto"
    updater = Updater(
        Parallel(model, objective),
        optimizer,
        precision=config.training.precision,
        seed=1,
        clip_norm=config.optimizer.clip_norm,
    )
    generator = np.random.default_rng(0)
    blocks = [{"input_ids": generator.integers(4, VOCABULARY - SENTINELS, length)} for _ in range(rows)]
    step = 0

    def one_step() -> list[float]:
        nonlocal step
        step += 1
        clock = Clock(device)
        batch = objective.collate(blocks, [(step, place) for place in range(rows)])
        normalizers = summed_counts(objective, [batch])
        clock.mark()
        with autocast(device, updater.precision):
            output = objective(model, move(batch, device), normalizers)
        clock.mark()
        output.loss.backward()
        clock.mark()
        torch.nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None])
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.mark()
        return clock.seconds

    def with_dropout(rate: float) -> Step:
        def step_of_rate() -> list[float]:
            for stack in (model.encoder, model.decoder):
                for module in stack.modules():
                    if hasattr(module, "dropout_rate"):
                        module.dropout_rate = rate
            return one_step()

        return step_of_rate

    return with_dropout


def peer(config: PretrainConfig, rows: int, length: int, device: torch.device) -> Callable[[str], Step]:
    """The same for transformers' T5 on the batch of span corruption, from its kind of attention on."""
    torch.manual_seed(0)
    shape = config.model
    network = T5Config(
        vocab_size=VOCABULARY,
        d_model=shape.d_model,
        d_kv=shape.d_kv,
        d_ff=shape.d_ff,
        num_layers=shape.num_layers,
        num_decoder_layers=shape.num_decoder_layers,
        num_heads=shape.num_heads,
        dropout_rate=shape.dropout_rate,
        feed_forward_proj="relu",
        use_cache=False,
    )
    model = T5ForConditionalGeneration(network)
    torch.nn.Module.to(model, device).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    vocabulary = MetroT0Config(vocab_size=VOCABULARY, num_sentinel_tokens=SENTINELS)
    objective = build_objective(config.objective, vocabulary, seed=1)
    generator = np.random.default_rng(0)
    blocks = [{"input_ids": generator.integers(4, VOCABULARY - SENTINELS, length)} for _ in range(rows)]
    step = 0

    def one_step() -> list[float]:
        nonlocal step
        step += 1
        clock = Clock(device)
        batch = objective.collate(blocks, [(step, place) for place in range(rows)])
        labels = torch.full_like(batch["decoder_input_ids"], -100).flatten()
        labels[batch["target_positions"]] = batch["target_ids"]
        inputs = {
            "input_ids": batch["input_ids"],
            "attention_mask": batch["attention_mask"],
            "decoder_input_ids": batch["decoder_input_ids"],
            "labels": labels.view_as(batch["decoder_input_ids"]),
        }
        clock.mark()
        with autocast(device, config.training.precision):  # type: ignore[arg-type]
            logits = model(**move({k: v for k, v in inputs.items() if k != "labels"}, device)).logits
            targets = inputs["labels"].to(device)
            loss = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=-100)
        clock.mark()
        loss.backward()
        clock.mark()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        clock.mark()
        return clock.seconds

    def with_attention(kind: str) -> Step:
        def step_of_kind() -> list[float]:
            model.set_attn_implementation(kind)
            return one_step()

        return step_of_kind

    return with_attention


def candidates(arguments: argparse.Namespace, device: torch.device) -> dict[str, tuple[Step, float | None]]:
    """Name to a step and the operations of a token, which is one of a block whatever the objective makes of it."""
    shape = (arguments.rows, arguments.length, device)
    precision = f"training.precision={arguments.precision}"
    metro = load_pretrain_config(arguments.preset, overrides=[precision])
    spans = load_pretrain_config(f"{arguments.preset}-t5", overrides=[precision, "model.dropout_rate=0.1"])
    network = MetroT0Config(**metro.model.model_dump(), vocab_size=VOCABULARY)
    flops = [flops_per_token(network, c.objective, arguments.length).training for c in (metro, spans)]
    metro_step, spans_step = (ours(config, *shape, arguments.compile) for config in (metro, spans))
    t5_step = peer(spans, *shape)
    return {
        "METRO, no dropout": (metro_step(0.0), flops[0]),
        "METRO, dropout 0.1": (metro_step(0.1), flops[0]),
        SPANS: (spans_step(0.1), flops[1]),
        "transformers T5, eager, dropout 0.1": (t5_step("eager"), None),
        "transformers T5, sdpa, dropout 0.1": (t5_step("sdpa"), None),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="base", help="with a -t5 variant beside it")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--precision", choices=["bf16", "fp32"], default="bf16")
    parser.add_argument("--compile", action="store_true", help="layers by torch.compile")
    parser.add_argument("--out", type=Path, help="write the figures here, as JSON")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kept = device.type == "cpu" and keep_freed_memory()
    rates = {name: [matrix_rate(device, dtype)] for name, dtype in DTYPES.items()}
    steps = candidates(arguments, device)
    seconds: dict[str, list[list[float]]] = {name: [] for name in steps}
    for _ in range(arguments.rounds + 1):
        for name, (one_step, _) in steps.items():
            seconds[name].append(one_step())
        for name, dtype in DTYPES.items():
            rates[name].append(matrix_rate(device, dtype))
    peak = statistics.median(rates[arguments.precision])
    if device.type == "cuda":
        peak, _ = peak_flops(device, arguments.precision)
    tokens = arguments.rows * arguments.length
    found = {}
    print(f"matrix products: bf16 {statistics.median(rates['bf16']) / 1e9:,.0f} GFLOP/s, ", end="")
    print(f"fp32 {statistics.median(rates['fp32']) / 1e9:,.0f} GFLOP/s (2048 x 768 x 3072)")
    for name, (_, flops) in steps.items():
        rounds = seconds[name][1:]  # the first one warms up
        speed = tokens / statistics.median([sum(phases) for phases in rounds])
        shares = [sum(phases[i] for phases in rounds) / sum(map(sum, rounds)) for i in range(len(PHASES))]
        found[name] = {"tokens_per_second": round(speed, 1)}
        told = ", ".join(f"{phase} {share:.0%}" for phase, share in zip(PHASES, shares, strict=True))
        line = f"{name:36} {speed:10,.0f} tokens/s  {told}"
        if flops is not None:
            found[name].update(
                flops_per_token=round(flops), share_of_matrix_rate=round(flops * speed / peak, 3)
            )
            line += f"  {flops / 1e9:.2f} GFLOP/token, {flops * speed / peak:.0%} of the rate"
        found[name].update({phase: round(share, 3) for phase, share in zip(PHASES, shares, strict=True)})
        print(line)
    fastest = max(v["tokens_per_second"] for n, v in found.items() if n.startswith("transformers"))
    ratio = found[SPANS]["tokens_per_second"] / fastest
    memory = (
        torch.cuda.max_memory_allocated()
        if device.type == "cuda"
        else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    )
    print(
        f"span corruption beside the faster T5: {ratio:.2f} times; peak memory of all together {memory / 1e9:.1f} GB"
    )
    if arguments.out is not None:
        record = {
            "command": f"pretrain_step.py --preset {arguments.preset} --rows {arguments.rows} "
            f"--length {arguments.length} --rounds {arguments.rounds} --precision {arguments.precision}",
            "date": datetime.now(UTC).date().isoformat(),
            "environment": environment(),
            "threads": torch.get_num_threads(),
            "freed_memory_kept": kept,
            "matrix_rate_gflops": {n: round(statistics.median(r) / 1e9, 1) for n, r in rates.items()},
            "span_corruption_beside_t5": round(ratio, 2),
            "peak_memory_bytes": memory,
            "steps": found,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
