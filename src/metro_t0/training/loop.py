"""The one training loop: rows to batches, batches to updates, and now and then a log line, a validation, a checkpoint.

    loop = Loop(model, objective, data, config, folder=run, facts={...}, tokenizer=tokenizer, console=console)
    loop.resume(newest_whole(run / "checkpoints"))      # or not
    loop.run()

It knows no masking (an objective does) and decides nothing that is not in the configuration or a checkpoint: a run
that was killed and resumed goes on to the same losses, bit for bit on a CPU in fp32.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from transformers import PreTrainedModel

from metro_t0.config import OptimizerSettings, TrainingSettings
from metro_t0.objectives.base import Objective
from metro_t0.training.checkpoint import Saveable, load_checkpoint
from metro_t0.training.distributed import Parallel, World
from metro_t0.training.interruption import Interruption, RunStoppedError
from metro_t0.training.metrics import Meter, TrainingLog, Utilization
from metro_t0.training.optimizer import build_optimizer
from metro_t0.training.prefetch import Prefetcher
from metro_t0.training.progress import TrainingProgress
from metro_t0.training.samples import Samples, points_passed
from metro_t0.training.saving import CheckpointSaver
from metro_t0.training.schedule import Schedule, TimeBudget
from metro_t0.training.trackers import RunMetrics
from metro_t0.training.training_data import TrainingData
from metro_t0.training.update import Updater
from metro_t0.training.validation import Validation


@dataclass
class Standing:
    """How far a run has come: updates done, real tokens read, seconds of training, the best validation so far.

    ``seconds_aside`` are those of ``seconds`` that validations, samples and saves took; ``sample_points`` counts the
    points at which samples have been taken (see samples.py).
    """

    step: int = 0
    tokens: int = 0
    seconds: float = 0.0
    best_step: int | None = None
    best_loss: float | None = None
    seconds_aside: float = 0.0
    sample_points: int = 0


class Loop:
    """Trains a model.

    Args:
        model: on its device, in training mode.
        objective: what a step means.
        data: rows.
        settings, optimizer_settings: resolved: nothing is left open (see measure.py).
        validation: fixed rows; None = none.
        samples: rows to show token by token, at some of the validations; None = none.
        folder: of the run; ``metrics.jsonl``, ``samples.jsonl`` and ``checkpoints/`` are written there.
        facts: plain values that every checkpoint carries (the resolved configuration, what the data is).
        tokenizer: saved in every checkpoint.
        title: for the progress bar.
        console: for the progress bar; None = silent.
        budget: where a time and not ``settings.steps`` ends the run.
        utilization: what MFU is measured by; None = it is not told.
        world: the processes that train together; ``data`` and ``validation`` are of the same.
        clock: seconds, of everything that is timed.
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
        samples: Samples | None = None,
        folder: Path,
        facts: Mapping[str, Any],
        tokenizer: Saveable | None = None,
        title: str = "Training",
        console: Console | None = None,
        budget: TimeBudget | None = None,
        utilization: Utilization | None = None,
        world: World | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        assert settings.precision != "auto" and settings.steps is not None
        assert optimizer_settings.warmup_steps is not None
        self._model, self._objective, self._data = model, objective, data
        self._settings = settings
        self._schedule = Schedule(
            settings.steps, optimizer_settings.warmup_steps, optimizer_settings.learning_rate
        )
        self._budget, self._clock = budget, clock
        self._precision = settings.precision
        self._validation = validation if validation is not None and validation.batches else None
        self._samples = samples if self._validation is not None else None
        self._folder, self._facts, self._tokenizer = folder, dict(facts), tokenizer
        self._title, self._console, self._world = title, console, world or World()
        self._parallel = Parallel(model, objective, self._world, settings.parallel)
        self._optimizer = build_optimizer(model.parameters(), optimizer_settings)
        self._updater = Updater(
            self._parallel,
            self._optimizer,
            precision=settings.precision,
            seed=settings.seed,
            clip_norm=optimizer_settings.clip_norm,
        )
        self._source = Prefetcher(data, objective, data.sampler(settings), self._updater.device)
        self._log = TrainingLog(self._updater.watched, settings.nonfinite_limit)
        self._meter = Meter(self._updater.device, utilization)
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
        self._source.load_state_dict(state["sampler"])
        self._log.load_state_dict(state["log"])
        self._meter.load_state_dict(state["meter"])
        self._schedule.load_state_dict(state["schedule"])
        if self._budget is not None and "budget" in state:
            self._budget.load_state_dict(state["budget"])

    def run(self) -> None:
        """All steps that are still to be done.

        Raises:
            NonFiniteError: more updates were skipped than the settings allow; the last checkpoint stands.
            RunStoppedError: SIGTERM or SIGINT came; the step that was under way is done and saved.
            ValueError: a checkpoint cannot be written; those before it stand.
        """
        done = self.standing.step
        self._begun = self._clock() - self.standing.seconds
        self._continued = (done, self.standing.seconds)
        parts, steps = self._objective.loss_parts, self._schedule.steps
        self._model.train()
        saver = CheckpointSaver(
            self.checkpoints,
            self._model,
            self._optimizer,
            self._tokenizer,
            world=self._world,
            keep_last=self._settings.keep_last,
            keep_every=self._settings.keep_every,
        )
        with (
            # The outermost: a signal ends nothing before the last checkpoint is written.
            Interruption() as interruption,
            RunMetrics(
                self._folder,
                done,
                self._settings.trackers,
                self._facts.get("config"),
                written=self._world.is_main,
                samples=self._samples is not None,
            ) as metrics,
            self._source,
            saver,
            TrainingProgress(
                self._console, self._title, steps, done, parts, self._time_left, self._clock
            ) as progress,
        ):
            if done == 0:
                begun = self._elapsed()
                self._show_samples(metrics)
                self._set_aside(begun)
            while self.standing.step < self._schedule.steps:
                self._take_step()
                progress.advance()
                self._fit_to_budget(metrics)
                self._after_step(metrics, progress, saver)
                if interruption.agreed(self._world) and self.standing.step < self._schedule.steps:
                    self._stop(saver, interruption)

    def _take_step(self) -> None:
        asked = self._clock()
        rows, batches = self._source.next_step()
        waited = self._clock() - asked
        self._meter.add(rows.tokens, *self._data.token_counts(rows), waited)
        tally = self._updater.run(rows.step, batches, self._rate(rows.step), rows.idle)
        self._log.add(tally, rows.step)
        self.standing.step = rows.step
        self.standing.tokens += rows.tokens

    def _rate(self, step: int) -> float:
        return self._schedule.rate(step)

    def _fit_to_budget(self, metrics: RunMetrics) -> None:
        """Where a time ends the run: say anew how many steps that makes, if it is time to."""
        if self._budget is None:
            return
        step, settings = self.standing.step, self._settings
        elapsed = self._elapsed()
        self._budget.passed(step, elapsed - self.standing.seconds_aside)
        if not self._schedule.is_fit_due(step):
            return
        validate_every = settings.validate_every if self._validation is not None else None
        budget = self._budget
        left = self._world.from_main(lambda: budget.steps_left(elapsed, validate_every, settings.save_every))
        if left is not None:
            fit = self._schedule.refit(step, left)
            line = {"kind": "schedule", "step": step, "steps": fit.steps, "progress": fit.progress}
            metrics.append({**line, "seconds": round(elapsed, 3)})

    def _time_left(self) -> float | None:
        elapsed = self._clock() - self._begun
        if self._budget is not None:
            return self._budget.left(elapsed)
        step, (continued, seconds) = self.standing.step, self._continued
        if step == continued:
            return None
        return (elapsed - seconds) / (step - continued) * (self._schedule.steps - step)

    def _is_due(self, every: int | None) -> bool:
        """Whether something that comes every so many steps comes now; just before a timed run's end it waits for it."""
        step = self.standing.step
        if every is None or step % every != 0:
            return False
        return self._budget is None or self._schedule.steps - step >= every / 2

    def _after_step(self, metrics: RunMetrics, progress: TrainingProgress, saver: CheckpointSaver) -> None:
        settings, step = self._settings, self.standing.step
        last = step >= self._schedule.steps
        if last or step % settings.log_every == 0:
            self._write_log(metrics, progress)
            saver.check()
        best = False
        if self._validation is not None and (last or self._is_due(settings.validate_every)):
            best = self._validate(metrics)
        if last or best or self._is_due(settings.save_every) or self._is_due(settings.keep_every):
            self._save(saver)

    def _stop(self, saver: CheckpointSaver, interruption: Interruption) -> None:
        if saver.newest != self.standing.step:
            self._save(saver)
        saver.wait()
        step, steps, signal = self.standing.step, self._schedule.steps, interruption.name
        raise RunStoppedError(f"stopped by {signal} after step {step} of {steps}, saved in {self._folder}")

    def _elapsed(self) -> float:
        self.standing.seconds = self._clock() - self._begun
        return self.standing.seconds

    def _write_log(self, metrics: RunMetrics, progress: TrainingProgress) -> None:
        values = self._log.read()
        seconds = self._elapsed()
        # Validations and saves are no training speed.
        values.update(self._meter.read(seconds - self.standing.seconds_aside))
        metrics.append(
            {
                "kind": "train",
                "step": self.standing.step,
                "tokens": self.standing.tokens,
                "seconds": round(seconds, 3),
                "learning_rate": self._rate(self.standing.step),
                "skipped_updates": self._log.skipped,
                **values,
            }
        )
        progress.show(values, self._schedule.steps)

    def _validate(self, metrics: RunMetrics) -> bool:
        """Validate; True if no validation was better."""
        assert self._validation is not None
        begun = self._elapsed()
        values = self._validation.run(self._parallel, self._precision)
        seconds = round(self._elapsed(), 3)
        where = {"step": self.standing.step, "tokens": self.standing.tokens, "seconds": seconds}
        metrics.append({"kind": "validation", **where, **values})
        self._show_samples(metrics)
        took = self._set_aside(begun)
        if self._budget is not None:
            self._budget.took(validation=took)
        loss, best = values["loss"], self.standing.best_loss
        if loss is None or loss != loss or (best is not None and loss >= best):
            return False
        self.standing.best_step, self.standing.best_loss = self.standing.step, loss
        return True

    def _show_samples(self, metrics: RunMetrics) -> None:
        """Write what happens to the sampled rows now, if the run has passed a point at which it does."""
        standing, passed = self.standing, points_passed(self.standing.step, self._schedule.steps)
        if self._samples is None or passed <= standing.sample_points:
            return
        rows = self._samples.take(self._parallel, self._precision)
        metrics.append_samples({"step": standing.step, "tokens": standing.tokens, "rows": rows})
        standing.sample_points = passed

    def _save(self, saver: CheckpointSaver) -> None:
        # Nothing that is not finite is ever saved: it would replace a checkpoint to go back to.
        self._log.check()
        begun = self._elapsed()
        state = {
            "standing": asdict(self.standing),
            "sampler": self._source.state_dict(),
            "log": self._log.state_dict(),
            "meter": self._meter.state_dict(),
            "schedule": self._schedule.state_dict(),
            **({} if self._budget is None else {"budget": self._budget.state_dict()}),
            **self._facts,
        }
        saver.save(self.standing.step, state, self.standing.best_step)
        took = self._set_aside(begun)
        if self._budget is not None:
            self._budget.took(save=took)

    def _set_aside(self, begun: float) -> float:
        """Seconds since ``begun``, which were no steps."""
        took = self._elapsed() - begun
        self.standing.seconds_aside += took
        return took
