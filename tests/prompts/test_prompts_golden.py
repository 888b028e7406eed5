"""Renderings against promptsource v0.1.0, and all published templates on real rows."""

from __future__ import annotations

import functools
import gzip
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from metro_t0 import MetroT0Tokenizer
from metro_t0.prompts.mixture import load_mixture
from metro_t0.prompts.sources import LocalFile
from metro_t0.prompts.template import TemplateFolder, load_templates


@functools.cache
def rows(path: Path) -> list[dict[str, Any]]:
    return list(LocalFile(path).rows())


@pytest.fixture(scope="module")
def templates(real_data: Path) -> TemplateFolder:
    return load_templates(real_data / "promptsource_templates")


def test_renderings_are_those_of_promptsource(
    golden: Path, real_data: Path, templates: TemplateFolder
) -> None:
    """Those that draw at random too: they were rendered after ``random.seed(0)``, which seed 0 repeats."""
    checked = 0
    with gzip.open(golden / "prompts" / "rendered.jsonl.gz", "rt", encoding="utf-8") as cases:
        for case in map(json.loads, cases):
            key = case["dataset"] + (f"/{case['subset']}" if case["subset"] else "")
            row = rows(real_data / "tasks" / case["file"])[case["row"]]
            rendered = templates[key][case["template"]].apply(row)
            parts = [rendered.input, rendered.target][: rendered.num_parts]
            assert (parts, rendered.answer_choices) == (case["parts"], case["answer_choices"]), (key, case)
            checked += 1
    assert checked > 300


def test_every_template_compiles(templates: TemplateFolder) -> None:
    everything = [template for key in templates for template in templates[key].values()]
    for template in everything:
        template.check()
    assert len(templates) == 75
    assert len(everything) == 626


def test_every_template_renders_real_rows(real_data: Path, templates: TemplateFolder) -> None:
    """Strictly: no template misses a column. The rows of trec name theirs as newer versions of it do."""
    seen = 0
    for path in sorted((real_data / "tasks").rglob("*.jsonl.gz")):
        key = path.relative_to(real_data / "tasks").parent.as_posix().removesuffix("/default")
        if key not in templates or key == "trec":
            continue
        for template in templates[key].values():
            for row in itertools.islice(LocalFile(path).rows(), 3):
                seen += template.apply(row, strict=True).num_parts == 2
    assert seen > 1000


def test_built_rows_are_what_the_published_vocabulary_gives(
    tmp_path: Path, real_data: Path, templates: TemplateFolder
) -> None:
    tokenizer = MetroT0Tokenizer.from_pretrained(real_data / "vocab" / "vocab_32k")
    task = {"dataset": "super_glue/rte", "train": {"split": "validation"}, "use": ["can we infer"]}
    (tmp_path / "mix.yaml").write_text(yaml.safe_dump({"tasks": [task], "validation_fraction": 0}))
    mixture = load_mixture(
        tmp_path / "mix.yaml",
        templates=real_data / "promptsource_templates",
        data_root=real_data / "tasks",
    )
    data = mixture.build(tokenizer, tmp_path / "out", max_input_length=100)
    assert data.card["totals"]["train"]["truncated_inputs"] > 0
    template = templates["super_glue/rte"]["can we infer"]
    pairs = list(zip(mixture.tasks[0].rows(), data.train, strict=True))
    assert len(pairs) == 277
    for row, built in pairs:
        rendered = template.apply(row)
        expected = tokenizer(rendered.input, truncation=True, max_length=100).input_ids
        assert built["input_ids"] == expected
        assert built["labels"] == tokenizer(rendered.target).input_ids[1:]
