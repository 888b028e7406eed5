"""A study's file: what it may say, and what is said of a mistake in it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from small_studies import write_study

from metro_t0.study.study_file import load_study, shipped_axes, study_names, with_overrides

FINETUNING = {"mixture": "mixture.yaml", "suite": "mixture.yaml"}


def test_shipped_studies_load_with_every_axis_spelled_out() -> None:
    assert study_names() == ["metro-vs-t5", "paper-axes"]
    for name in study_names():
        study = load_study(name)
        assert study.name == name and study.seeds and study.finetunings
        assert all(axis is not None and axis.values for axis in study.axes.values())
    assert set(load_study("paper-axes").axes) == {
        "decoding-target",
        "rtd-head",
        "masking",
        "rtd-gate",
        "auxiliary-depth",
        "rtd-weight",
    }
    [value] = load_study("metro-vs-t5").axes["objective"].values.values()  # type: ignore[union-attr]
    assert value.equal == ["tokens", "flops", "time"]


def test_shipped_axes_say_what_the_base_does() -> None:
    for name, axis in shipped_axes().items():
        assert axis.base and axis.base not in axis.values, name


def test_shipped_finetunings_hold_no_task_that_their_zero_shot_suite_asks() -> None:
    """Held-out tasks are held out: no dataset is in the mixture and in T0's evaluation."""
    for name in study_names():
        mixture = yaml.safe_load(Path(load_study(name).finetunings["zero-shot"].mixture).read_text())
        trained = {(task["dataset"], task.get("subset")) for task in mixture["tasks"]}
        asked = {"super_glue", "anli", "hellaswag", "winogrande", "story_cloze"}
        assert trained and not {dataset for dataset, _ in trained} & asked


def test_files_beside_the_study_are_found_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_study(tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    finetuning = load_study(file.relative_to(tmp_path)).finetunings["weather"]
    assert Path(finetuning.mixture) == (tmp_path / "mine" / "mixture.yaml").resolve()
    assert load_study(file).name == "study"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"axes": {"rtd-gaet": None}}, "there is no axis 'rtd-gaet'; the nearest is 'rtd-gate'"),
        ({"axis": {}}, "the nearest is 'axes'"),
        ({"axes": {"mine": {"base": "as it is", "values": {}}}}, "axes.mine"),
        ({"axes": {"mine": {"values": {"x": {}}}}}, "axes.mine"),
        ({"seeds": []}, "seeds"),
        ({"tokens": 0}, "tokens"),
        ({"axes": {"mine": {"base": "b", "values": {"x": {"equal": ["flop"]}}}}}, "equal"),
        (
            {"axes": {"mine": {"base": "b", "values": {"x": {"equal": ["time", "time"]}}}}},
            "equal: name each once",
        ),
        (
            {"axes": {"mine": {"base": "b", "values": {"x": {"setings": {}}}}}},
            "axes.NAME.values.NAME.settings",
        ),
        ({"seeds": [1, 2, 1]}, "seeds: name each once"),
        ({"seeds": [1, -1]}, "greater than or equal to 0"),
        ({"settings": {"training.steps": 5}}, "training.steps cannot be set in a study: 'tokens:'"),
        (
            {"sizes": {"s": {"training.seed": 5}}},
            "training.seed cannot be set in a study: 'tokens:' and 'seeds:'",
        ),
        ({"finetunings": {"pretrain": FINETUNING}}, "'pretrain' cannot be a folder's name"),
        ({"finetunings": {"../mine": FINETUNING}}, "'../mine' cannot be a folder's name"),
        ({"finetunings": {"mine-ranked": FINETUNING}}, "'mine-ranked' cannot be a folder's name"),
        (
            {"finetunings": {"mine": {**FINETUNING, "settings": {"training.seed": 1}}}},
            "training.seed cannot be set",
        ),
        ({"finetunings": {"mine": {**FINETUNING, "limit": 0}}}, "limit"),
    ],
)
def test_a_mistake_is_named(values: dict[str, object], message: str, tmp_path: Path) -> None:
    file = write_study(tmp_path, **values)
    with pytest.raises(ValueError) as told:
        load_study(file)
    assert message in str(told.value) and "study.yaml" in str(told.value)


def test_an_unknown_study_is_told_with_those_that_there_are() -> None:
    with pytest.raises(ValueError, match=r"there is no study 'paper'.*metro-vs-t5, paper-axes"):
        load_study("paper")


def test_settings_of_training_can_be_given_for_every_run(tmp_path: Path) -> None:
    study = with_overrides(load_study(write_study(tmp_path)), ["training.threads=2"])
    assert study.settings["training.threads"] == 2
    assert study.finetunings["weather"].settings["training.threads"] == 2
    for mistake in ("model.d_model=8", "training.threads"):
        with pytest.raises(ValueError, match="only settings of training"):
            with_overrides(study, [mistake])
    for taken in ("training.seed=3", "training.steps=3"):
        with pytest.raises(ValueError, match="cannot be set in a study"):
            with_overrides(study, [taken])


def test_anchors_and_merges_of_yaml_may_be_used(tmp_path: Path) -> None:
    file = write_study(tmp_path)
    written = yaml.safe_load(file.read_text())
    del written["finetunings"]
    file.write_text(
        yaml.safe_dump(written)
        + "finetunings:\n"
        + "  first: {mixture: mixture.yaml, suite: mixture.yaml, settings: &shared {training.steps: 5}}\n"
        + "  second:\n    mixture: mixture.yaml\n    suite: mixture.yaml\n"
        + "    settings: {<<: *shared, training.batch_tokens: 64}\n"
    )
    finetunings = load_study(file).finetunings
    assert finetunings["first"].settings == {"training.steps": 5}
    assert finetunings["second"].settings == {"training.steps": 5, "training.batch_tokens": 64}


@pytest.mark.parametrize("text", ["", "- a", "base: [", "\x00"])
def test_what_is_no_study_is_told(text: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml"):
        load_study(file)
    with pytest.raises(ValueError, match="there is no study"):
        load_study(tmp_path)
