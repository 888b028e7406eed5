"""What a run decides by measuring at its start: precision, threads, and the number of steps for a budget.

    decided = decide(Trial(model, objective, data, settings, ...))
    decided.settings, decided.optimizer, decided.measured
    peak, how = peak_flops(device)                # what model FLOPs utilisation is measured by

Everything is measured on the run's own model and rows with updates at learning rate 0, which change no weight. What was
decided is written to the run's ``config.yaml`` and into every checkpoint: a resumed run does not measure again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from metro_t0.config import OptimizerSettings, TrainingSettings
from metro_t0.data.sampler import MicroBatch, padded_tokens
from metro_t0.objectives.base import Batch, Objective
from metro_t0.training.distributed import Parallel
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.schedule import Costs
from metro_t0.training.training_data import TrainingData
from metro_t0.training.update import Precision, Updater, summed_counts

# Long enough to tell a factor of 1.1, short beside any run.
_TRIAL_TOKENS = 2048
_TRIAL_SECONDS = 1.0
# bf16 rounds and fewer threads are odd: either must be worth it.
_WORTH_IT = 0.95
_BUDGET_SHARE = 0.05
_DISK_BYTES_PER_SECOND = 300e6
# Where it is left open, a tenth of the run lies between validations; more where they would take more of the time.
_VALIDATIONS = 10
_VALIDATION_SHARE = 0.2
# Enough steps to know the mean tokens of one to a thousandth.
_COUNTED_TOKENS = 2**20
_COUNTED_STEPS = 20
# Dense bfloat16 products, operations a second, by makers' data sheets.
_PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "B200": 2250e12}
_PRODUCT_SIZES = {"cpu": 1024, "cuda": 8192}


@dataclass(frozen=True)
class Trial:
    """What measurements run on, and what they are to decide.

    Attributes:
        model: on its device; its weights are as before afterwards.
        objective, data: of the run.
        settings, optimizer: of the run, with values left open.
        validation_batches: micro-batches of one validation.
        started: ``time.monotonic()`` of the beginning of the time budget.
    """

    model: PreTrainedModel
    objective: Objective
    data: TrainingData
    settings: TrainingSettings
    optimizer: OptimizerSettings
    validation_batches: Sequence[Batch]
    started: float

    def updater(self, precision: Precision) -> Updater:
        """An updater whose optimizer is thrown away."""
        optimizer = build_optimizer(self.model.parameters(), self.optimizer)
        parallel = Parallel(self.model, self.objective)
        return Updater(parallel, optimizer, precision=precision, seed=0, clip_norm=self.optimizer.clip_norm)

    def batch(self, max_tokens: int) -> Batch:
        """Part of a micro-batch of the first step, of at most so many padded tokens (one row at least)."""
        micro_batches = self.data.sampler(self.settings).next_step().micro_batches
        middle = micro_batches[len(micro_batches) // 2]
        number = len(middle.rows)
        while number > 1 and padded_tokens(self.data.train.lengths[middle.rows[:number]]) > max_tokens:
            number -= 1
        return self.data.collate(self.objective, MicroBatch(middle.rows[:number], middle.keys[:number]))


@dataclass(frozen=True)
class Decided:
    """What ``decide`` came to.

    Attributes:
        settings, optimizer: without ``auto`` and null.
        measured: what was measured, in words, for the record.
        costs: of a validation and a save; known where there is a time budget.
    """

    settings: TrainingSettings
    optimizer: OptimizerSettings
    measured: dict[str, str]
    costs: Costs


def decide(trial: Trial) -> Decided:
    """Resolve what the settings leave open; torch's number of threads is set to what was decided.

    Of a budget and a number of steps (the resolved settings of another run) the budget counts.

    Raises:
        ValueError: the time budget cannot hold one step.
    """
    measured: dict[str, str] = {}
    if trial.settings.threads != "auto":
        torch.set_num_threads(trial.settings.threads)
    precision = trial.settings.precision
    if precision == "auto":
        precision, measured["precision"] = _faster_precision(trial)
    threads = trial.settings.threads
    if threads == "auto":
        threads, reason = _faster_threads(trial, precision)
        measured.update({"threads": reason} if reason else {})
        torch.set_num_threads(threads)
    steps, costs = trial.settings.steps, Costs()
    validations = _VALIDATIONS
    if trial.settings.budget_seconds is not None:
        steps, validations, costs, measured["steps"] = _steps_in_budget(trial, precision)
    elif trial.settings.budget_tokens is not None:
        steps, measured["steps"] = _steps_of_tokens(trial, trial.settings.budget_tokens)
    assert steps is not None, "settings say how long to train"
    trial.model.zero_grad(set_to_none=True)
    validate_every = trial.settings.validate_every or max(1, steps // validations)
    decided = {
        "precision": precision,
        "threads": threads,
        "steps": steps,
        "validate_every": validate_every,
        "save_every": trial.settings.save_every or validate_every,
    }
    settings = trial.settings.model_copy(update=decided)
    settings = settings.model_copy(update={"max_nonfinite": settings.nonfinite_limit})
    optimizer = trial.optimizer
    if optimizer.warmup_steps is None:
        optimizer = optimizer.model_copy(update={"warmup_steps": round(optimizer.warmup_fraction * steps)})
    return Decided(settings, optimizer, measured, costs)


def _faster_precision(trial: Trial) -> tuple[Precision, str]:
    batch = trial.batch(min(_TRIAL_TOKENS, trial.settings.micro_batch_tokens))
    fp32 = _seconds_per_batch(trial.updater("fp32"), batch)
    bf16 = _seconds_per_batch(trial.updater("bf16"), batch)
    reason = f"a trial batch takes {fp32:.3g} s in fp32, {bf16:.3g} s in bf16"
    return ("bf16" if bf16 < _WORTH_IT * fp32 else "fp32"), reason


def _faster_threads(trial: Trial, precision: Precision) -> tuple[int, str]:
    """All of torch's threads or half of them (those of one processor core may be in each other's way)."""
    most = torch.get_num_threads()
    if most == 1 or trial.model.device.type != "cpu":
        return most, ""
    batch = trial.batch(min(_TRIAL_TOKENS, trial.settings.micro_batch_tokens))
    updater = trial.updater(precision)
    all_of_them = _seconds_per_batch(updater, batch)
    torch.set_num_threads(most // 2)
    half = _seconds_per_batch(updater, batch)
    reason = f"a trial batch takes {all_of_them:.3g} s on {most}, {half:.3g} s on {most // 2}"
    return (most // 2 if half < _WORTH_IT * all_of_them else most), reason


def _seconds_per_batch(updater: Updater, batch: Batch) -> float:
    """Least time of a few runs, after one that warms up; a slow one counts at once."""
    normalizers = summed_counts(updater.objective, [batch])
    seconds: list[float] = []
    while len(seconds) < 4 and sum(seconds) < _TRIAL_SECONDS:
        seconds.append(_timed(updater.device, lambda: updater.forward_backward(batch, normalizers, 0, 0)))
    return min(seconds[1:] or seconds)


def _timed(device: torch.device, work: Callable[[], object]) -> float:
    _wait(device)
    start = time.monotonic()
    work()
    _wait(device)
    return time.monotonic() - start


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def peak_flops(device: torch.device, precision: Precision) -> tuple[float, str]:
    """Operations a second that the device could do, and where the number comes from.

    A known GPU's is its bfloat16 peak, whatever the run's precision; of everything else a matrix product in the run's
    precision is timed, on the threads that torch has now.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        for known, peak in _PEAKS.items():
            if known in name:
                return peak, f"{peak / 1e12:g} TFLOP/s, the bfloat16 peak of {name}"
    size = _PRODUCT_SIZES.get(device.type, 1024)
    one = torch.ones(
        size, size, device=device, dtype=torch.bfloat16 if precision == "bf16" else torch.float32
    )
    seconds = min(_timed(device, lambda: one @ one) for _ in range(8))
    rate = 2 * size**3 / seconds
    return rate, f"a product of {size} x {size} matrices in {precision} runs at {rate / 1e9:.3g} GFLOP/s"


def _steps_of_tokens(trial: Trial, tokens: int) -> tuple[int, str]:
    """Steps that read so many real tokens, to the nearest one: counted, or by the mean of many."""
    sampler = trial.data.sampler(trial.settings)
    steps, read = 0, 0
    while steps < _COUNTED_STEPS or read < _COUNTED_TOKENS:
        more = sampler.next_step().tokens
        if read + more / 2 > tokens and steps:
            break
        steps, read = steps + 1, read + more
    mean = read / steps
    if read + mean / 2 < tokens:
        steps = round(tokens / mean)
    return steps, f"a step reads {mean:.6g} tokens"


def _steps_in_budget(trial: Trial, precision: Precision) -> tuple[int, int, Costs, str]:
    """As many steps as fit the time budget beside validations and saves; the number of those where it is left open."""
    settings, budget = trial.settings, trial.settings.budget_seconds
    assert budget is not None
    updater = trial.updater(precision)
    step = _seconds_per_step(trial, updater, _BUDGET_SHARE * budget)
    validation = _seconds_per_validation(trial, updater)
    size = sum(parameter.numel() * parameter.element_size() for parameter in trial.model.parameters())
    # A checkpoint holds the weights and two moments of each.
    save = 3 * size / _DISK_BYTES_PER_SECOND
    left = budget - (time.monotonic() - trial.started)
    if settings.validate_every is None:
        # So many validations and saves, whatever the number of steps, and the final model.
        most = int(_VALIDATION_SHARE * left / max(validation + save, 1e-9))
        validations = max(1, min(_VALIDATIONS, most))
        steps = int((left - validations * (validation + save) - save) / step)
    else:
        validations = _VALIDATIONS
        share = validation / settings.validate_every + save / (settings.save_every or settings.validate_every)
        steps = int((left - validation - 2 * save) / (step + share))
    if steps < 1:
        raise ValueError(
            f"training.budget_seconds {budget:g} cannot hold one step, which takes about {step:.3g} s here (and a "
            f"validation {validation:.3g} s): give more time, or lower training.batch_tokens or validation_rows"
        )
    found = f"a step takes {step:.3g} s, a validation {validation:.3g} s, a save about {save:.2g} s"
    return steps, validations, Costs(step, validation, save, save), found


def _seconds_per_step(trial: Trial, updater: Updater, most_seconds: float) -> float:
    """Mean time of a step, from micro-batches of the first steps (two warm up) and from bare updates."""
    sampler = trial.data.sampler(trial.settings)
    seconds: list[float] = []
    counts: list[int] = []
    while len(seconds) < 4 or (sum(seconds) < most_seconds and len(counts) < 50):
        micro_batches = sampler.next_step().micro_batches
        counts.append(len(micro_batches))
        for micro_batch in micro_batches:
            if len(seconds) >= 4 and sum(seconds) > most_seconds:
                break
            seconds.append(_timed(updater.device, lambda m=micro_batch: _one_micro_batch(trial, updater, m)))  # type: ignore[misc]
    row = trial.batch(1)
    # A whole update of one row, less that row: the optimizer and what surrounds it.
    updates = [_timed(updater.device, lambda: updater.run(0, [row], learning_rate=0.0)) for _ in range(3)]
    update = max(0.0, min(updates[1:]) - _seconds_per_batch(updater, row))
    return sum(seconds[2:]) / len(seconds[2:]) * sum(counts) / len(counts) + update


def _one_micro_batch(trial: Trial, updater: Updater, micro_batch: MicroBatch) -> None:
    batch = trial.data.collate(trial.objective, micro_batch)
    updater.forward_backward(batch, summed_counts(trial.objective, [batch]), 0, 0)


def _seconds_per_validation(trial: Trial, updater: Updater) -> float:
    """About half of a forward and backward pass for each of its batches."""
    if not trial.validation_batches:
        return 0.0
    batch = trial.validation_batches[len(trial.validation_batches) // 2]
    return _seconds_per_batch(updater, batch) / 2 * len(trial.validation_batches)
