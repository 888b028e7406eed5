"""A run on paper: parameters, operations, memory, time, data and traffic, before anything runs.

    config = load_preset("large++")
    plan = make_plan(config, pieces_of("large++"), find_device("h100"), gpus=256, recipe=official("large++"))
    plan.time.days, plan.memory["ddp"].total, plan.step.micro_batches

Nothing is allocated: networks are built on the meta device.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from metro_t0.config import FinetuneConfig, MetroSettings, ModelSettings, PretrainConfig, TrainingSettings
from metro_t0.training.plan.devices import USABLE_SHARE, Device
from metro_t0.training.plan.flops import FlopsPerToken, RowShape, flops_per_token, row_shape
from metro_t0.training.plan.memory import ADAM_MOMENTS, FLOAT32, StepMemory, step_memory
from metro_t0.training.plan.networks import Official, count_parameters, network_config

DEFAULT_UTILISATION = 0.35
"""Of the peak: between 31 %, which nanoT5 reaches with T5 base on an A100, and 39 %, which torchtitan reaches with
Llama 8B on H100s (both bfloat16, compiled; worked out from their published times)."""

_INSIDE_A_MACHINE, _BETWEEN_MACHINES = 300e9, 50e9
"""Bytes a second that a device sends: NVLink of an A100 (600 GB/s in both directions together), and one adapter of
400 Gb/s a device."""
_DEVICES_OF_A_MACHINE = 8

BYTES_OF_TEXT_A_TOKEN = 4.5
"""Measured with the published vocabularies: 4.6 to 4.7 on Wikipedia, 4.2 to 4.3 on novels, 4.9 to 5.0 on news."""

_BLOCK_BYTES = 8
"""Of a block's offset and document number, beside its tokens."""


@dataclass(frozen=True)
class Step:
    """How an update is divided.

    Attributes:
        batch_tokens: of all devices.
        micro_batch_tokens: that go through one device's network at once.
        micro_batches: of one device.
        computing_seconds: of one update.
        sending_seconds: that its traffic takes; the longer of the two is what an update takes, as sending goes on
            beside the backward pass.
    """

    batch_tokens: int
    micro_batch_tokens: int
    micro_batches: int
    computing_seconds: float
    sending_seconds: float

    @property
    def seconds(self) -> float:
        """Of one update."""
        return max(self.computing_seconds, self.sending_seconds)


@dataclass(frozen=True)
class Duration:
    """How long it takes.

    Attributes:
        utilisation: model FLOPs utilisation: of the peak, without what is recomputed.
        tokens_per_second: of all devices.
        steps, tokens, flops: of the run.
        days: of wall-clock time, without validation, saves and failures.
        device_days: days times devices.
    """

    utilisation: float
    tokens_per_second: float
    steps: int
    tokens: int
    flops: float
    days: float
    device_days: float


@dataclass(frozen=True)
class Data:
    """What is read.

    Attributes:
        text_bytes: of the corpus.
        corpus_tokens: that it makes.
        disk_bytes: of the prepared blocks.
        passes: over the corpus in the run.
        read_bytes_per_device: of blocks, in the run.
    """

    text_bytes: float
    corpus_tokens: float
    disk_bytes: float
    passes: float
    read_bytes_per_device: float


@dataclass(frozen=True)
class Plan:
    """Everything about a run on a number of devices; bytes, seconds, operations.

    Attributes:
        parameters: ``main``, ``auxiliary`` (with its head and the detection head), ``total``.
        device, gpus: where.
        flops: of one forward pass, a token, by part.
        executed_flops_per_token: of forward and backward pass, recomputation included.
        sharding: ``ddp`` or, where that does not fit, ``fsdp``.
        memory: a device's, for both.
        largest_micro_batch_tokens: that fit, for both; 0 where not even one row does.
        step, time, data: see there.
        traffic_per_step: bytes that a device sends in an update, for both.
        checkpoint_bytes: weights and moments.
        official: the published recipe of this size, or None.
    """

    parameters: dict[str, int]
    device: Device
    gpus: int
    row: RowShape
    flops: FlopsPerToken
    executed_flops_per_token: float
    sharding: str
    memory: dict[str, StepMemory]
    largest_micro_batch_tokens: dict[str, int]
    step: Step
    time: Duration
    data: Data
    traffic_per_step: dict[str, float]
    checkpoint_bytes: float
    official: Official | None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, sums included."""
        values = asdict(self)
        values["flops"] |= {"forward": self.flops.forward, "training": self.flops.training}
        values["memory"] = {
            name: {**memory.parts, "total": memory.total} for name, memory in self.memory.items()
        }
        values["step"] |= {"seconds": self.step.seconds}
        values["device"] |= {"usable": self.device.usable}
        if self.official is not None:
            values["official"]["tokens"] = self.official.tokens
        return values


def make_plan(
    config: PretrainConfig | FinetuneConfig,
    pieces: int,
    device: Device,
    *,
    gpus: int = 1,
    utilisation: float = DEFAULT_UTILISATION,
    network: ModelSettings | None = None,
    length: int = 512,
    target_length: int = 16,
    text_bytes: float | None = None,
    link_bytes: float | None = None,
    recipe: Official | None = None,
) -> Plan:
    """Work out a run.

    Args:
        config: what it is made of.
        pieces: of the vocabulary, sentinels not counted.
        device: on which kind.
        gpus: on how many.
        utilisation: share of the device's peak that training reaches (recomputed layers count as work here).
        network: finetuning only: the pretrained network.
        length: tokens of a block, or of a prompt.
        target_length: tokens of an answer; finetuning only.
        text_bytes: size of the corpus; None = the recipe's, or as much text as the run reads once.
        link_bytes: a second that a device can send to the others; None = 300 GB inside a machine of 8, else 50.
        recipe: the published one, to stand beside.

    Raises:
        ValueError: the run does not fit the devices, or a number that cannot be.
    """
    _check(gpus, utilisation, length, target_length)
    shape = network_config(config, pieces, network)
    if (longest := max(length, target_length)) > shape.num_positions:
        raise ValueError(
            f"rows of {longest} tokens are longer than the network's {shape.num_positions} positions: give --length"
        )
    counts = count_parameters(shape, isinstance(config.objective, MetroSettings))
    row = row_shape(config.objective, length, target_length)
    flops = flops_per_token(shape, config.objective, length, target_length)
    settings = config.training
    rows = _rows_of_a_micro_batch(settings, row, gpus)
    micro_batch_tokens = rows * int(row.tokens)
    micro_batches = max(1, math.ceil(settings.batch_tokens / gpus / (rows * row.tokens)))
    memory_with = {
        sharding: partial(
            step_memory,
            shape,
            counts,
            config.objective,
            device.hardware,
            row,
            checkpointing=settings.activation_checkpointing,
            shards=shards,
        )
        for sharding, shards in (("ddp", 1), ("fsdp", gpus))
        if sharding == "ddp" or gpus > 1
    }
    memory = {name: of_rows(rows) for name, of_rows in memory_with.items()}
    largest = {name: int(row.tokens) * _most_rows(device, of) for name, of in memory_with.items()}
    sharding = _fitting(memory, largest, device, micro_batch_tokens, settings.activation_checkpointing)
    executed = flops.training + (flops.layers if settings.activation_checkpointing else 0.0)
    traffic = _traffic(counts.total, gpus, micro_batches)
    link = link_bytes or (_INSIDE_A_MACHINE if gpus <= _DEVICES_OF_A_MACHINE else _BETWEEN_MACHINES)
    computing = settings.batch_tokens * executed / (utilisation * device.peak_flops * gpus)
    step = Step(settings.batch_tokens, micro_batch_tokens, micro_batches, computing, traffic[sharding] / link)
    time = _duration(config, flops, step.seconds, device.peak_flops * gpus, gpus)
    return Plan(
        parameters={"main": counts.main, "auxiliary": counts.total - counts.main, "total": counts.total},
        device=device,
        gpus=gpus,
        row=row,
        flops=flops,
        executed_flops_per_token=executed,
        sharding=sharding,
        memory=memory,
        largest_micro_batch_tokens=largest,
        step=step,
        time=time,
        data=_data(time.tokens, gpus, row, shape.vocab_size, text_bytes, recipe),
        traffic_per_step=traffic,
        checkpoint_bytes=(1 + ADAM_MOMENTS) * FLOAT32 * float(counts.total),
        official=recipe,
    )


def _check(gpus: int, utilisation: float, length: int, target_length: int) -> None:
    if gpus < 1:
        raise ValueError(f"a run needs at least one device: --gpus {gpus} is less")
    if not 0.0 < utilisation <= 1.0:
        raise ValueError(f"--mfu is a share of the peak, above 0 and at most 1, not {utilisation:g}")
    if length < 2 or target_length < 1:
        raise ValueError("a row has at least two tokens, an answer at least one")


def _rows_of_a_micro_batch(settings: TrainingSettings, row: RowShape, gpus: int) -> int:
    if (per_device := settings.batch_tokens / gpus) < row.tokens and gpus > 1:
        raise ValueError(
            f"training.batch_tokens {settings.batch_tokens} gives each of {gpus} devices less than one row of "
            f"{row.tokens:.0f} tokens: use at most {max(1, int(settings.batch_tokens // row.tokens))}"
        )
    return max(1, int(min(settings.micro_batch_tokens, per_device) // row.tokens))


def _most_rows(device: Device, memory_of: Callable[[int], StepMemory]) -> int:
    """The most rows of a micro-batch that fit, by bisection: memory only grows with them."""
    most = 1
    if memory_of(1).total > device.usable:
        return 0
    while memory_of(2 * most).total <= device.usable:
        most *= 2
    low, high = most, 2 * most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if memory_of(middle).total <= device.usable else (low, middle)
    return low


def _fitting(
    memory: dict[str, StepMemory],
    largest: dict[str, int],
    device: Device,
    micro_batch_tokens: int,
    checkpointing: bool,
) -> str:
    for name, needed in memory.items():
        if needed.total <= device.usable:
            return name
    needed_gb = min(needed.total for needed in memory.values()) / 2**30
    if most := max(largest.values()):
        mend = f"set training.micro_batch_tokens to at most {most}"
    else:
        mend = "not even one row fits: take a larger device or more of them"
    if not checkpointing:
        mend += ", or training.activation_checkpointing=true"
    raise ValueError(
        f"a micro-batch of {micro_batch_tokens} tokens needs {needed_gb:.1f} GiB, {device.name} has "
        f"{device.memory / 2**30:.1f} ({USABLE_SHARE:.0%} of it usable): {mend}"
    )


def _traffic(parameters: int, gpus: int, micro_batches: int) -> dict[str, float]:
    """Bytes a device sends in an update, in rings: gradients are summed once; shards are gathered every time."""
    sums = 2 * (gpus - 1) / gpus * parameters * FLOAT32
    if gpus == 1:
        return {"ddp": sums}
    # Each micro-batch gathers weights for its forward and its backward pass and scatters its gradients.
    return {"ddp": sums, "fsdp": 1.5 * sums * micro_batches}


def _duration(
    config: PretrainConfig | FinetuneConfig, flops: FlopsPerToken, step_seconds: float, peak: float, gpus: int
) -> Duration:
    settings = config.training
    steps = settings.steps
    if steps is None:
        assert settings.budget_seconds is not None
        steps = max(1, int(settings.budget_seconds / step_seconds))
    tokens, days = steps * settings.batch_tokens, steps * step_seconds / 86400
    speed = settings.batch_tokens / step_seconds
    return Duration(
        utilisation=flops.training * speed / peak,
        tokens_per_second=speed,
        steps=steps,
        tokens=tokens,
        flops=flops.training * tokens,
        days=days,
        device_days=days * gpus,
    )


def _data(
    tokens: int, gpus: int, row: RowShape, vocabulary: int, text_bytes: float | None, recipe: Official | None
) -> Data:
    if text_bytes is None:
        text_bytes = recipe.text_bytes if recipe is not None else tokens * BYTES_OF_TEXT_A_TOKEN
    corpus_tokens = text_bytes / BYTES_OF_TEXT_A_TOKEN
    a_token = (2 if vocabulary <= 2**16 else 4) + _BLOCK_BYTES / row.tokens
    return Data(
        text_bytes, corpus_tokens, corpus_tokens * a_token, tokens / corpus_tokens, tokens * a_token / gpus
    )
