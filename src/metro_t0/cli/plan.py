"""``metro-t0 plan``: what a run needs and how long it takes, before anything runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from metro_t0.config import FinetuneConfig, PretrainConfig
    from metro_t0.training.plan.estimate import Plan

_DISK_GIGABYTES_A_SECOND = 0.3


def plan(
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="[KEY=VALUE]...", help="Settings to change, such as training.steps=1000."),
    ] = None,
    preset: Annotated[
        str | None, typer.Option(metavar="NAME", help="A preset of pretraining or finetuning.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A configuration of your own instead of a preset.")
    ] = None,
    gpus: Annotated[int, typer.Option(metavar="N", help="How many devices.")] = 1,
    device: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="a100-40gb, a100-80gb, h100, h200, b200, l40s, rtx4090, rtx3090, or here: measured.",
        ),
    ] = "h100",
    mfu: Annotated[
        float | None,
        typer.Option(
            metavar="F", help="Share of the device's peak that training reaches (0.35, which good code does)."
        ),
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="NAME", help="Finetuning: preset of the pretrained network (base).")
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(metavar="N", help="Pieces of the tokenizer (the preset's: 8192, 32768 or 64000)."),
    ] = None,
    length: Annotated[int, typer.Option(metavar="N", help="Tokens of a block, or of a prompt.")] = 512,
    target_length: Annotated[int, typer.Option(metavar="N", help="Finetuning: tokens of an answer.")] = 16,
    text_gb: Annotated[
        float | None,
        typer.Option(metavar="GB", help="Size of the text (the recipe's; else as much as is read once)."),
    ] = None,
    link_gb: Annotated[
        float | None,
        typer.Option(metavar="GB", help="What a device sends a second (300 up to 8 devices, 50 beyond)."),
    ] = None,
    failures_per_day: Annotated[
        float | None,
        typer.Option(metavar="X", help="Of all devices together: adds how often to save, and the goodput."),
    ] = None,
    save_seconds: Annotated[
        float | None,
        typer.Option(metavar="S", help="For which training stands still at a save (size over --disk-gb)."),
    ] = None,
    disk_gb: Annotated[
        float, typer.Option(metavar="GB", help="What the disk of checkpoints takes in a second.")
    ] = _DISK_GIGABYTES_A_SECOND,
    restart_seconds: Annotated[
        float, typer.Option(metavar="S", help="From a failure to the next step.")
    ] = 300.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Say what a run needs: parameters, FLOPs, memory and the largest micro-batch, time, data, traffic.

    \b
    One GPU and a day:
      metro-t0 plan --preset small --device h100
    The largest published recipe, with failures:
      metro-t0 plan --preset large++ --gpus 256 --device a100-80gb --failures-per-day 2
    This machine, its speed measured:
      metro-t0 plan --preset tiny --device here
    Finetuning, with other settings:
      metro-t0 plan --preset finetune --network base --gpus 8 training.micro_batch_tokens=32768
    """
    for name, value in (("--text-gb", text_gb), ("--link-gb", link_gb), ("--disk-gb", disk_gb)):
        if value is not None and value <= 0:
            raise ValueError(f"{name} must be above 0, not {value:g}")
    settings = _settings(preset, config, overrides or [])
    from metro_t0.training.plan.devices import find_device
    from metro_t0.training.plan.estimate import DEFAULT_UTILISATION, make_plan
    from metro_t0.training.plan.networks import official, pieces_of

    named = preset if settings.kind == "pretrain" else (network or "base")
    found = make_plan(
        settings,
        vocab_size or pieces_of(named),
        find_device(device, settings.training.precision),
        gpus=gpus,
        utilisation=DEFAULT_UTILISATION if mfu is None else mfu,
        network=None if settings.kind == "pretrain" else _network(network or "base"),
        length=length,
        target_length=target_length,
        text_bytes=None if text_gb is None else text_gb * 1e9,
        link_bytes=None if link_gb is None else link_gb * 1e9,
        recipe=official(preset),
    )
    failing = None
    if failures_per_day is not None:
        failing = _failing(found, failures_per_day, save_seconds, disk_gb, restart_seconds)
    if as_json:
        values = {"preset": preset, **found.as_dict()}
        print(json.dumps(values if failing is None else {**values, "failures": failing}, indent=2))
        return
    _show(found, preset or str(config), settings.kind == "pretrain", failing)


def _settings(
    preset: str | None, config: Path | None, overrides: list[str]
) -> PretrainConfig | FinetuneConfig:
    from metro_t0.config import load_config

    if preset is None and config is None:
        raise ValueError("say what to plan: --preset NAME or --config FILE")
    return load_config(preset, config, overrides)


def _network(name: str) -> Any:
    from metro_t0.config import load_pretrain_config

    return load_pretrain_config(name).model


def _failing(
    plan: Plan, per_day: float, save_seconds: float | None, disk_gb: float, restart_seconds: float
) -> dict[str, Any]:
    """How often to save and what is left of the time, by formula and by simulation of the whole run."""
    from metro_t0.training.plan.failures import Failures, best_interval, first_order_goodput, simulate

    if per_day <= 0:
        raise ValueError(f"--failures-per-day must be above 0, not {per_day:g}")
    if save_seconds is None:
        save_seconds = plan.checkpoint_bytes / (disk_gb * 1e9)
    failures = Failures(86400 / per_day, save_seconds, restart_seconds)
    interval = best_interval(failures)
    steps = min(plan.time.steps, max(1, round(interval / plan.step.seconds)))
    interval = steps * plan.step.seconds
    # A run of few failures says little of the average: as many runs as make a thousand.
    work = max(plan.time.days * 86400, 1000 * failures.mean_seconds_between)
    outcome = simulate(failures, interval, work, seed=1)
    return {
        "failures_per_day": per_day,
        "save_seconds": save_seconds,
        "restart_seconds": restart_seconds,
        "interval_seconds": interval,
        "interval_steps": steps,
        "goodput_first_order": first_order_goodput(failures, interval),
        "goodput_simulated": outcome.goodput,
        "lost_share_simulated": outcome.lost_seconds / outcome.seconds,
        "days": plan.time.days / outcome.goodput,
    }


def _show(plan: Plan, name: str, pretraining: bool, failing: dict[str, Any] | None) -> None:
    from rich.console import Console

    console = Console()
    console.print(_summary(plan, name, pretraining))
    console.print(_memory(plan))
    if failing is not None:
        console.print(_failures(failing))


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column == columns[0] else "right")
    return table


def _summary(plan: Plan, name: str, pretraining: bool) -> Any:
    from metro_t0.training.plan.estimate import BYTES_OF_TEXT_A_TOKEN

    flops, step, time, data = plan.flops, plan.step, plan.time, plan.data
    devices = f"{plan.gpus} x {plan.device.name}"
    beside = plan.official
    table = _table(f"{name} on {devices}", "what", "this run", "published recipe")

    def row(what: str, here: str, there: str = "") -> None:
        table.add_row(what, here, there)

    row("parameters of the main model", f"{plan.parameters['main']:,}")
    if plan.parameters["auxiliary"]:
        row("with auxiliary model and detection head", f"{plan.parameters['total']:,}")
    table.add_section()
    row("FLOPs a token, forward", _count(flops.forward))
    for part, value in flops.parts.items():
        if value:
            row(f"  {part.replace('_', ' ')}", _count(value))
    row("FLOPs a token, training", _count(flops.training))
    if plan.executed_flops_per_token > flops.training:
        row("  with recomputation", _count(plan.executed_flops_per_token))
    row("FLOPs of the run", f"{time.flops:.2e}")
    table.add_section()
    row("devices", devices, f"{beside.gpus} GPUs" if beside else "")
    row("tokens an update", f"{step.batch_tokens:,}", f"{beside.tokens_per_update:,}" if beside else "")
    row("  a device", f"{step.micro_batches} x {step.micro_batch_tokens:,}")
    row("updates", f"{time.steps:,}", f"{beside.updates:,}" if beside else "")
    row("tokens", _count(time.tokens), _count(beside.tokens) if beside else "")
    table.add_section()
    row("peak of a device", f"{plan.device.peak_flops / 1e12:,.4g} TFLOP/s")
    row("model FLOPs utilisation", f"{time.utilisation:.1%}")
    row("tokens a second", f"{time.tokens_per_second:,.0f}")
    row("an update computes", _seconds(step.computing_seconds))
    if plan.gpus > 1:
        sent = plan.traffic_per_step[plan.sharding]
        row(f"  sends {_bytes(sent)} a device in", _seconds(step.sending_seconds))
    row("days", f"{time.days:,.2f}")
    row("days x devices", f"{time.device_days:,.1f}")
    table.add_section()
    if pretraining:
        row("text", _bytes(data.text_bytes), _bytes(beside.text_bytes) if beside else "")
        row(f"tokens of it, {BYTES_OF_TEXT_A_TOKEN} bytes each", _count(data.corpus_tokens))
        row("prepared corpus on disk", _bytes(data.disk_bytes))
        row("passes over it", f"{data.passes:.1f}")
    row("read by a device", _bytes(data.read_bytes_per_device))
    row("checkpoint", _bytes(plan.checkpoint_bytes))
    return table


def _memory(plan: Plan) -> Any:
    names = {"ddp": "whole (DDP)", "fsdp": "sharded (FSDP)"}
    table = _table("memory of a device", "what", *(names[key] for key in plan.memory))
    parts = {name: memory.parts for name, memory in plan.memory.items()}
    for part in next(iter(parts.values())):
        table.add_row(part.replace("_", " "), *(_bytes(values[part], 2**30) for values in parts.values()))
    table.add_section()
    table.add_row(
        f"in all, of {_bytes(plan.device.usable, 2**30)} usable",
        *(_bytes(memory.total, 2**30) for memory in plan.memory.values()),
    )
    table.add_row(
        "largest micro-batch, tokens", *(f"{most:,}" for most in plan.largest_micro_batch_tokens.values())
    )
    return table


def _failures(failing: dict[str, Any]) -> Any:
    table = _table("failures", "what", "this run")
    table.add_row("failures a day, all devices", f"{failing['failures_per_day']:g}")
    table.add_row("a save stops training for", _seconds(failing["save_seconds"]))
    table.add_row("a restart takes", _seconds(failing["restart_seconds"]))
    table.add_row("save every (Young, Daly)", _seconds(failing["interval_seconds"]))
    table.add_row("  training.save_every", f"{failing['interval_steps']:,}")
    table.add_row("goodput, first order", f"{failing['goodput_first_order']:.2%}")
    table.add_row("goodput, simulated", f"{failing['goodput_simulated']:.2%}")
    table.add_row("  work lost", f"{failing['lost_share_simulated']:.2%}")
    table.add_row("days at that", f"{failing['days']:,.2f}")
    return table


def _count(value: float) -> str:
    for size, unit in ((1e12, " T"), (1e9, " G"), (1e6, " M"), (1e3, " k")):
        if value >= size:
            return f"{value / size:.4g}{unit}"
    return f"{value:.4g}"


def _bytes(value: float, base: int = 1000) -> str:
    giga, mega = (2**30, 2**20) if base == 2**30 else (1e9, 1e6)
    i = "i" if base == 2**30 else ""
    if value >= giga:
        return f"{value / giga:,.1f} G{i}B"
    return f"{value / mega:,.1f} M{i}B"


def _seconds(value: float) -> str:
    if value >= 5400:
        return f"{value / 3600:.3g} h"
    if value >= 90:
        return f"{value / 60:.3g} min"
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"
