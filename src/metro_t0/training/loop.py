"""The one training loop: rows to batches, batches to updates, and now and then a log line, a validation, a checkpoint.

    loop = Loop(model, objective, data, config, folder=run, facts={...}, tokenizer=tokenizer, console=console)
    loop.resume(latest_checkpoint(run / "checkpoints"))      # or not
    loop.run()

It knows no masking (an objective does) and decides nothing that is not in the configuration or a checkpoint: a run
that was killed and resumed goes on to the same losses, bit for bit on a CPU in fp32.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from metro_t0.config import OptimizerSettings, TrainingSettings
from metro_t0.objectives.base import Objective
from metro_t0.training.checkpoint import (
    Saveable,
    load_checkpoint,
    prune,
    save_checkpoint,
    write_best,
)
from metro_t0.training.distributed import Parallel, World
from metro_t0.training.metrics import MetricsFile, TrainingLog
from metro_t0.training.optimizer import build_optimizer, learning_rate_at
from metro_t0.training.progress import TrainingProgress
from metro_t0.training.training_data import TrainingData
from metro_t0.training.update import Updater
from metro_t0.training.validation import Validation


@dataclass
class Standing:
    """How far a run has come: updates done, real tokens read, seconds of training, the best validation so far."""

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None


class Loop:
    """Trains a model.

    Args:
        model: on its device, in training mode.
        objective: what a step means.
        data: rows.
        settings, optimizer_settings: resolved: nothing is left open (see measure.py).
        validation: fixed rows; None = none.
        folder: of the run; ``metrics.jsonl`` and ``checkpoints/`` are written there.
        facts: plain values that every checkpoint carries (the resolved configuration, what the data is).
        tokenizer: saved in every checkpoint.
        title: for the progress bar.
        console: for the progress bar; None = silent.
        world: the processes that train together; ``data`` and ``validation`` are of the same.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        objective: Objective,
        data: TrainingData,
        settings: TrainingSettings,
        optimizer_settings: OptimizerSettings,
        *,
        validation: Validation | None,
        folder: Path,
        facts: Mapping[str, Any],
        tokenizer: Saveable | None = None,
        title: str = "Training",
        console: Console | None = None,
        world: World | None = None,
    ) -> None:
        assert settings.precision != "auto" and settings.steps is not None
        assert optimizer_settings.warmup_steps is not None
        self._model, self._objective, self._data = model, objective, data
        self._settings, self._optimizer_settings = settings, optimizer_settings
        self._steps, self._warmup_steps = settings.steps, optimizer_settings.warmup_steps
        self._precision = settings.precision
        self._validation = validation if validation is not None and validation.batches else None
        self._folder, self._facts, self._tokenizer = folder, dict(facts), tokenizer
        self._title, self._console = title, console
        self._world = world or World()
        self._parallel = Parallel(model, objective, self._world, settings.parallel)
        self._optimizer = build_optimizer(model.parameters(), optimizer_settings)
        self._updater = Updater(
            self._parallel,
            self._optimizer,
            precision=settings.precision,
            seed=settings.seed,
            clip_norm=optimizer_settings.clip_norm,
        )
        self._sampler = data.sampler(settings)
        self._log = TrainingLog(self._updater.watched, settings.nonfinite_limit)
        self.standing = Standing()

    @property
    def checkpoints(self) -> Path:
        """The run's folder of checkpoints."""
        return self._folder / "checkpoints"

    def resume(self, checkpoint: Path) -> None:
        """Go on after a checkpoint.

        Raises:
            ValueError: it is of another shape, or cannot be read.
        """
        state = load_checkpoint(checkpoint, self._model, self._optimizer)
        self.standing = Standing(**state["standing"])
        self._sampler.load_state_dict(state["sampler"])
        self._log.load_state_dict(state["log"])

    def run(self) -> None:
        """All steps that are still to be done.

        Raises:
            NonFiniteError: more updates were skipped than the settings allow; the last checkpoint stands.
        """
        done = self.standing.step
        metrics = None
        if self._world.is_main:
            metrics = MetricsFile(self._folder / "metrics.jsonl", keep_until=done)
        progress = TrainingProgress(self._console, self._title, self._steps, done, self._objective.loss_parts)
        self._model.train()
        self._begun = time.monotonic() - self.standing.seconds
        self._logged_tokens, self._logged_seconds = self.standing.tokens, self.standing.seconds
        self._seconds_aside = 0.0
        try:
            with progress:
                while self.standing.step < self._steps:
                    self._take_step()
                    progress.advance()
                    self._after_step(metrics, progress)
        finally:
            if metrics is not None:
                metrics.close()

    def _take_step(self) -> None:
        rows = self._sampler.next_step()
        batches = [self._data.collate(self._objective, micro) for micro in rows.micro_batches]
        tally = self._updater.run(rows.step, batches, self._rate(rows.step), rows.idle)
        self._log.add(tally, rows.step)
        self.standing.step = rows.step
        self.standing.tokens += rows.tokens

    def _rate(self, step: int) -> float:
        return learning_rate_at(step, self._steps, self._warmup_steps, self._optimizer_settings.learning_rate)

    def _after_step(self, metrics: MetricsFile | None, progress: TrainingProgress) -> None:
        step, last = self.standing.step, self.standing.step == self._steps
        if last or step % self._settings.log_every == 0:
            self._write_log(metrics, progress)
        every = self._settings.validate_every
        best = False
        if self._validation is not None and (last or (every is not None and step % every == 0)):
            best = self._validate(metrics)
        save_every = self._settings.save_every
        if last or best or (save_every is not None and step % save_every == 0):
            self._save()

    def _elapsed(self) -> float:
        self.standing.seconds = time.monotonic() - self._begun
        return self.standing.seconds

    def _write_log(self, metrics: MetricsFile | None, progress: TrainingProgress) -> None:
        values = self._log.read()
        seconds, tokens = self._elapsed(), self.standing.tokens
        # Validations and saves are no training speed.
        training_seconds = seconds - self._logged_seconds - self._seconds_aside
        speed = (tokens - self._logged_tokens) / max(training_seconds, 1e-9)
        self._logged_tokens, self._logged_seconds, self._seconds_aside = tokens, seconds, 0.0
        if metrics is None:
            return
        metrics.append(
            {
                "kind": "train",
                "step": self.standing.step,
                "tokens": tokens,
                "seconds": round(seconds, 3),
                "tokens_per_second": round(speed, 1),
                "learning_rate": self._rate(self.standing.step),
                "skipped_updates": self._log.skipped,
                **values,
            }
        )
        progress.show(values, speed)

    def _validate(self, metrics: MetricsFile | None) -> bool:
        """Validate; True if no validation was better."""
        assert self._validation is not None
        begun = self._elapsed()
        values = self._validation.run(self._parallel, self._precision)
        seconds = round(self._elapsed(), 3)
        where = {"step": self.standing.step, "tokens": self.standing.tokens, "seconds": seconds}
        if metrics is not None:
            metrics.append({"kind": "validation", **where, **values})
        self._seconds_aside += self._elapsed() - begun
        loss, best = values["loss"], self.standing.best_loss
        if loss is None or loss != loss or (best is not None and loss >= best):
            return False
        self.standing.best_step, self.standing.best_loss = self.standing.step, loss
        return True

    def _save(self) -> None:
        self._log.check()
        begun = self._elapsed()
        step, best_step = self.standing.step, self.standing.best_step
        state = {
            "standing": asdict(self.standing),
            "sampler": self._sampler.state_dict(),
            "log": self._log.state_dict(),
            **self._facts,
        }
        with self._world.together():
            if self._world.is_main:
                save_checkpoint(self.checkpoints, step, self._model, self._optimizer, state, self._tokenizer)
                if best_step is not None:
                    write_best(self.checkpoints, best_step)
                prune(self.checkpoints, keep={step} if best_step is None else {step, best_step})
        self._seconds_aside += self._elapsed() - begun
