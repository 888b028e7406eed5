"""The rows of an epoch: capped windows over fixed permutations."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.prompts.mixture import PromptedData, load_mixture


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory, small_tokenizer: Any) -> PromptedData:
    """Task ``large`` of 50 rows under 2 templates, capped at 15 each; task ``small`` of 6 rows under 1."""
    folder = tmp_path_factory.mktemp("mixture")
    for name, rows, templates in (("large", 50, 2), ("small", 6, 1)):
        entries = {str(t): {"jinja": f"{t} the {{{{ text }}}} ||| {{{{ text }}}}"} for t in range(templates)}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({"templates": entries}))
        (folder / f"{name}.csv").write_text("text\n" + "".join(f"boat {row}\n" for row in range(rows)))
    tasks = [{"dataset": n, "train": f"{n}.csv", "templates": f"{n}.yaml"} for n in ("large", "small")]
    (folder / "mix.yaml").write_text(yaml.safe_dump({"cap": 30, "validation_fraction": 0, "tasks": tasks}))
    return load_mixture(folder / "mix.yaml").build(small_tokenizer, folder / "out")


def test_caps_are_shared_by_the_templates_of_a_task(data: PromptedData) -> None:
    assert [template["cap"] for template in data.card["templates"]] == [15, 15, 30]
    taken = Counter(data.train[data.epoch_indices(0, 0)]["template"])
    assert taken == {0: 15, 1: 15, 2: 6}


def test_windows_visit_every_example_before_one_returns(data: PromptedData) -> None:
    template = np.asarray(data.train["template"])
    visits: Counter[int] = Counter()
    for epoch in range(10):
        visits.update(index for index in data.epoch_indices(epoch, 0).tolist() if template[index] == 0)
        assert max(visits.values()) - min(visits[i] for i in np.flatnonzero(template == 0)) <= 1
    assert set(visits.values()) == {3}
    assert len(visits) == 50


@settings(max_examples=20)
@given(st.integers(0, 1000), st.integers(0, 5))
def test_an_epoch_is_a_function_of_epoch_and_seed(data: PromptedData, epoch: int, seed: int) -> None:
    indices = data.epoch_indices(epoch, seed)
    assert indices.dtype == np.int64
    assert indices.tolist() == data.epoch_indices(epoch, seed).tolist()
    assert len(set(indices.tolist())) == len(indices) == 36


def test_seeds_and_epochs_differ(data: PromptedData) -> None:
    first = data.epoch_indices(0, 0).tolist()
    assert first != data.epoch_indices(1, 0).tolist()
    assert sorted(first) != sorted(data.epoch_indices(0, 1).tolist())
    assert first != sorted(first)
    with pytest.raises(ValueError, match="epochs count from 0"):
        data.epoch_indices(-1, 0)


def test_without_a_cap_an_epoch_is_everything(data: PromptedData) -> None:
    card = {**data.card, "templates": [{**entry, "cap": None} for entry in data.card["templates"]]}
    whole = PromptedData(data.path, data.train, data.validation, card)
    assert sorted(whole.epoch_indices(4, 0).tolist()) == list(range(106))


def _weighted(data: PromptedData, **weights: float) -> PromptedData:
    templates = [
        {**entry, "weight": weights.get(entry["task"], entry["weight"])} for entry in data.card["templates"]
    ]
    return PromptedData(data.path, data.train, data.validation, {**data.card, "templates": templates})


def test_a_weight_widens_or_narrows_the_windows(data: PromptedData) -> None:
    weighted = _weighted(data, large=0.4, small=2)
    template = np.asarray(data.train["template"])
    visits: Counter[int] = Counter()
    for epoch in range(5):
        indices = weighted.epoch_indices(epoch, 0)
        assert Counter(template[indices].tolist()) == {0: 6, 1: 6, 2: 12}
        small = Counter(indices[template[indices] == 2].tolist())
        assert set(small.values()) == {2}
        visits.update(indices[template[indices] == 0].tolist())
    assert set(visits.values()) == {1}
    assert len(visits) == 30


def test_a_weight_goes_around_the_end(data: PromptedData) -> None:
    weighted = _weighted(data, small=1.5)
    template = np.asarray(data.train["template"])
    for epoch in range(4):
        indices = weighted.epoch_indices(epoch, 3)
        small = Counter(indices[template[indices] == 2].tolist())
        assert sorted(small.values()) == [1, 1, 1, 2, 2, 2]
    assert all(entry["weight"] == 1.0 for entry in data.card["templates"])


def test_an_empty_validation_part_loads(data: PromptedData) -> None:
    assert len(data.validation) == 0
    assert data.validation.column_names == ["input_ids", "labels", "task", "template"]
    assert data.lengths("validation").shape == (0, 2)
    again = PromptedData.load(data.path)
    assert again.train[3] == data.train[3]
