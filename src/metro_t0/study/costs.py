"""What a study's runs cost on this machine, measured once when it starts, and how a short budget shrinks them.

costs = measured_costs(study, data, budget_seconds=14_400, vocabulary=4608, sentinels=512, length=115.0)
costs.speeds["narrow/base"]              # tokens a second of pretraining
costs.shortened(study)                   # the study with fewer tokens, updates and rows, where the budget is short

Runs of equal time go by these speeds, so that all processes and all calls make the same runs. They are measured in
turn, several times over, and the medians count: other work on the machine then slows all of them.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from metro_t0.config import PretrainConfig
from metro_t0.evaluation.records import read_run
from metro_t0.settings import Settings
from metro_t0.study.plan import arms, needs_speeds, plan_runs
from metro_t0.study.study_file import Finetuning, Study
from metro_t0.training.run import pretrain

if TYPE_CHECKING:
    from rich.console import Console

_ROUNDS = 3
_STEPS = 12
# Seconds that a stage takes beside its updates and prompts: opening, measuring, saving. A run has one stage to
# pretrain, two a finetuning, one to look inside.
_STAGE_SECONDS = 4.0
# A prompt with its answers, in tokens of training: a forward pass is a third of an update.
_PROMPT_TOKENS = 60
_PROMPTS_A_ROW = 8
_FEWEST_ROWS = 10
# Of a task, where no limit is given.
_ROWS = 1000


class Costs(Settings):
    """Measured facts; plain values, as ``study.json`` keeps them.

    Attributes:
        speeds: name of an arm -> tokens a second of pretraining.
        scale: share of the study's tokens, updates and rows that fits the budget, at most 1.
        expected_seconds: of the whole study after that, one process.
    """

    speeds: dict[str, float]
    scale: float
    expected_seconds: float | None

    def shortened(self, study: Study) -> Study:
        """The study at this scale."""
        if self.scale == 1.0:
            return study
        return study.model_copy(
            update={
                "tokens": max(1, round(study.tokens * self.scale)),
                "finetunings": {name: _shortened(one, self.scale) for name, one in study.finetunings.items()},
            }
        )


def measured_costs(
    study: Study,
    data: Path,
    *,
    budget_seconds: float | None,
    vocabulary: int,
    sentinels: int,
    length: float,
    console: Console | None = None,
) -> Costs:
    """Measure, if anything depends on it.

    Raises:
        ValueError: the budget is too short for even one update a run, or a configuration does not fit the data.
    """
    every = {arm.name: arm for arm in arms(study)}
    wanted = needs_speeds(study)
    if budget_seconds is not None:
        wanted = list(dict.fromkeys([*wanted, *(name for name, arm in every.items() if arm.axis is None)]))
    if not wanted:
        return Costs(speeds={}, scale=1.0, expected_seconds=None)
    found: dict[str, list[float]] = {name: [] for name in wanted}
    for number in range(_ROUNDS):
        for name in wanted:
            if console is not None:
                console.print(f"Measuring {name}, {number + 1} of {_ROUNDS}", highlight=False)
            found[name].append(_tokens_per_second(every[name].config, data))
    speeds = {name: round(statistics.median(values), 1) for name, values in found.items()}
    if budget_seconds is None:
        return Costs(speeds=speeds, scale=1.0, expected_seconds=None)
    bases = {arm.size: arm for arm in every.values() if arm.axis is None}
    plan = plan_runs(study, vocabulary, sentinels, length, speeds=speeds)
    per_base_flop = {}
    for run in plan.runs:
        if run.arm.axis is None:
            per_base_flop[run.arm.size] = run.tokens / speeds[bases[run.arm.size].name] / run.flops
    stages = len(plan.runs) * (2 + 2 * len(study.finetunings)) * _STAGE_SECONDS
    working = 0.0
    for run in plan.runs:
        speed = speeds[bases[run.arm.size].name]
        working += run.flops * per_base_flop[run.arm.size]
        working += sum(_finetuning_tokens(one) / speed for one in study.finetunings.values())
    left = budget_seconds - stages
    if left <= 0.02 * working:
        least = stages + 0.02 * working
        raise ValueError(
            f"a budget of {budget_seconds:.0f} s is too short for the {len(plan.runs)} runs of {study.name}: give at "
            f"least {least:.0f} s, or fewer axes, seeds or sizes"
        )
    scale = min(1.0, left / working)
    return Costs(speeds=speeds, scale=scale, expected_seconds=round(stages + scale * working, 1))


def _tokens_per_second(config: PretrainConfig, data: Path) -> float:
    """Of a few real updates, the first ones left out."""
    short = config.training.model_copy(
        update={
            "steps": _STEPS,
            "budget_tokens": None,
            "log_every": _STEPS // 3,
            "validate_every": _STEPS,
            "save_every": _STEPS,
            "validation_rows": 8,
            "trackers": (),
            # One that diverges says so when it is run, as one of many.
            "max_nonfinite": _STEPS,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        run = pretrain(config.model_copy(update={"training": short}), data, Path(folder) / "run")
        _, speeds = read_run(run).curve("train", "tokens_per_second")
    return float(max(speeds[1:]))


def _finetuning_tokens(finetuning: Finetuning) -> float:
    """Its training and ranking, in tokens of training."""
    training = finetuning.config(0).training
    tokens = float(training.budget_tokens or (training.steps or 0) * training.batch_tokens)
    return tokens + (finetuning.limit or _ROWS) * _PROMPTS_A_ROW * _PROMPT_TOKENS


def _shortened(finetuning: Finetuning, scale: float) -> Finetuning:
    training = finetuning.config(0).training
    lengths = {
        f"training.{name}": max(1, round(value * scale))
        for name, value in (("steps", training.steps), ("budget_tokens", training.budget_tokens))
        if value is not None
    }
    rows = finetuning.limit or _ROWS
    limit = min(rows, max(_FEWEST_ROWS, round(rows * scale)))
    return finetuning.model_copy(update={"settings": {**finetuning.settings, **lengths}, "limit": limit})
