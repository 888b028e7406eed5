"""The published mixtures: what their files say, and what they come to with the published templates."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path

import pytest

from metro_t0.prompts.mixture import load_mixture
from metro_t0.prompts.mixture_check import check_mixture
from metro_t0.prompts.mixture_plan import plan_mixture
from metro_t0.prompts.published import PUBLISHED, find_templates, published_file


@pytest.mark.parametrize(
    ("name", "datasets", "templates", "rows"),
    [("t0", 38, 313, 10_606_443), ("t0+", 48, 392, 12_937_480), ("t0++", 54, 464, 13_868_800)],
)
def test_published_mixtures_count_what_the_recipe_says(
    real_data: Path, name: str, datasets: int, templates: int, rows: int
) -> None:
    mixture = load_mixture(name, templates=real_data / "promptsource_templates", allow_missing=True)
    plan = plan_mixture(mixture, looked=False)
    assert (plan.datasets, plan.templates, plan.rows_per_epoch) == (datasets, templates, rows)
    assert sum(plan.shares().values()) == pytest.approx(1)
    assert not mixture.check_choices
    assert mixture.cap == 500_000


def test_cap_of_the_original_t0_bounds_large_datasets_only(real_data: Path) -> None:
    mixture = load_mixture("t0", templates=real_data / "promptsource_templates", cap="t0", allow_missing=True)
    plan = plan_mixture(mixture, looked=False)
    assert plan.rows_per_epoch == 17_277_798
    capped = {planned.task.name for planned in plan.tasks if planned.template_cap is not None}
    assert capped == {"amazon_polarity", "yelp_review_full", "wiki_bio", "gigaword", "dbpedia_14"}


def test_facts_are_those_of_the_published_list(real_data: Path) -> None:
    with (real_data / "t0_datasets.csv").open(encoding="utf-8", newline="") as file:
        listed = {
            (row["HF_name"], row["subset"] or None): (row["task_by_convention"], int(row["train_size"]))
            for row in csv.DictReader(file)
            if row["do_train"]
        }
    mixture = load_mixture("t0++", templates=real_data / "promptsource_templates", allow_missing=True)
    tasks = (*mixture.tasks, *mixture.absent)
    assert {(t.dataset, t.subset): (t.facts.kind, t.facts.train_size) for t in tasks} == listed
    for task in tasks:
        assert task.facts.hub_source, task.name
        assert not task.facts.verified
        assert not task.facts.licence or task.facts.licence_source, task.name


def test_what_a_data_root_holds_renders_with_all_its_templates(real_data: Path) -> None:
    mixture = load_mixture(
        "t0++",
        templates=real_data / "promptsource_templates",
        data_root=real_data / "tasks",
        allow_missing=True,
    )
    samples, problems = check_mixture(mixture)
    assert problems == []
    assert len(samples) == sum(len(task.templates) for task in mixture.tasks) > 100
    assert "glue/qqp" in mixture.missing
    assert "kilt_tasks/hotpotqa" in mixture.missing  # validation rows are no rows to train on
    answers = {
        sample.template.name: sample.rendered.target for sample in samples if sample.task.name == "trec"
    }
    # "What sprawling U.S. state ...", "When was Ozzy Osbourne born ?", "How did serfdom develop ..."
    assert answers["fine_grained_LOC"] == "state"
    assert answers["fine_grained_NUM"] == "date"
    assert answers["pick_the_best_descriptor"] == "Description"


def test_missing_datasets_are_all_listed(real_data: Path) -> None:
    with pytest.raises(ValueError, match=r"28 of its 38 datasets are not there") as caught:
        load_mixture("t0", templates=real_data / "promptsource_templates", data_root=real_data / "tasks")
    for name in ("glue/qqp (nothing in", "wiki_qa (only test, validation in", "xsum (only test in"):
        assert name in str(caught.value)
    assert "--allow-missing" in str(caught.value)


def write_distribution(folder: Path) -> Path:
    templates = folder / "promptsource-0.1.0" / "promptsource" / "templates"
    (templates / "boats").mkdir(parents=True)
    (templates / "boats" / "templates.yaml").write_text(
        "dataset: boats\ntemplates:\n  a: {name: plain, jinja: '{{ text }} ||| {{ label }}'}\n",
        encoding="utf-8",
    )
    return templates


def test_templates_are_found_in_their_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METRO_T0_TEMPLATES", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=r"pip download promptsource==0\.1\.0 --no-deps --no-binary :all:"):
        find_templates()
    templates = write_distribution(tmp_path)
    assert find_templates().resolve() == templates.resolve()
    installed = tmp_path / "site" / "promptsource"
    (installed / "templates").mkdir(parents=True)
    (installed / "__init__.py").write_text("raise RuntimeError('imported')\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert find_templates() == installed / "templates"
    monkeypatch.setenv("METRO_T0_TEMPLATES", str(tmp_path / "promptsource-0.1.0"))
    assert find_templates() == templates
    assert find_templates(tmp_path / "other") == tmp_path / "other"


def test_own_dataset_beside_a_published_mixture(real_data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("text,label\na red boat,0\na blue boat,1\n", encoding="utf-8")
    (tmp_path / "t.yaml").write_text(
        "templates:\n  a: {name: plain, jinja: '{{ text }} ||| {{ label }}'}\n", encoding="utf-8"
    )
    (tmp_path / "mix.yaml").write_text(
        "include: [{mixture: t0, weight: 0.5}]\n"
        "tasks: [{dataset: mine, train: mine.csv, templates: t.yaml, weight: 3, cap: 1}]\n",
        encoding="utf-8",
    )
    mixture = load_mixture(
        tmp_path / "mix.yaml", templates=real_data / "promptsource_templates", allow_missing=True
    )
    assert mixture.name == "mix"
    assert not mixture.check_choices  # as the published one says
    plan = plan_mixture(mixture, looked=False)
    by_name = {planned.task.name: planned for planned in plan.tasks}
    assert by_name["imdb"].rows_per_epoch == 11 * 12_500
    assert by_name["mine"].rows_per_epoch == 3
    assert plan.datasets == 39


def test_names_of_no_published_mixture_are_files() -> None:
    assert [published_file(name) is not None for name in (*PUBLISHED, "t1")] == [True, True, True, False]
    with pytest.raises(ValueError, match=r"mixture file t1: cannot be read"):
        load_mixture("t1")


def test_splits_that_begin_with_train_are_trained_on(tmp_path: Path) -> None:
    templates = write_distribution(tmp_path)
    folder = tmp_path / "root" / "boats" / "default"
    folder.mkdir(parents=True)
    for split in ("train_r1", "train_r2", "validation", "test"):
        with gzip.open(folder / f"{split}.jsonl.gz", "wt", encoding="utf-8") as file:
            file.write(json.dumps({"text": split, "label": 0}) + "\n")
    (tmp_path / "mix.yaml").write_text("tasks: [{dataset: boats, hub: null}]\n", encoding="utf-8")
    (task,) = load_mixture(tmp_path / "mix.yaml", templates=templates, data_root=tmp_path / "root").tasks
    assert [row["text"] for row in task.rows("train")] == ["train_r1", "train_r2"]
    assert task.source("train").count() == 2
    assert [row["text"] for row in task.rows("train", 1)] == ["train_r1"]
    assert [row["text"] for row in task.rows("validation")] == ["validation"]
