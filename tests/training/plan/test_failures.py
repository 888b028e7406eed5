"""The simulation of failures against what is known of it without simulating, and the interval against all others."""

from __future__ import annotations

import numpy as np
import pytest

from metro_t0.training.plan.failures import (
    Failures,
    best_interval,
    exact_goodput,
    first_order_goodput,
    simulate,
)

DAY = 86400.0


def test_without_a_failure_only_saves_cost() -> None:
    outcome = simulate(Failures(1e12, 5.0, 60.0), interval=100.0, work_seconds=1050.0, seed=1)
    assert (outcome.seconds, outcome.saves, outcome.failures) == (1050.0 + 11 * 5.0, 11, 0)
    assert outcome.lost_seconds == 0.0 and outcome.goodput == pytest.approx(1050 / 1105)


def test_bookkeeping_of_a_run_by_hand() -> None:
    """The same failure times, walked through by second instead of by event."""
    failures, interval, work = Failures(40.0, 2.0, 3.0), 10, 200
    outcome = simulate(failures, float(interval), float(work), seed=7)
    rng = np.random.default_rng(7)
    times = np.cumsum(rng.exponential(40.0, 200))
    step, now, done, lost, failed, saves = 1e-3, 0.0, 0.0, 0.0, 0, 0
    pending, restarting, saving, since = list(times), 0.0, 0.0, 0.0
    while done < work - 1e-6:
        now += step
        if now >= pending[0]:
            pending.pop(0)
            failed, lost, restarting, saving, since = failed + 1, lost + since, 3.0, 0.0, 0.0
        elif restarting > 0:
            restarting -= step
        elif saving > 0:
            saving -= step
            if saving <= step / 2:
                done, saves, since, saving = done + since, saves + 1, 0.0, 0.0
        else:
            since += step
            if since >= interval - step / 2:
                saving = 2.0
    assert (outcome.failures, outcome.saves) == (failed, saves)
    assert outcome.seconds == pytest.approx(now, abs=0.1)
    assert outcome.lost_seconds == pytest.approx(lost, abs=0.1)


@pytest.mark.parametrize(
    ("mean", "save", "restart"), [(3600.0, 10.0, 120.0), (600.0, 20.0, 60.0), (300.0, 60.0, 0.0)]
)
def test_simulation_against_the_exact_expectation(mean: float, save: float, restart: float) -> None:
    failures = Failures(mean, save, restart)
    interval = best_interval(failures)
    outcome = simulate(failures, interval, work_seconds=4000 * mean, seed=3)
    assert outcome.goodput == pytest.approx(exact_goodput(failures, interval), rel=0.03)
    assert outcome.failures == pytest.approx(outcome.seconds / mean, rel=0.06)


def test_the_interval_is_the_best_there_is() -> None:
    for mean, save in [(DAY, 10.0), (3600.0, 60.0), (600.0, 60.0)]:
        failures = Failures(mean, save, 120.0)
        best = exact_goodput(failures, best_interval(failures))
        others = best_interval(failures) * np.geomspace(0.2, 5.0, 200)
        assert best >= 0.9995 * max(exact_goodput(failures, float(other)) for other in others)
        assert best > exact_goodput(failures, float(others[0]))
        assert best > exact_goodput(failures, float(others[-1]))


def test_the_first_order_figure_is_close_where_failures_are_rare() -> None:
    rare = Failures(DAY, 20.0, 300.0)
    interval = best_interval(rare)
    assert interval == pytest.approx((2 * 20.0 * DAY) ** 0.5, rel=0.02)
    assert first_order_goodput(rare, interval) == pytest.approx(exact_goodput(rare, interval), abs=0.001)
    assert first_order_goodput(Failures(60.0, 30.0, 300.0), 60.0) == 0.0


def test_the_same_seed_gives_the_same_run() -> None:
    failures = Failures(500.0, 5.0, 20.0)
    assert simulate(failures, 60.0, 1e5, seed=1) == simulate(failures, 60.0, 1e5, seed=1)
    assert simulate(failures, 60.0, 1e5, seed=1) != simulate(failures, 60.0, 1e5, seed=2)


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="some time apart"):
        Failures(0.0, 1.0, 1.0)
    with pytest.raises(ValueError, match="save must take some time"):
        Failures(10.0, 0.0, 1.0)
    with pytest.raises(ValueError, match="never end"):
        simulate(Failures(10.0, 1.0, 1.0), 1000.0, 1e6, seed=1)
    with pytest.raises(ValueError, match="some work"):
        simulate(Failures(10.0, 1.0, 1.0), 0.0, 1e6, seed=1)
