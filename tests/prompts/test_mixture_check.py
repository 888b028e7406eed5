"""Everything that is wrong with a mixture is found at once, with its place; classes of Hub datasets are compared."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import pytest

from metro_t0.prompts.mixture import load_mixture
from metro_t0.prompts.mixture_check import check_mixture, check_online

TEMPLATES = """\
dataset: boats
templates:
  a:
    name: good
    answer_choices: no ||| yes
    jinja: "{{ text }} Good? ||| {{ answer_choices[label] }}"
  b:
    name: broken
    jinja: "{{ text ||| yes"
  c:
    name: column
    jinja: "{{ words }} ||| yes"
  d:
    name: targetless
    jinja: "{{ text }}"
  e:
    name: few choices
    answer_choices: only
    jinja: "{{ text }} ||| {{ answer_choices[label] }}"
"""


@pytest.fixture
def boats(tmp_path: Path) -> Path:
    """A mixture on one table of Parquet files that carries class names, as the Hub's do."""
    (tmp_path / "t.yaml").write_text(TEMPLATES, encoding="utf-8")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])}
    )
    rows = {"text": ["a boat", "a red boat"], "label": [1, 0]}
    (tmp_path / "hub").mkdir()
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "hub" / "train.parquet")
    return tmp_path


def write(folder: Path, **task: Any) -> Path:
    lines = [f"    {key}: {value}" for key, value in task.items()]
    path = folder / "mix.yaml"
    path.write_text(
        "templates: t.yaml\ntasks:\n  - dataset: boats\n" + "\n".join(lines) + "\n", encoding="utf-8"
    )
    return path


def test_all_problems_are_found_with_their_lines(boats: Path) -> None:
    samples, problems = check_mixture(load_mixture(write(boats, train="hub/train.parquet")))
    assert [(sample.template.name, sample.rendered.target) for sample in samples] == [("good", "yes")]
    found = {problem.template.name: str(problem) for problem in problems if problem.template}
    assert set(found) == {"broken", "column", "targetless", "few choices"}
    lines = {"broken": 8, "column": 11, "targetless": 14, "few choices": 17}
    for name, line in lines.items():
        assert found[name].startswith(f"{boats / 't.yaml'}:{line}: boats: "), found[name]
    assert "its columns: label, text" in found["column"]
    assert "gives no example of any of the 2 rows" in found["targetless"]
    assert "answer choice 1 of 1" in found["few choices"]
    assert "train.parquet, row 1" in found["few choices"]


def test_a_hub_dataset_with_other_classes_is_refused(boats: Path) -> None:
    hub = f"{{id: {boats / 'hub'}, train: train}}"
    path = write(boats, hub=hub, use="[good]", labels="{label: [good, bad]}")
    (task,) = load_mixture(path).tasks
    with pytest.raises(
        ValueError, match=r"column 'label' are bad, good, and the mixture's file says good, bad"
    ):
        list(task.rows("train"))
    (task,) = load_mixture(write(boats, hub=hub, use="[good]", labels="{label: [bad, good]}")).tasks
    assert [row["label"] for row in task.rows("train")] == [1, 0]


def test_fewer_choices_than_classes_are_refused_on_load(boats: Path) -> None:
    (task,) = load_mixture(write(boats, hub=f"{{id: {boats / 'hub'}}}", use="[few choices]")).tasks
    with pytest.raises(
        ValueError, match=r"2 classes \(bad, good\), and .*t\.yaml:17: .* has 1 answer choices \(only\)"
    ):
        list(task.rows("train"))


def test_online_tells_what_there_is_and_what_is_needed(boats: Path) -> None:
    path = write(boats, hub=f"{{id: {boats / 'hub'}}}", use="[good]")
    (row,) = check_online(load_mixture(path))
    assert (row.there, row.needed, row.problem) == (("label", "text"), ("label", "text"), "")
    (row,) = check_online(load_mixture(write(boats, hub=f"{{id: {boats / 'hub'}}}", use="[column]")))
    assert row.needed == ("words",)
    assert "uses 'words', which the row does not have" in row.problem
    path = write(boats, hub="null", hub_source="a script only", use="[good]")
    with pytest.raises(ValueError, match=r"boats \(a script only\)"):
        load_mixture(path, allow_missing=True)


def test_rows_are_relabelled_and_renamed(boats: Path, tmp_path: Path) -> None:
    (boats / "rows.csv").write_text("text,new-label\na,0\nb,1\nc,2\n", encoding="utf-8")
    path = write(
        boats, train="rows.csv", use="[good]", rename="{new-label: label}", relabel="{new-label: [1, 0]}"
    )
    (task,) = load_mixture(path).tasks
    rows = task.rows("train")
    assert [next(rows)["label"], next(rows)["label"]] == [1, 0]
    with pytest.raises(
        ValueError, match=r"rows\.csv, row 3: 2 in column 'new-label' is none of its 2 classes"
    ):
        next(rows)
