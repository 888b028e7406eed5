"""Templates without answer choices, answered by a real small model, scored and kept."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from evaluation_folders import write_lines
from small_models import make_model, make_tokenizer

from metro_t0.evaluation.answers import score_answers
from metro_t0.evaluation.generation import generate_texts
from metro_t0.evaluation.written import (
    TemplateAnswers,
    answer_task,
    read_answers,
    read_template_answers,
    write_answers,
)
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.prompts.mixture import load_mixture
from metro_t0.prompts.tasks import Task
from metro_t0.prompts.template import Template
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

pytest.importorskip("torchmetrics")

WHAT = "what happens"
TEMPLATES = {
    "dataset": "stories",
    "templates": {
        "1": {"name": "what happens", "jinja": "{{ story }} What happens next? ||| {{ ending }}"},
        "2": {"name": "nothing", "jinja": "{% if false %}{{ story }} ||| {{ ending }}{% endif %}"},
    },
}
ROWS = [
    {"story": "The lawyer sold a clock.", "ending": "Her brother painted."},
    {"story": "Two children opened " + "the old engine " * 40, "ending": "It carried."},
    {"story": "A river.", "ending": ""},
    {"story": "My neighbour | ||| carried.", "ending": "yes"},
    {"story": "The committee remembered ü.", "ending": "no"},
]


def named(task: Task, name: str) -> Template:
    return next(template for template in task.templates if template.name == name)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> MetroT0Tokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer: MetroT0Tokenizer) -> MetroT0ForConditionalGeneration:
    return make_model(tokenizer).eval()


@pytest.fixture
def task(tmp_path: Path) -> Task:
    write_lines(tmp_path / "test.jsonl", ROWS)
    (tmp_path / "templates.yaml").write_text(yaml.safe_dump(TEMPLATES))
    entry = {"dataset": "stories", "evaluation": "test.jsonl", "templates": "templates.yaml"}
    (tmp_path / "suite.yaml").write_text(yaml.safe_dump({"name": "tests", "tasks": [entry]}))
    return load_mixture(tmp_path / "suite.yaml").tasks[0]


def test_every_row_is_answered_and_scored(
    task: Task, model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer
) -> None:
    rows = list(task.evaluation_rows())
    answers = answer_task(task, named(task, WHAT), rows, model, tokenizer, max_new_tokens=8, batch_size=2)
    kept = [0, 1, 3, 4]
    assert [item.row for item in answers.items] == kept
    assert [item.target for item in answers.items] == [ROWS[index]["ending"] for index in kept]
    assert [item.prompt for item in answers.items] == [f"{ROWS[i]['story']} What happens next?" for i in kept]
    assert [item.truncated for item in answers.items] == [False, True, False, False]
    assert answers.dropped == {"no target": 1}
    alone = [
        generate_texts(model, tokenizer, [item.prompt], max_new_tokens=8)[0].output for item in answers.items
    ]
    assert [item.output for item in answers.items] == alone
    scores = score_answers(alone, [item.target for item in answers.items])
    assert answers.entry == {
        "task": "stories",
        "dataset": "stories",
        "subset": None,
        "split": "test",
        "template": "what happens",
        "examples": 4,
        "exact_match": scores.exact_match,
        "f1": scores.f1,
        "rouge_l": scores.rouge_l,
    }


def test_answers_that_are_right_score_full(
    task: Task, model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer, tmp_path: Path
) -> None:
    """What the model writes is made the wanted answer of a second round."""
    rows = [row for row in task.evaluation_rows() if row["ending"]]
    first = answer_task(task, named(task, WHAT), rows, model, tokenizer, max_new_tokens=6)
    told = [{**row, "ending": item.output or "?"} for row, item in zip(rows, first.items, strict=True)]
    again = answer_task(task, named(task, WHAT), told, model, tokenizer, max_new_tokens=6)
    assert again.entry["exact_match"] == again.entry["f1"] == 1


def test_a_template_that_gives_nothing_is_an_error(
    task: Task, model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer
) -> None:
    with pytest.raises(ValueError, match=r"stories.*gives nothing to answer: .*\(5\)"):
        answer_task(task, named(task, "nothing"), list(task.evaluation_rows()), model, tokenizer)
    with pytest.raises(ValueError, match="no rows"):
        answer_task(task, named(task, WHAT), [], model, tokenizer)


def test_files_come_back_as_they_were(
    task: Task, model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer, tmp_path: Path
) -> None:
    answers = answer_task(
        task, named(task, WHAT), list(task.evaluation_rows()), model, tokenizer, max_new_tokens=4
    )
    path = write_answers(tmp_path / "generated", answers)
    assert read_template_answers(path) == answers
    assert read_answers(tmp_path / "generated") == [answers]
    assert path.parent.parent == tmp_path / "generated"
    assert read_answers(tmp_path / "nowhere") == []
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match="does not hold what an evaluation wrote"):
        read_answers(tmp_path / "generated")


def test_equal_answers_are_equal_files(tmp_path: Path) -> None:
    answers = TemplateAnswers({"task": "t", "template": "u"}, [])
    one, other = (write_answers(tmp_path / name, answers).read_bytes() for name in ("a", "b"))
    assert one == other
