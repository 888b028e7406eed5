"""A study's folder whose records are made up: outcomes drawn at rates that the test decides."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from metro_t0.study.plan import slug
from metro_t0.study.record import write_record

Rate = Callable[[str | None, str | None, int], float]
"""Of right answers, by axis, value and seed."""

TASKS = {"RTE": (120, 3), "COPA": (60, 2)}
AXES = {"rtd-gate": ("off", ["on"]), "rtd-weight": ("50", ["0", "10", "100"])}


def bits(right: np.ndarray) -> list[str]:
    """``[rows, templates]`` of 0 and 1 as a record keeps them."""
    return [np.packbits(column.astype(bool)).tobytes().hex() for column in right.T]


def outcomes(rate: float, seed: int, task: str) -> np.ndarray:
    """``[rows, templates]``: hard rows are hard for every run, the rest is drawn."""
    rows, templates = TASKS[task]
    hardness = np.random.default_rng(zlib.crc32(task.encode())).uniform(-0.3, 0.3, (rows, 1))
    drawn = np.random.default_rng([seed, zlib.crc32(task.encode())]).uniform(size=(rows, templates))
    return (drawn < np.clip(rate + hardness, 0, 1)).astype(float)


def curve(end: float, seed: int) -> dict[str, list[float]]:
    """A loss that falls and a share that rises."""
    tokens = np.linspace(1e5, 2e6, 20)
    falling = end + 3 * np.exp(-tokens / 5e5) + 0.02 * np.random.default_rng(seed).normal(size=20)
    return {
        "tokens": tokens.tolist(),
        "lm_loss": falling.tolist(),
        "lm_loss_replaced": (falling + 1).tolist(),
        "auxiliary_loss": (falling + 0.4).tolist(),
        "rtd_recall": (0.4 * (1 - np.exp(-tokens / 8e5))).tolist(),
    }


def write_made_study(
    out: Path,
    rate: Rate,
    *,
    seeds: Sequence[int] = (1, 2, 3),
    sizes: Sequence[str] = ("one size",),
    axes: Mapping[str, tuple[str, Sequence[str]]] = AXES,
    failed: Sequence[str] = (),
    unfinished: Sequence[str] = (),
) -> Path:
    """Write ``study.json`` and a record a run.

    Args:
        out: the folder.
        rate: of right answers, by axis, value and seed; None and None is the base.
        seeds: of every configuration.
        sizes: names of networks.
        axes: name -> (what the base does, values).
        failed: names of runs that diverged.
        unfinished: names of runs without a record.
    """
    runs: list[dict[str, Any]] = []
    for seed in seeds:
        for size in sizes:
            for axis, value in [(None, None), *((a, v) for a, (_, values) in axes.items() for v in values)]:
                name = f"{arm_of(size, axis, value)}/seed-{seed}"
                run = {"name": name, "size": size, "axis": axis, "value": value, "seed": seed}
                runs.append({**run, "equality": None, "tokens": 2_000_000, "flops": 3e12, "fingerprint": "f"})
    out.mkdir(parents=True, exist_ok=True)
    study = {
        "name": "made-up",
        "base": "tiny",
        "settings": {},
        "sizes": {size: {} for size in sizes if size != "one size"},
        "axes": {
            axis: {
                "base": base,
                "values": {v: {"settings": {}, "preset": None, "equal": ["tokens"]} for v in values},
            }
            for axis, (base, values) in axes.items()
        },
        "seeds": list(seeds),
        "tokens": 2_000_000,
        "finetunings": {"zero-shot": {}},
    }
    stored = {
        "format_version": 1,
        "study": study,
        "corpus": {"tokens": 30_000_000},
        "budget_seconds": None,
        "costs": {"speeds": {}, "scale": 1.0, "expected_seconds": None},
        "runs": runs,
        "same_as_base": [],
        "environment": {},
    }
    (out / "study.json").write_text(json.dumps(stored))
    for run in runs:
        if run["name"] not in unfinished:
            write_record(out, {**run, **_results(run, rate, diverged=run["name"] in failed)})
    return out


def arm_of(size: str, axis: str | None, value: str | None) -> str:
    """As the plan names it."""
    return f"{slug(size)}/" + ("base" if axis is None else f"{slug(axis)}={slug(value or '')}")


def _results(run: Mapping[str, Any], rate: Rate, *, diverged: bool) -> dict[str, Any]:
    if diverged:
        return {"status": "diverged", "reason": "1 update that is not finite", "seconds_here": 1.0}
    share = rate(run["axis"], run["value"], run["seed"])
    made = curve(5.0 - share, run["seed"])
    last = {name: values[-1] for name, values in made.items() if name != "tokens"}
    tasks = []
    for task, (rows, templates) in TASKS.items():
        right = outcomes(share, run["seed"] * 1000 + zlib.crc32(str(run["value"]).encode()) % 1000, task)
        names = [f"template {number}" for number in range(templates)]
        kept = {
            "task": task,
            "chance": 0.5,
            "templates": names,
            "rows": rows,
            "right": bits(right),
            "asked": None,
        }
        tasks.append(kept)
    training = {"steps": 500, "tokens": 2_000_000, "seconds": 60.0, "tokens_per_second": 33_000.0}
    return {
        "status": "done",
        "reason": None,
        "seconds_here": 90.0,
        "config": {
            "model": {"d_model": 64},
            "objective": {
                "kind": "metro",
                "masking": {"span_length": 1},
                "lm_positions": "masked",
                "gate_lm_by_rtd": run["value"] == "on",
            },
        },
        "pretraining": {**training, "last": last, "curve": made},
        "finetunings": {"zero-shot": {"tasks": tasks}},
        "analysis": {"pretrained": _analysis(share + 0.01 * run["seed"])},
    }


def _analysis(gini: float) -> dict[str, Any]:
    """Of two encoder layers and one of the decoder."""
    layers = [("encoder", 0.2), ("encoder", 0.4), ("decoder", 0.1)]
    return {
        "activation": {"text": [{"stack": stack, "share": share, "gini": gini} for stack, share in layers]},
        "sensitivity": {"loss": "metro", "overall": {"gini": gini, "share_for_half": gini / 10}},
    }
