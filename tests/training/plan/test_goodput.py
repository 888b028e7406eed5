"""A run that is really killed at random times loses the steps since its last save, and nothing else."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest
from small_runs import losses

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "goodput.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("goodput", SCRIPT)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["goodput"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_killed_runs_lose_what_was_not_saved(tmp_path: Path) -> None:
    goodput = script()
    steps, save_every = 400, 25
    corpus = goodput.prepare(tmp_path)
    whole = goodput.train(corpus, tmp_path / "whole", steps, save_every)
    assert (whole.kills, whole.lost_steps, len(whole.launches)) == (0, 0, 1)
    killed = goodput.train(
        corpus, tmp_path / "killed", steps, save_every, mean_seconds=12.0, most_kills=2, seed=3
    )
    assert 1 <= killed.kills <= 2 and len(killed.launches) == killed.kills + 1
    for before, after in zip(killed.launches, killed.launches[1:], strict=False):
        assert after.began == before.saved
    for launch in killed.launches:
        assert launch.saved % save_every == 0 or launch.saved == steps
        # A save counts once it is written, and the next one waits for it: with a slow disk that is an
        # interval for what was being written when the kill came, and an interval for what followed.
        assert 0 <= launch.lost <= 2 * save_every
    done = sum(launch.logged - launch.began for launch in killed.launches)
    assert done == steps + killed.lost_steps
    assert killed.launches[-1].logged == steps
    # Failures change how long it takes, not what comes out.
    assert losses(tmp_path / "killed") == losses(tmp_path / "whole")
