"""What a study's records say: each change against the base, how far apart, and whether that is more than noise.

    comparison = compare_study(Path("study"))         # from study.json and records/ alone
    comparison.rows[1].effects["zero-shot"].verdict    # "better", "worse" or "within noise"

A change's runs are paired with the base's of the same seed and size. Two sorts of noise are told. Over examples: rows
are resampled with replacement, for all runs together, and the mean over seeds of the difference is looked at (95 % of
the draws). Over seeds: each seed's own difference. A difference is ``better`` or ``worse`` when the interval leaves
out 0 *and* every seed has its sign; all else is ``within noise``. One seed alone cannot show how far training itself
varies, and is marked so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from metro_t0.evaluation.aggregate import Interval, bootstrap_draws, task_seed
from metro_t0.evaluation.compare import difference_interval
from metro_t0.evaluation.report.run_view import flatten
from metro_t0.study.record import Record, TaskOutcome, read_record
from metro_t0.study.study_folder import StudyFolder

Verdict = Literal["better", "worse", "within noise"]

# A measure of pretraining is of the same thing in two runs where these settings are the same.
_SAME_TEXT = ("objective.kind", "objective.masking")
_SAME_TARGET = (*_SAME_TEXT, "objective.decoder_target", "objective.lm_positions")
_OF_THE_SAME = {
    "lm_loss": (*_SAME_TARGET, "objective.gate_lm_by_rtd"),
    "lm_accuracy_all": _SAME_TARGET,
    **dict.fromkeys(
        ("rtd_loss", "rtd_recall", "rtd_precision", "rtd_specificity"),
        (*_SAME_TEXT, "objective.rtd_positions"),
    ),
}


@dataclass(frozen=True)
class TaskEffect:
    """One task's part of an effect: accuracies 0-1, means over seeds and templates."""

    task: str
    base: float
    changed: float
    difference: float
    interval: Interval


@dataclass(frozen=True)
class Effect:
    """A change's runs minus the base's, after one finetuning; accuracies 0-1, means over tasks.

    Attributes:
        base: accuracy of the base's runs of these seeds.
        changed: that of the change's runs.
        difference: changed minus base.
        interval: 95 %, over examples.
        by_seed: each seed's difference, in the order of ``seeds``.
        seeds: that both have.
        verdict: see this module's first lines.
        tasks: the same by task.
    """

    base: float
    changed: float
    difference: float
    interval: Interval
    by_seed: list[float]
    seeds: list[int]
    verdict: Verdict
    tasks: list[TaskEffect]

    @property
    def deviation(self) -> float | None:
        """Standard deviation of the seeds' differences; None for one seed."""
        return deviation_of(self.by_seed)


@dataclass(frozen=True)
class Row:
    """The runs of one configuration, all seeds together.

    Attributes:
        size, axis, value: where it stands in the study; axis and value are None for the base.
        equality: what its runs have in common with the base's, where the value is run in several ways.
        seeds: of its runs that are done.
        tokens, flops, seconds: of pretraining, means over its runs.
        pretraining: metric -> mean over runs of the last validation.
        not_comparable: those of them that are of other tokens than the base's, or counted otherwise.
        accuracy: finetuning -> accuracy of each run, in the order of ``seeds``.
        chance: finetuning -> accuracy of a uniform guess.
        effects: finetuning -> the change's effect; empty for the base.
        insides: what the analyses looked at -> measure -> value of each run, in the order of ``seeds``.
    """

    size: str
    axis: str | None
    value: str | None
    equality: str | None
    seeds: list[int]
    tokens: float
    flops: float
    seconds: float
    pretraining: dict[str, float]
    accuracy: dict[str, list[float]]
    chance: dict[str, float]
    effects: dict[str, Effect] = field(default_factory=dict)
    insides: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    not_comparable: list[str] = field(default_factory=list)

    @property
    def label(self) -> str:
        """``masking: spans of 3``, ``objective: span corruption, equal FLOPs``; the base's is ``base``."""
        if self.axis is None:
            return "base"
        equal = {"flops": "FLOPs"}.get(self.equality or "", self.equality)
        return f"{self.axis}: {self.value}" + (f", equal {equal}" if self.equality else "")


@dataclass(frozen=True)
class StudyComparison:
    """A study's outcome.

    Attributes:
        study: as ``study.json`` has it.
        rows: size by size, the base first; configurations without a finished run are left out.
        failed: (run, status, reason).
        unfinished: names of planned runs without a record.
        records: of finished runs by name.
    """

    study: Mapping[str, Any]
    rows: list[Row]
    failed: list[tuple[str, str, str]]
    unfinished: list[str]
    records: dict[str, Record]

    def as_values(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {
            "study": dict(self.study),
            "rows": [
                {
                    **asdict(row),
                    "label": row.label,
                    "effects": {
                        name: {**asdict(effect), "deviation": effect.deviation}
                        for name, effect in row.effects.items()
                    },
                }
                for row in self.rows
            ],
            "failed": [list(one) for one in self.failed],
            "unfinished": self.unfinished,
        }


def compare_study(out: Path) -> StudyComparison:
    """Read a study's folder.

    Raises:
        ValueError: there is no study, or a record is broken or of something else.
    """
    stored = StudyFolder(out).stored() if Path(out).exists() else None
    if stored is None:
        raise ValueError(f"there is no study in {out}: it has no study.json")
    records: dict[str, Record] = {}
    failed: list[tuple[str, str, str]] = []
    unfinished: list[str] = []
    for planned in stored["runs"]:
        record = read_record(Path(out), planned["name"])
        if record is None:
            unfinished.append(planned["name"])
            continue
        if record.values["fingerprint"] != planned["fingerprint"]:
            raise ValueError(f"the record of {planned['name']} in {out} is of another study: remove it")
        if record.status == "done":
            records[record.name] = record
        else:
            failed.append((record.name, record.status, str(record.values["reason"])))
    arms: dict[tuple[Any, ...], list[Record]] = {}
    for planned in stored["runs"]:
        if planned["name"] in records:
            key = tuple(planned[name] for name in ("size", "axis", "value", "equality"))
            arms.setdefault(key, []).append(records[planned["name"]])
    sizes = list(dict.fromkeys(planned["size"] for planned in stored["runs"]))
    rows = [
        _row(key, found, arms.get((size, None, None, None), []))
        for size in sizes
        for key, found in sorted(
            ((key, found) for key, found in arms.items() if key[0] == size),
            key=lambda one: one[0][1] is not None,
        )
    ]
    return StudyComparison(stored, rows, failed, unfinished, records)


def _row(key: Sequence[Any], records: Sequence[Record], bases: Sequence[Record]) -> Row:
    size, axis, value, equality = key
    finetunings = records[0].finetunings()
    changed = {record.values["seed"]: record for record in records}
    base = {record.values["seed"]: record for record in bases}
    seeds = [seed for seed in changed if seed in base]
    effects = {}
    if axis is not None and seeds:
        for name in finetunings:
            effect = effect_of([base[seed] for seed in seeds], [changed[seed] for seed in seeds], name)
            if effect is not None:
                effects[name] = effect
    return Row(
        size,
        axis,
        value,
        equality,
        list(changed),
        tokens=_mean(record.values["pretraining"]["tokens"] for record in records),
        flops=_mean(record.values["flops"] for record in records),
        seconds=_mean(record.values["pretraining"]["seconds"] for record in records),
        pretraining=_means(record.values["pretraining"]["last"] for record in records),
        accuracy={name: [record.accuracy(name) for record in records] for name in finetunings},
        chance={name: _mean(task.chance for task in records[0].tasks(name).values()) for name in finetunings},
        effects=effects,
        insides=_by_run([_insides(record) for record in records]),
        not_comparable=_not_comparable(bases[0], records[0]) if bases else [],
    )


def _not_comparable(base: Record, record: Record) -> list[str]:
    """Metrics of pretraining that two runs do not take of the same tokens in the same way."""
    ours, theirs = (dict(flatten(one.values["config"])) for one in (base, record))

    def differs(settings: Sequence[str]) -> bool:
        changed = {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}
        return any(key == name or key.startswith(f"{name}.") for key in changed for name in settings)

    return [
        metric
        for metric in record.values["pretraining"]["last"]
        if differs(_OF_THE_SAME.get(metric, _SAME_TEXT))
    ]


def effect_of(bases: Sequence[Record], changed: Sequence[Record], finetuning: str) -> Effect | None:
    """The paired comparison of runs, base and changed seed by seed; None where no task was asked of all of them.

    Args:
        bases: records of the base, one a seed.
        changed: of the change, in the same order of seeds.
        finetuning: whose ranking is compared.
    """
    pairs = [
        (one.tasks(finetuning), other.tasks(finetuning)) for one, other in zip(bases, changed, strict=True)
    ]
    common = [task for task in pairs[0][0] if _is_paired(task, pairs)]
    if not common:
        return None
    tasks, draws = [], []
    for task in common:
        first = np.mean([one[task].outcomes for one, _ in pairs], axis=0)
        second = np.mean([other[task].outcomes for _, other in pairs], axis=0)
        drawn = bootstrap_draws(second - first, seed=task_seed(0, task))
        before, after = _accuracy(first), _accuracy(second)
        interval = difference_interval(drawn, after - before, len(first))
        tasks.append(TaskEffect(task, before, after, after - before, interval))
        draws.append(drawn)
    by_seed = [_mean(other[task].accuracy - one[task].accuracy for task in common) for one, other in pairs]
    difference = _mean(task.difference for task in tasks)
    rows = sum(len(pairs[0][0][task].outcomes) for task in common)
    interval = difference_interval(np.mean(draws, axis=0), difference, rows)
    return Effect(
        _mean(task.base for task in tasks),
        _mean(task.changed for task in tasks),
        difference,
        interval,
        by_seed,
        [record.values["seed"] for record in bases],
        verdict_of(interval, by_seed),
        tasks,
    )


def deviation_of(values: Sequence[float]) -> float | None:
    """Standard deviation over seeds; None for one seed."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else None


def verdict_of(interval: Interval, by_seed: Sequence[float]) -> Verdict:
    """What may be said of a difference; see this module's first lines."""
    if interval[0] > 0 and all(one > 0 for one in by_seed):
        return "better"
    if interval[1] < 0 and all(one < 0 for one in by_seed):
        return "worse"
    return "within noise"


def _is_paired(
    task: str, pairs: Iterable[tuple[Mapping[str, TaskOutcome], Mapping[str, TaskOutcome]]]
) -> bool:
    """Whether all runs were asked the same rows under the same templates."""
    found = [tasks[task].outcomes for pair in pairs for tasks in pair if task in tasks]
    asked = [np.isnan(outcomes) for outcomes in found]
    return len(found) == 2 * len(list(pairs)) and all(
        one.shape == asked[0].shape and bool((one == asked[0]).all()) for one in asked
    )


def _accuracy(outcomes: np.ndarray) -> float:
    return float(np.nanmean(outcomes, axis=0).mean())


def _insides(record: Record) -> dict[str, dict[str, float]]:
    """The few numbers of the analyses that a table has room for: what was looked at -> measure -> value."""
    found: dict[str, dict[str, float]] = {}
    for which, analysis in (record.values.get("analysis") or {}).items():
        for source, layers in analysis["activation"].items():
            found[f"units of the {which} model, {source}"] = {
                f"{stack}: {name}": _mean(layer[measure] for layer in layers if layer["stack"] == stack)
                for name, measure in (("firing", "share"), ("Gini", "gini"))
                for stack in ("encoder", "decoder")
                if any(layer["stack"] == stack for layer in layers)
            }
        overall = analysis["sensitivity"]["overall"]
        found[f"sensitivity of the {which} model, {analysis['sensitivity']['loss']} loss"] = {
            "Gini": overall["gini"],
            "half of it lies in": overall["share_for_half"],
        }
    return found


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return math.fsum(found) / len(found)


def _means(records: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Means of the numbers that all have."""
    found = list(records)
    names = [name for name in found[0] if all(isinstance(one.get(name), int | float) for one in found)]
    return {name: _mean(one[name] for one in found) for name in names}


def _by_run(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, list[float]]]:
    """Of what was looked at in all runs, each run's values."""
    return {
        name: {measure: [one[name][measure] for one in runs] for measure in measures}
        for name, measures in runs[0].items()
        if all(name in one for one in runs)
    }
