"""Training runs from end to end.

    run = pretrain(load_pretrain_config("tiny"), Path("prepared"), Path("runs/tiny"), console=Console())
    run = finetune(load_finetune_config("finetune-tiny"), run, Path("mixture.yaml"), Path("runs/prompted"))

Both leave a run directory (see run_directory.py) whose ``model/`` is what ``from_pretrained`` and ``evaluate``
read. A user's mistake is found before the run directory is made.
"""

from __future__ import annotations

import errno
import math
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console

from metro_t0.config import FinetuneConfig, PretrainConfig, TrainingSettings
from metro_t0.data.prepare import PreparedCorpus, vocabulary_checksum
from metro_t0.data.rows import TokenRows
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.objectives.base import Inspectable
from metro_t0.objectives.build import build_objective
from metro_t0.objectives.padding import LENGTH_MULTIPLE
from metro_t0.prompts.mixture import load_mixture
from metro_t0.prompts.prompted_data import PromptedData
from metro_t0.tokenization.inspection import open_tokenizer
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.training.activation_checkpointing import checkpoint_activations
from metro_t0.training.allocator import keep_freed_memory
from metro_t0.training.checkpoint import newest_whole, read_state, steps_saved
from metro_t0.training.compilation import compile_layers
from metro_t0.training.distributed import World, joined
from metro_t0.training.loop import Loop
from metro_t0.training.measure import Trial, decide, peak_flops
from metro_t0.training.metrics import Utilization
from metro_t0.training.plan.flops import flops_per_token
from metro_t0.training.run_directory import RunDirectory, check_unchanged
from metro_t0.training.samples import Samples
from metro_t0.training.schedule import Costs, TimeBudget
from metro_t0.training.starting_point import (
    new_pretraining_model,
    pretrained_model,
    take_weights,
)
from metro_t0.training.trackers import check_installed
from metro_t0.training.training_data import TrainingData
from metro_t0.training.validation import Validation

ConfigType = TypeVar("ConfigType", PretrainConfig, FinetuneConfig)


def pretrain(
    config: PretrainConfig,
    data: Path,
    out: Path,
    *,
    resume: bool = False,
    init_from: Path | None = None,
    console: Console | None = None,
    started: float | None = None,
) -> Path:
    """Train a model on a prepared corpus.

    Args:
        config: what the run is made of.
        data: folder that ``metro-t0 prepare`` made.
        out: run directory to make, or to go on with.
        resume: go on with the run in ``out`` after its newest whole checkpoint; start it where there is none yet.
        init_from: a run or model folder whose weights a run starts from.
        console: for a progress bar and a line on what was measured; None = silent.
        started: ``time.monotonic()`` at which a time budget began; now unless given.

    Returns:
        The run directory.

    Raises:
        ValueError: the data, the configuration, the run directory or the model to start from do not fit.
        NonFiniteError: a ValueError too; see ``training.max_nonfinite``.
        RunStoppedError: SIGTERM or SIGINT came; the run is saved and ``resume`` goes on.
    """
    started = time.monotonic() if started is None else started
    run = RunDirectory(Path(out))
    with joined() as world:
        console = console if world.is_main else None
        resume = _can_resume(run, resume, world, console)
        with world.together():
            config = _settled_config(run, config, resume)
            corpus = PreparedCorpus.load(Path(data))
            tokenizer = open_tokenizer(corpus.tokenizer)
            train, held_out = (TokenRows(part, ("input_ids",)) for part in (corpus.train, corpus.validation))
            rows = TrainingData(train, held_out, world=world)
            _check_lengths(rows, config.model.num_positions, "prepare the corpus with a smaller --max-length")
            model = new_pretraining_model(config, tokenizer)
            if init_from is not None and not (resume and steps_saved(run.checkpoints)):
                take_weights(model, Path(init_from), tokenizer)
        job = _Job(run, model, tokenizer, rows, corpus.card, "Pretraining", started)
        return _train(job, config, resume, console)


def finetune(
    config: FinetuneConfig,
    model: Path,
    mixture: Path,
    out: Path,
    *,
    resume: bool = False,
    console: Console | None = None,
    started: float | None = None,
) -> Path:
    """Finetune a pretrained model on a mixture of prompted tasks.

    Args:
        config: what the run is made of.
        model: a run directory or model folder; its auxiliary model and RTD head are left behind.
        mixture: a mixture's YAML file, which is built into ``OUT/mixture``, or a folder that is built already.
        out: run directory to make, or to go on with.
        resume: go on with the run in ``out`` after its newest whole checkpoint; start it where there is none yet.
        console: for progress bars and a line on what was measured; None = silent.
        started: as ``pretrain`` takes it; building the mixture does not count.

    Returns:
        The run directory.

    Raises:
        ValueError: the model, the mixture, the configuration or the run directory do not fit.
        NonFiniteError: a ValueError too; see ``training.max_nonfinite``.
        RunStoppedError: SIGTERM or SIGINT came; the run is saved and ``resume`` goes on.
    """
    started = time.monotonic() if started is None else started
    run = RunDirectory(Path(out))
    with joined() as world:
        console = console if world.is_main else None
        resume = _can_resume(run, resume, world, console)
        with world.together():
            config = _settled_config(run, config, resume)
            network, tokenizer = pretrained_model(Path(model), config.dropout_rate)
        asked = time.monotonic()
        with _prompted_data(config, tokenizer, Path(mixture), run, resume, world, console) as (data, built):
            started += time.monotonic() - asked
            columns = ("input_ids", "labels")
            rows = TrainingData(
                TokenRows(data.train, columns),
                TokenRows(data.validation, columns),
                epoch_order=lambda epoch: data.epoch_indices(epoch, config.training.seed),
                world=world,
            )
            positions = network.config.num_positions
            with world.together():
                mend = f"set max_input_length and max_target_length to at most {positions}"
                _check_lengths(rows, positions, mend)
            job = _Job(run, network, tokenizer, rows, data.card, "Finetuning", started, built)
            return _train(job, config, resume, console)


@dataclass(frozen=True)
class _Job:
    """A run's parts, whatever its objective.

    ``started`` is when its time budget began (``time.monotonic()``); ``mixture`` is a folder for the run to take in.
    """

    run: RunDirectory
    model: MetroT0ForConditionalGeneration
    tokenizer: MetroT0Tokenizer
    rows: TrainingData
    card: Mapping[str, Any]
    title: str
    started: float
    mixture: Path | None = None


def _can_resume(run: RunDirectory, resume: bool, world: World, console: Console | None) -> bool:
    """Whether there is a run to go on with; one command line so serves the first start and those after it."""
    there = world.from_main(run.config_file.is_file)
    if resume and not there and console is not None:
        console.print(f"There is no run in {run.path} yet: this is its start", highlight=False)
    return resume and there


def _settled_config(run: RunDirectory, config: ConfigType, resume: bool) -> ConfigType:
    """The configuration to train by: as asked, or, on resume, as the run resolved it."""
    check_installed(config.training.trackers)
    if not resume:
        run.check_new()
        return config
    stored = run.stored_config()
    if not isinstance(stored, type(config)):
        raise ValueError(
            f"{run.path} is a {stored.kind} run: go on with it by metro-t0 {stored.kind} --resume"
        )
    check_unchanged(stored, config, run.path)
    return stored


@contextmanager
def _prompted_data(
    config: FinetuneConfig,
    tokenizer: MetroT0Tokenizer,
    mixture: Path,
    run: RunDirectory,
    resume: bool,
    world: World,
    console: Console | None,
) -> Iterator[tuple[PromptedData, Path | None]]:
    """The data, and the folder it was built into if it was: a sibling of the run until the run takes it in."""
    if resume and run.mixture.is_dir():
        with world.together():
            data = PromptedData.load(run.mixture)
        yield data, None
    elif mixture.is_dir():
        with world.together():
            data = PromptedData.load(mixture)
            there, here = data.card.get("vocabulary_size"), len(tokenizer)
            if there != here:
                raise ValueError(
                    f"{mixture} was built with a vocabulary of {there}, the model's is {here}: build it again "
                    "with the model's tokenizer"
                )
        yield data, None
    else:
        token = world.from_main(lambda: secrets.token_hex(4))
        folder = run.path.absolute().with_name(f".{run.path.name}.mixture-{token}")
        try:
            with world.together():
                if world.is_main:
                    load_mixture(mixture).build(
                        tokenizer,
                        folder,
                        max_input_length=config.max_input_length,
                        max_target_length=config.max_target_length,
                        resumable=False,  # the folder's name is drawn: no other run would go on with it
                        console=console,
                    )
            with world.together():
                data = PromptedData.load(folder)
            yield data, folder
        finally:
            if world.is_main:
                shutil.rmtree(folder, ignore_errors=True)


def _check_lengths(rows: TrainingData, positions: int, mend: str) -> None:
    for part in (rows.train, rows.validation):
        longest = int(part.lengths.max(initial=0))
        if longest > positions:
            raise ValueError(f"the data has rows of {longest} tokens, the model takes {positions}: {mend}")


def _train(job: _Job, config: PretrainConfig | FinetuneConfig, resume: bool, console: Console | None) -> Path:
    run = job.run
    threads = torch.get_num_threads()
    try:
        _run_loop(job, config, resume, console)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise ValueError(
            f"{run.path} cannot be written to: {error.strerror}; make room and go on with --resume"
        ) from error
    finally:
        torch.set_num_threads(threads)
    return run.path


def _run_loop(
    job: _Job, config: PretrainConfig | FinetuneConfig, resume: bool, console: Console | None
) -> None:
    run, model, world = job.run, job.model, job.rows.world
    with world.together():
        device = world.device(config.training.device)
        _check_enough_rows(job.rows, config.training.batch_tokens)
    config = config.model_copy(
        update={"training": config.training.model_copy(update={"device": device.type})}
    )
    torch.nn.Module.to(model, device)
    model.train()
    if config.training.activation_checkpointing:
        checkpoint_activations(model)
    if config.training.compile_layers:
        compile_layers(model, lambda line: _warn(console, line))
    if device.type == "cpu":
        keep_freed_memory()
    multiple = 1 if device.type == "cpu" else LENGTH_MULTIPLE
    objective = build_objective(config.objective, model.config, config.training.seed, multiple)
    validation = Validation(
        objective,
        job.rows.validation,
        number=config.training.validation_rows,
        micro_batch_tokens=config.training.micro_batch_tokens,
        seed=config.training.seed,
        world=world,
    )
    samples = None
    if isinstance(objective, Inspectable) and len(job.rows.validation):
        samples = Samples(objective, job.rows.validation, job.tokenizer)
    data_facts = _data_facts(job)
    checkpoint, costs = None, Costs()
    if resume:
        checkpoint = world.from_main(lambda: _checkpoint_to_resume(run, data_facts, console))
    else:
        trial = Trial(
            model, objective, job.rows, config.training, config.optimizer, validation.batches, job.started
        )
        decided = world.from_main(lambda: decide(trial))
        costs, measured = decided.costs, decided.measured
        config = config.model_copy(update={"training": decided.settings, "optimizer": decided.optimizer})
    assert config.training.threads != "auto", "a run's configuration is resolved"
    torch.set_num_threads(world.threads(config.training.threads))
    # On resume told anew: the machine may be another one.
    utilization, peak = world.from_main(lambda: _utilization(job, config, device))
    if not resume:
        measured["peak"] = peak
        if world.is_main:
            run.begin(config, measured, job.card, job.mixture)
        _say(console, measured)
    loop = Loop(
        model,
        objective,
        job.rows,
        config.training,
        config.optimizer,
        validation=validation,
        samples=samples,
        folder=run.path,
        facts={"config": config.model_dump(mode="json"), "data": data_facts},
        tokenizer=job.tokenizer,
        title=job.title,
        console=console,
        budget=_time_budget(config.training, job.started, costs),
        utilization=utilization,
        world=world,
    )
    if checkpoint is not None:
        loop.resume(checkpoint)
    loop.run()
    with world.together():
        if world.is_main and not run.model.exists():
            run.finish(run.checkpoints / f"step-{loop.standing.step}")


def _time_budget(settings: TrainingSettings, started: float, costs: Costs) -> TimeBudget | None:
    if settings.budget_seconds is None:
        return None
    return TimeBudget(settings.budget_seconds, time.monotonic() - started, costs)


def _utilization(
    job: _Job, config: PretrainConfig | FinetuneConfig, device: torch.device
) -> tuple[Utilization, str]:
    """What MFU is measured by, and where the peak comes from."""
    assert config.training.precision != "auto", "a run's configuration is resolved"
    lengths = job.rows.train.lengths.astype("float64")
    shape = lengths.mean(axis=0)
    if len(shape) == 1:
        # Of blocks, how many keys a token attends to on average, which makes the count exact.
        shape = (lengths**2).sum(axis=0) / lengths.sum()
    flops = flops_per_token(job.model.config, config.objective, *shape.tolist())
    peak, how = peak_flops(device, config.training.precision)
    return Utilization(flops.training, peak * job.rows.world.size), how


def _check_enough_rows(rows: TrainingData, batch_tokens: int) -> None:
    """Any number of processes makes the same update, but one without a row would only wait for the others."""
    row_tokens = float(rows.train.lengths.sum(axis=1).mean())
    most = max(1, int(batch_tokens / row_tokens))
    if rows.world.size > most:
        raise ValueError(
            f"training.batch_tokens {batch_tokens} is about {most} {'row' if most == 1 else 'rows'} a step, too few "
            f"for {rows.world.size} processes, each of which takes whole rows: start at most {most}, or set it to at "
            f"least {math.ceil(rows.world.size * row_tokens)}"
        )


def _checkpoint_to_resume(
    run: RunDirectory, facts: Mapping[str, Any], console: Console | None
) -> Path | None:
    checkpoint = newest_whole(run.checkpoints, lambda line: _warn(console, line))
    _check_same_data(checkpoint, facts)
    return checkpoint


def _data_facts(job: _Job) -> dict[str, Any]:
    """What must be the same when a run goes on."""
    return {
        "rows": len(job.rows.train),
        "tokens": int(job.rows.train.lengths.sum(dtype="int64")),
        "vocabulary": vocabulary_checksum(job.tokenizer),
    }


def _check_same_data(checkpoint: Path | None, facts: Mapping[str, Any]) -> None:
    if checkpoint is None:
        return
    stored = read_state(checkpoint)["data"]
    for name, value in facts.items():
        if stored[name] != value:
            raise ValueError(
                f"the run in {checkpoint.parent.parent} was trained on other data ({name}: {stored[name]}, "
                f"now {value}): resume it with its own"
            )


def _say(console: Console | None, measured: Mapping[str, Any]) -> None:
    if console is not None and measured:
        decided = "; ".join(f"{name} {reason}" for name, reason in measured.items())
        console.print(f"Measured here: {decided}", highlight=False)


def _warn(console: Console | None, line: str) -> None:
    if console is not None:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
