"""Plans: each run differs from its base in one thing, and equal means equal."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_studies import SMALL, write_study

from metro_t0.modeling.configuration import MetroT0Config
from metro_t0.study.plan import PlannedRun, arms, fingerprint, needs_speeds, plan_runs, slug
from metro_t0.study.study_file import Finetuning, Study, load_study, shipped_axes
from metro_t0.training.plan.flops import flops_per_token

SHAPE: dict[str, Any] = {"vocabulary": 600, "sentinels": 16, "length": 40.0}


def study_of(**values: Any) -> Study:
    made: dict[str, Any] = {"base": "tiny", "settings": SMALL, "axes": {}, "tokens": 100_000, **values}
    return Study.model_validate({"name": "made", **made})


def flat(values: dict[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {before + key: value}
    return found


def differences(first: PlannedRun, second: PlannedRun) -> set[str]:
    ours, theirs = (flat(run.config.model_dump(mode="json")) for run in (first, second))
    return {key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key)}


SETTINGS = {
    "objective.rtd_weight": st.floats(0, 200),
    "objective.masking.span_length": st.integers(1, 6),
    "model.d_ff": st.integers(8, 64),
    "optimizer.learning_rate": st.floats(1e-5, 1e-2),
}


@settings(max_examples=25, deadline=None)
@given(data=st.data(), seeds=st.lists(st.integers(0, 99), min_size=1, max_size=3, unique=True))
def test_every_run_differs_from_its_base_in_its_axis_alone(data: st.DataObject, seeds: list[int]) -> None:
    keys = data.draw(st.lists(st.sampled_from(sorted(SETTINGS)), min_size=1, unique=True))
    axes = {}
    for key in keys:
        values = data.draw(st.lists(SETTINGS[key], min_size=1, max_size=3, unique=True))
        axes[key] = {"base": "b", "values": {f"v{n}": {"settings": {key: v}} for n, v in enumerate(values)}}
    sizes = data.draw(st.sampled_from([{}, {"a": {}, "b": {"model.num_layers": 2}}]))
    study = study_of(axes=axes, sizes=sizes, seeds=seeds)
    plan = plan_runs(study, **SHAPE)
    bases = {(run.arm.size, run.seed): run for run in plan.runs if run.arm.axis is None}
    assert len(bases) == max(1, len(sizes)) * len(seeds)
    for run in plan.runs:
        base = bases[run.arm.size, run.seed]
        assert differences(run, base) == ({run.arm.axis} if run.arm.axis else set())
        assert run.tokens == study.tokens
    assert len({run.name for run in plan.runs}) == len(plan.runs)
    # Whatever is not made is the base's already, and each seed begins with its base.
    left_out = len(plan.same_as_base) * len(seeds)
    values_in_all = sum(len(axis["values"]) for axis in axes.values())
    assert len(plan.runs) + left_out == len(bases) * (1 + values_in_all)
    order = [run.seed for run in plan.runs]
    assert order == sorted(order, key=seeds.index)
    assert all(next(run for run in plan.runs if run.seed == seed).arm.axis is None for seed in seeds)


@pytest.mark.parametrize("name", sorted(shipped_axes()))
def test_shipped_axes_fit_the_preset_that_they_change(name: str) -> None:
    study = study_of(axes={name: shipped_axes()[name].model_dump()}, settings={})
    plan = plan_runs(study, **SHAPE, speeds={arm.name: 100.0 for arm in arms(study)})
    assert len(plan.runs) > 1 or plan.same_as_base


def test_equal_operations_are_equal_by_the_count_of_the_recipe() -> None:
    study = study_of(axes={"objective": shipped_axes()["objective"].model_dump()})
    speeds = {arm.name: 100.0 * (2 + number) for number, arm in enumerate(arms(study))}
    runs = {run.equality: run for run in plan_runs(study, **SHAPE, speeds=speeds).runs}
    base = runs[None]
    for run in runs.values():
        network = MetroT0Config(**run.config.model.model_dump(), vocab_size=600, num_sentinel_tokens=16)
        assert run.flops == run.tokens * flops_per_token(network, run.config.objective, 40.0).training
    assert runs["tokens"].tokens == base.tokens and runs["tokens"].flops < base.flops
    assert runs["flops"].flops == pytest.approx(base.flops, rel=1e-4)
    assert runs["flops"].tokens > base.tokens
    assert runs["time"].tokens == base.tokens * 3 / 2
    assert all(run.config.training.budget_tokens == run.tokens for run in runs.values())


def test_runs_of_equal_time_wait_for_a_speed() -> None:
    study = study_of(axes={"objective": shipped_axes()["objective"].model_dump()})
    assert [run.equality for run in plan_runs(study, **SHAPE).runs] == [None, "tokens", "flops"]
    assert needs_speeds(study) == ["one-size/base", "one-size/objective=span-corruption"]
    assert needs_speeds(study_of(axes={"rtd-gate": shipped_axes()["rtd-gate"].model_dump()})) == []


def test_shares_of_the_network_are_the_nearest_whole_number_and_at_least_one() -> None:
    def depths(layers: int) -> list[int]:
        study = study_of(
            axes={"auxiliary-depth": shipped_axes()["auxiliary-depth"].model_dump()},
            settings={**SMALL, "model.num_layers": layers, "model.num_auxiliary_layers": 9},
        )
        return [arm.config.model.num_auxiliary_layers for arm in arms(study) if arm.axis]

    assert depths(12) == [2, 4, 6]
    assert depths(4) == [1, 1, 2]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model.d_modle": 8}, "axis 'mine', 'x'.*the nearest is 'model.d_model'"),
        ({"model.rtd_head": "none"}, "model.rtd_head none needs objective.rtd_weight 0"),
        ({"model.d_ff": "1/3 of model.rtd_head"}, "is no share of a whole number"),
        ({"model.d_ff": "1/0 of model.d_model"}, "is no share of a whole number"),
    ],
)
def test_a_value_that_does_not_fit_is_told_with_its_axis(changed: dict[str, Any], message: str) -> None:
    study = study_of(axes={"mine": {"base": "b", "values": {"x": {"settings": changed}}}})
    with pytest.raises(ValueError, match=message):
        plan_runs(study, **SHAPE)


def test_a_fingerprint_knows_what_decides_the_outcome_and_not_how_it_is_computed(tmp_path: Path) -> None:
    def first_print(**changed: Any) -> str:
        study = load_study(write_study(tmp_path, settings=changed))
        return fingerprint(plan_runs(study, **SHAPE).runs[0], {"corpus": 1})

    once = first_print()
    assert first_print(**{"training.log_every": 7}) == once == first_print(**{"training.threads": 2})
    assert first_print(**{"optimizer.learning_rate": 0.1}) != once
    study = load_study(write_study(tmp_path))
    assert fingerprint(plan_runs(study, **SHAPE).runs[0], {"corpus": 2}) != once


@given(st.text(max_size=30))
def test_slugs_are_safe_in_paths(name: str) -> None:
    try:
        made = slug(name)
    except ValueError as told:
        assert not any(sign.isascii() and sign.isalnum() for sign in name.lower())
        assert "give it a letter" in str(told)
        return
    assert made and made == slug(made)
    assert "/" not in made and "_" not in made and made[0] not in ".-" and made[-1] not in ".-"


@given(first=st.text(max_size=8), second=st.text(max_size=8))
def test_two_values_never_share_a_file(first: str, second: str) -> None:
    values = {first: {"settings": {"model.d_ff": 8}}, second: {"settings": {"model.d_ff": 16}}}
    study = study_of(axes={"mine": {"base": "b", "values": values}})
    try:
        names = [arm.name for arm in arms(study)]
    except ValueError as told:
        assert "rename one of them" in str(told) or "give it a letter" in str(told)
    else:
        assert len(set(names)) == 1 + len(values)


def test_a_value_that_is_run_at_equal_operations_alone_says_so() -> None:
    [value] = shipped_axes()["objective"].model_dump()["values"].values()
    axes = {"objective": {"base": "METRO", "values": {"spans": {**value, "equal": ["flops"]}}}}
    assert [run.name for run in plan_runs(study_of(axes=axes), **SHAPE).runs] == [
        "one-size/base/seed-1",
        "one-size/objective=spans,equal-flops/seed-1",
    ]


def test_values_that_the_base_has_already_are_named_and_not_run() -> None:
    same = {"as it is": {}, "said again": {"settings": {"objective.rtd_weight": 50}}}
    axes = {"mine": {"base": "b", "values": {**same, "half": {"settings": {"objective.rtd_weight": 25.0}}}}}
    plan = plan_runs(study_of(axes=axes, seeds=[3, 1]), **SHAPE)
    assert plan.same_as_base == [("one size", "mine", "as it is"), ("one size", "mine", "said again")]
    assert [run.name for run in plan.runs] == [
        f"one-size/{arm}/seed-{seed}" for seed in (3, 1) for arm in ("base", "mine=half")
    ]


@settings(deadline=None)
@given(
    key=st.sampled_from(["optimizer.betas", "optimizer.warmup_steps", "training.trackers"]),
    data=st.data(),
)
def test_settings_arrive_as_they_were_written(key: str, data: st.DataObject) -> None:
    value = data.draw(
        {
            "optimizer.betas": st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)).map(list),
            "optimizer.warmup_steps": st.none() | st.integers(0, 99),
            "training.trackers": st.lists(st.sampled_from(["tensorboard", "wandb"]), max_size=2),
        }[key]
    )
    study = study_of(settings={**SMALL, key: value})
    section, name = key.split(".")
    found = getattr(getattr(plan_runs(study, **SHAPE).runs[0].config, section), name)
    assert (list(found) if isinstance(found, tuple) else found) == value
    finetuning = Finetuning.model_validate({"mixture": "m", "suite": "s", "settings": {key: value}})
    found = getattr(getattr(finetuning.config(7), section), name)
    assert (list(found) if isinstance(found, tuple) else found) == value
    assert finetuning.config(7).training.seed == 7
