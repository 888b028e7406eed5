"""The learning rate of every update and the number of them, also where time and not a number ends the run.

    schedule = Schedule(steps=1000, warmup_steps=80, peak=1e-3)
    schedule.rate(step), schedule.steps
    budget = TimeBudget(1200.0, used=3.0, costs=Costs(validation=1.5, save=0.8))
    if schedule.is_fit_due(step):
        schedule.refit(step, budget.steps_left(...))     # the same machine, slower now: fewer steps, steeper decay

Progress is what drives warm-up and decay: it is 0 before the first update and 1 after the last. A fit keeps the
progress that was reached and spreads the rest evenly over the steps that still fit the time, so that the rate never
jumps and ends where the time does. A run of a fixed number of steps is never fitted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from metro_t0.training.optimizer import learning_rate_at

# Steps between fits, as a share of those left: a machine may become twenty times slower and the end is still kept.
_FITS = 20
# What the speed is taken from: the last steps of this share of the budget, but not fewer than four.
_WINDOW_SHARE = 0.05
_WINDOW_STEPS = 4
# learning_rate_at counts whole steps: a fitted run's progress is read off a ruler this long.
_RULER = 10**9
# The final model is the weights alone, a third of a checkpoint; its tokenizer and the disk get the rest.
_FINAL_MODEL = 0.5


@dataclass(frozen=True)
class Fit:
    """After update ``step``, progress goes evenly from ``progress`` to 1, which is one more than update ``steps``."""

    step: int
    progress: float
    steps: int

    def at(self, step: int) -> float:
        """Progress of an update, ``step`` or later."""
        return self.progress + (1.0 - self.progress) * (step - self.step) / (self.steps + 1 - self.step)


class Schedule:
    """Linear warm-up and decay over a number of steps that may be fitted anew.

    Args:
        steps: of the whole run, as planned.
        warmup_steps: of them; a fitted run keeps their share.
        peak: learning rate after the warm-up.
    """

    def __init__(self, steps: int, warmup_steps: int, peak: float) -> None:
        self._planned, self._warmup_steps, self._peak = steps, warmup_steps, peak
        self.fit = Fit(0, 0.0, steps)

    @property
    def steps(self) -> int:
        """Of the whole run, by the last fit."""
        return self.fit.steps

    def rate(self, step: int) -> float:
        """Learning rate of an update, from 1; no earlier than the last fit."""
        if self.fit.step == 0:
            return learning_rate_at(step, self._planned, self._warmup_steps, self._peak)
        warmup = round(_RULER * self._warmup_steps / (self._planned + 1))
        return learning_rate_at(round(_RULER * self.fit.at(step)), _RULER, warmup, self._peak)

    def is_fit_due(self, step: int) -> bool:
        """Whether the time should be looked at after this update: a function of the last fit, not of a clock."""
        return step >= self.fit.step + max(1, (self.fit.steps - self.fit.step) // _FITS)

    def refit(self, step: int, left: int) -> Fit:
        """After update ``step``, ``left`` more are to come; the new fit."""
        self.fit = Fit(step, self.fit.at(step), step + left)
        return self.fit

    def state_dict(self) -> dict[str, Any]:
        """The last fit, as plain values."""
        return asdict(self.fit)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on under a fit that ``state_dict`` gave."""
        self.fit = Fit(**state)


@dataclass(frozen=True)
class Costs:
    """What must be kept of a time budget beside steps, in seconds on a machine that takes ``step`` for one step.

    A machine that becomes slower does so for all of them.

    Attributes:
        step: 0 = not known.
        validation: one.
        save: what a checkpoint keeps training waiting for.
        disk: a checkpoint until it is on the disk, as estimated; the last one is waited for.
    """

    step: float = 0.0
    validation: float = 0.0
    save: float = 0.0
    disk: float = 0.0


class TimeBudget:
    """How many steps still fit into a time.

    Args:
        seconds: the whole budget.
        used: of them already gone when the loop's first step began.
        costs: what validations and saves are expected to take.
    """

    def __init__(self, seconds: float, used: float, costs: Costs) -> None:
        self.seconds, self.used, self.costs = seconds, used, costs
        # (step, seconds of stepping until then), the newest last.
        self._points: deque[tuple[int, float]] = deque()

    def left(self, elapsed: float) -> float:
        """Seconds until the budget ends, ``elapsed`` seconds after the loop's first step began."""
        return self.seconds - self.used - elapsed

    def took(self, *, validation: float | None = None, save: float | None = None) -> None:
        """What a validation or a save really took, in seconds."""
        slowness = self._slowness(self._seconds_per_step())
        if validation is not None:
            self.costs = replace(self.costs, validation=validation / slowness)
        if save is not None:
            self.costs = replace(self.costs, save=save / slowness)

    def passed(self, step: int, stepping: float) -> None:
        """An update is done; ``stepping`` seconds went into steps so far, validations and saves left out."""
        self._points.append((step, stepping))
        oldest = stepping - _WINDOW_SHARE * self.seconds
        while len(self._points) > _WINDOW_STEPS + 1 and self._points[1][1] <= oldest:
            self._points.popleft()

    def steps_left(self, elapsed: float, validate_every: int | None, save_every: int | None) -> int | None:
        """Steps that fit beside the validations and saves among them, the last ones and the final model.

        Returns:
            None while no step has been timed: the first one after a start is not typical.
        """
        each = self._seconds_per_step()
        if each is None:
            return None
        slowness = self._slowness(each)
        validation = self.costs.validation * slowness if validate_every else 0.0
        save = self.costs.save * slowness
        # A validation that is the best yet is saved, whether a save is due or not.
        saves = max(1 / every if every else 0.0 for every in (validate_every, save_every))
        each += (validation / validate_every if validate_every else 0.0) + save * saves
        reserved = validation + max(save, self.costs.disk * slowness) * (1 + _FINAL_MODEL)
        return max(0, int((self.left(elapsed) - reserved) / max(each, 1e-9)))

    def _seconds_per_step(self) -> float | None:
        if len(self._points) < 2:
            return None
        (first, then), (last, now) = self._points[0], self._points[-1]
        return (now - then) / (last - first)

    def _slowness(self, seconds_per_step: float | None) -> float:
        """Times that the machine is slower now than where the costs are from."""
        return seconds_per_step / self.costs.step if seconds_per_step and self.costs.step else 1.0

    def state_dict(self) -> dict[str, Any]:
        """Plain values; the speed is measured anew by whoever goes on."""
        return {"used": self.used, **asdict(self.costs)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self.used, self.costs = state["used"], Costs(**{name: state[name] for name in asdict(self.costs)})
        self._points.clear()
