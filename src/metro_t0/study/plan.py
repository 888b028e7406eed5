"""The runs of a study: every axis changed alone, at each size, for each seed, under each kind of equality.

plan = plan_runs(study, speeds=speeds)           # speeds only where runs of equal time are asked for
[run.name for run in plan.runs]                   # "narrow/base/seed-1", "narrow/masking=spans-of-3/seed-1", ...

The base is run once a size and seed, and every axis is read against it. Runs are ordered seed by seed, the base first,
so that a study that is stopped early still compares something.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from metro_t0.config import MetroSettings, PretrainConfig, load_pretrain_config
from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.objectives.metro import MetroObjective
from metro_t0.study.study_file import Alternative, Equality, Study, as_overrides
from metro_t0.training.plan.flops import flops_per_token

ONE_SIZE = "one size"
"""The size's name where a study names none."""

_SHARE = re.compile(r"(\d+)/(\d+) of ([\w.]+)")
FREE_SETTINGS = ("threads", "device", "trackers", "log_every", "save_every", "keep_last", "keep_every")
"""Settings of training that say how a machine computes, not what: runs of one study may differ in them."""


@dataclass(frozen=True)
class Arm:
    """A configuration that runs are made of: the base or one value of an axis, at one size.

    Attributes:
        size: its name.
        axis: None for the base.
        value: of the axis; None for the base.
        equal: what its runs have in common with the base's.
        config: with the study's first seed and the base's tokens.
    """

    size: str
    axis: str | None
    value: str | None
    equal: tuple[Equality, ...]
    config: PretrainConfig

    @property
    def name(self) -> str:
        """``narrow/base``, ``narrow/masking=spans-of-3``."""
        changed = "base" if self.axis is None else f"{slug(self.axis)}={slug(self.value or '')}"
        return f"{slug(self.size)}/{changed}"


@dataclass(frozen=True)
class PlannedRun:
    """One run of a study.

    Attributes:
        arm: what it is a run of.
        equality: what it has in common with the base's run; None where that is the usual, as many tokens, and the
            value is run in no other way.
        seed: of everything that is drawn.
        tokens: of pretraining.
        flops: of pretraining, by the mathematics of the recipe (``training/plan/flops.py``).
        config: complete.
    """

    arm: Arm
    equality: Equality | None
    seed: int
    tokens: int
    flops: float
    config: PretrainConfig

    @property
    def name(self) -> str:
        """``narrow/objective=span-corruption,equal-flops/seed-2``."""
        equal = f",equal-{self.equality}" if self.equality else ""
        return f"{self.arm.name}{equal}/seed-{self.seed}"


@dataclass(frozen=True)
class Plan:
    """All runs of a study.

    Attributes:
        runs: in the order in which they are made.
        same_as_base: (size, axis, value) of the values that a size's base has already, so that no run is made.
    """

    runs: list[PlannedRun]
    same_as_base: list[tuple[str, str, str]]


def plan_runs(
    study: Study,
    vocabulary: int,
    sentinels: int,
    length: float,
    speeds: Mapping[str, float] | None = None,
) -> Plan:
    """The plan of a study.

    Args:
        study: what is compared.
        vocabulary: ids of the tokenizer.
        sentinels: of them at the end.
        length: tokens of a block, the mean that attention's cost goes by.
        speeds: name of an arm -> tokens a second, for runs of equal time; without it there are none.

    Raises:
        ValueError: a setting does not exist or does not fit, which is said with the axis and value; or a run of equal
            time has no speed to go by.
    """
    every = arms(study)
    bases = {arm.size: arm for arm in every if arm.axis is None}
    flops = {arm.name: _training_flops(arm.config, vocabulary, sentinels, length) for arm in every}
    # A METRO run at another depth of the auxiliary model, say, may turn out as what the base is already.
    same = [arm for arm in every if arm.axis is not None and arm.config == bases[arm.size].config]
    runs: list[PlannedRun] = []
    for seed in study.seeds:
        for arm in every:
            if arm in same:
                continue
            base = bases[arm.size]
            for equality in arm.equal:
                share = 1.0
                if arm is not base and equality == "flops":
                    share = flops[base.name] / flops[arm.name]
                elif arm is not base and equality == "time":
                    if speeds is None:
                        continue
                    share = speeds[arm.name] / speeds[base.name]
                tokens = max(1, round(study.tokens * share))
                training = arm.config.training.model_copy(
                    update={"seed": seed, "budget_tokens": tokens, "steps": None, "budget_seconds": None}
                )
                runs.append(
                    PlannedRun(
                        arm,
                        equality if arm.equal != ("tokens",) else None,
                        seed,
                        tokens,
                        tokens * flops[arm.name],
                        arm.config.model_copy(update={"training": training}),
                    )
                )
    return Plan(runs, [(arm.size, arm.axis or "", arm.value or "") for arm in same])


def arms(study: Study) -> list[Arm]:
    """Every configuration that a study compares, size by size, the base first.

    Raises:
        ValueError: as ``plan_runs``, or two would have one name.
    """
    found: dict[str, Arm] = {}
    for size, shape in (study.sizes or {ONE_SIZE: {}}).items():
        for arm in _arms_of_size(study, size, shape):
            if arm.name in found:
                raise ValueError(
                    f"{study.name}: two values are both called {arm.name} in files' names, where case and signs do not "
                    "count: rename one of them"
                )
            found[arm.name] = arm
    return list(found.values())


def needs_speeds(study: Study) -> list[str]:
    """Names of the arms whose speed decides how long runs of equal time are, their bases among them."""
    found = arms(study)
    timed = [arm for arm in found if "time" in arm.equal and arm.axis is not None]
    sizes = {arm.size for arm in timed}
    return [arm.name for arm in found if arm in timed or (arm.axis is None and arm.size in sizes)]


def fingerprint(run: PlannedRun, facts: Mapping[str, Any]) -> str:
    """A checksum of everything that decides a run's outcome: its configuration, and ``facts`` on data and tasks.

    Settings at their defaults are left out, so that a setting that a later version adds makes no run another one.
    """
    config = run.config.model_dump(mode="json", exclude_defaults=True)
    for name in FREE_SETTINGS:
        config["training"].pop(name, None)
    text = json.dumps({"config": config, "facts": dict(facts)}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def slug(name: str) -> str:
    """A name as part of a path: lower case, everything but letters, digits and dots a hyphen, none at its ends.

    Raises:
        ValueError: nothing remains.
    """
    part = re.sub(r"[^a-z0-9.]+", "-", name.lower()).strip("-.")
    if not part:
        raise ValueError(f"{name!r} cannot be part of a file's name: give it a letter from a to z or a digit")
    return part


def _arms_of_size(study: Study, size: str, shape: Mapping[str, Any]) -> Iterator[Arm]:
    common = {**study.settings, **shape}
    base = _config(study, study.base, common, f"size {size!r}" if study.sizes else "the base")
    yield Arm(size, None, None, ("tokens",), base)
    for axis, described in study.axes.items():
        assert described is not None, "load_study spells every axis out"
        for value, alternative in described.values.items():
            preset = (alternative.preset or study.base).replace("{base}", study.base)
            settings = _resolved(
                _fitting(common, alternative), alternative, base, f"axis {axis!r}, {value!r}"
            )
            config = _config(study, preset, settings, f"axis {axis!r}, {value!r}")
            yield Arm(size, axis, value, tuple(alternative.equal), config)


def _fitting(common: Mapping[str, Any], alternative: Alternative) -> dict[str, Any]:
    """The study's settings for a value; another preset's objective has settings of its own."""
    if alternative.preset is None:
        return dict(common)
    return {key: value for key, value in common.items() if not key.startswith("objective.")}


def _resolved(
    common: dict[str, Any], alternative: Alternative, base: PretrainConfig, where: str
) -> dict[str, Any]:
    """Settings with shares (``1/3 of model.num_layers``) of the base worked out: the nearest whole number, not 0."""
    settings = dict(alternative.settings)
    for key, value in settings.items():
        if not isinstance(value, str) or not (share := _SHARE.fullmatch(value)):
            continue
        found: Any = base.model_dump()
        for part in share[3].split("."):
            found = found.get(part) if isinstance(found, dict) else None
        if not isinstance(found, int) or int(share[2]) == 0:
            raise ValueError(f"{where}: {value!r} is no share of a whole number among the settings")
        settings[key] = max(1, round(Fraction(int(share[1]), int(share[2])) * found))
    return {**common, **settings}


def _config(study: Study, preset: str, settings: Mapping[str, Any], where: str) -> PretrainConfig:
    overrides = as_overrides(settings)
    overrides += [f"training.budget_tokens={study.tokens}", f"training.seed={study.seeds[0]}"]
    try:
        config = load_pretrain_config(preset, overrides=overrides)
        _check(config)
    except ValueError as error:
        raise ValueError(f"{study.name}, {where}: {error}") from None
    return config


def _check(config: PretrainConfig) -> None:
    """What would fail only when the run starts: a METRO objective that its network has no part for."""
    if not isinstance(config.objective, MetroSettings):
        return
    objective = config.objective
    MetroObjective(
        lm_positions=objective.lm_positions,
        rtd_positions=objective.rtd_positions,
        decoder_target=objective.decoder_target,
    )
    if config.model.rtd_head == "none" and (objective.rtd_weight != 0 or objective.gate_lm_by_rtd):
        raise ValueError("model.rtd_head none needs objective.rtd_weight 0 and no gate")


def _training_flops(config: PretrainConfig, vocabulary: int, sentinels: int, length: float) -> float:
    network = MetroT0Config(**config.model.model_dump(), vocab_size=vocabulary, num_sentinel_tokens=sentinels)
    return flops_per_token(network, config.objective, length).training
