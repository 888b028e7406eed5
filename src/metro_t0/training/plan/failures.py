"""How often to save when devices fail, and how much of the time then is progress.

    failures = Failures(mean_seconds_between=86400 / 2, save_seconds=30, restart_seconds=300)
    interval = best_interval(failures)                     # Young and Daly
    first_order_goodput(failures, interval)                # by hand
    simulate(failures, interval, work_seconds=10 * 86400, seed=1).goodput

Goodput is the share of the wall-clock time that a run without saves and failures would have needed. Failures come at
exponential times, at any moment: while the run trains, saves or restarts. A failure costs the work since the last save
that was finished, and a restart.

Sources: J. W. Young, A first order approximation to the optimum checkpoint interval, CACM 17 (1974); J. T. Daly, A
higher order estimate of the optimum checkpoint interval for restart dumps, FGCS 22 (2006).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Failures:
    """What fails how often, and what it costs; seconds throughout.

    Attributes:
        mean_seconds_between: failures of any of the run's devices.
        save_seconds: for which training stands still at a save.
        restart_seconds: from a failure to the first step after it, without the steps that are lost.

    Raises:
        ValueError: a time that cannot be.
    """

    mean_seconds_between: float
    save_seconds: float
    restart_seconds: float

    def __post_init__(self) -> None:
        if self.mean_seconds_between <= 0:
            raise ValueError(f"failures must be some time apart, not {self.mean_seconds_between:g} s")
        if self.save_seconds <= 0 or self.restart_seconds < 0:
            raise ValueError("a save must take some time, and a restart cannot take less than none")


@dataclass(frozen=True)
class Outcome:
    """What became of a simulated run.

    Attributes:
        seconds: wall-clock time.
        work_seconds: of it, progress that stayed.
        lost_seconds: of it, progress that failures took back.
        saves, failures: how many were finished, and how many happened.
    """

    seconds: float
    work_seconds: float
    lost_seconds: float
    saves: int
    failures: int

    @property
    def goodput(self) -> float:
        """Share of the time that was progress."""
        return self.work_seconds / self.seconds


def best_interval(failures: Failures) -> float:
    """Seconds of work between two saves that lose least: Young's square root, Daly's terms of higher order.

    Saves that take longer than twice the time between failures leave nothing to choose: then the interval is that time.
    """
    mean, save = failures.mean_seconds_between, failures.save_seconds
    ratio = save / (2.0 * mean)
    if ratio >= 1.0:
        return mean
    return math.sqrt(2.0 * save * mean) * (1.0 + math.sqrt(ratio) / 3.0 + ratio / 9.0) - save


def first_order_goodput(failures: Failures, interval: float) -> float:
    """One save an interval; each failure costs half an interval and a restart; 0 where that is more than there is."""
    save_share = failures.save_seconds / (interval + failures.save_seconds)
    per_failure = (interval + failures.save_seconds) / 2.0 + failures.restart_seconds
    return max(0.0, (1.0 - save_share) * (1.0 - per_failure / failures.mean_seconds_between))


def exact_goodput(failures: Failures, interval: float) -> float:
    """Of a run without end: an interval over the time that it takes on average until it and its save are through.

    With rate r, restart R and segment s = interval + save, that is e^(r R) (e^(r s) - 1) / r (Daly 2006, equation 13).
    """
    mean = failures.mean_seconds_between
    segment = (interval + failures.save_seconds) / mean
    return interval / mean / (math.exp(failures.restart_seconds / mean) * math.expm1(segment))


def simulate(failures: Failures, interval: float, work_seconds: float, seed: int) -> Outcome:
    """Run through so many seconds of work, saved after every interval and at the end.

    Args:
        failures: how often and how expensive.
        interval: seconds of work between two saves.
        work_seconds: of the whole run.
        seed: of the times of failures.

    Raises:
        ValueError: an interval or an amount of work that is not positive, or a run that failures keep from ending.
    """
    if interval <= 0 or work_seconds <= 0:
        raise ValueError("a run needs some work and some time between two saves")
    if (interval + failures.save_seconds + failures.restart_seconds) / failures.mean_seconds_between > 20:
        raise ValueError(
            "the run would never end: failures come faster than it can restart, work and save; save more often"
        )
    rng = np.random.default_rng(seed)
    mean = failures.mean_seconds_between
    now = done = lost = 0.0
    saves = failed = 0
    next_failure = rng.exponential(mean)
    while done < work_seconds:
        work = min(interval, work_seconds - done)
        if next_failure >= now + work + failures.save_seconds:
            now += work + failures.save_seconds
            done += work
            saves += 1
            continue
        lost += min(work, next_failure - now)
        now = next_failure
        failed += 1
        next_failure = now + rng.exponential(mean)
        while next_failure < now + failures.restart_seconds:
            now = next_failure
            failed += 1
            next_failure = now + rng.exponential(mean)
        now += failures.restart_seconds
    return Outcome(now, work_seconds, lost, saves, failed)
