"""A whole evaluation on small tasks of the tests' own: real templates, a real model, results against plain scoring."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from evaluation_folders import write_lines
from foreign_models import save_foreign_model
from small_models import WORDS, make_model, make_tokenizer, rank_plainly

from metro_t0.evaluation.loading import Precision, load_model
from metro_t0.evaluation.predictions import Prediction, TemplatePredictions, read_predictions
from metro_t0.evaluation.quantization import int8_is_supported
from metro_t0.evaluation.questions import OPEN_ENDED
from metro_t0.evaluation.ranking.rank import rank
from metro_t0.evaluation.results import shortest_entry
from metro_t0.evaluation.suites import EvaluationSettings, evaluate
from metro_t0.evaluation.written import read_answers
from metro_t0.prompts.mixture import load_mixture

TEMPLATES: dict[str, Any] = {
    "dataset": "follows",
    "templates": {
        "1": {
            "name": "plain question",
            "answer_choices": "yes ||| no ||| maybe",
            "jinja": "{{ premise }} Does it follow that {{ hypothesis }}? ||| {{ answer_choices[label] }}",
        },
        "2": {
            "name": "only the sure",
            "answer_choices": "true ||| false",
            "jinja": "{% if label != 2 %}{{ premise }} {{ hypothesis }} ||| {{ answer_choices[label] }}{% endif %}",
        },
        "3": {"name": "open", "jinja": "{{ premise }} What happens next? ||| {{ hypothesis }}"},
        "4": {
            "name": "row's own choices",
            "answer_choices": "{{ options | join('|||') }}",
            "jinja": "{{ premise }} Which? ||| {{ options[0] }}",
        },
    },
}


def rows(count: int) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    words = lambda n: " ".join(rng.choice(WORDS, n))  # noqa: E731
    return [
        {
            "premise": words(6),
            "hypothesis": words(3),
            "label": int(rng.integers(0, 3)),
            "options": list(dict.fromkeys(words(2) for _ in range(2 + index % 3))),
        }
        for index in range(count)
    ]


def write_suite(folder: Path, templates: dict[str, Any] = TEMPLATES, **task: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_lines(folder / "test.jsonl", rows(40))
    (folder / "templates.yaml").write_text(yaml.safe_dump(templates))
    entry = {"dataset": "follows", "evaluation": "test.jsonl", "templates": "templates.yaml"} | task
    suite = folder / "suite.yaml"
    suite.write_text(yaml.safe_dump({"name": "tests", "tasks": [entry]}))
    return suite


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "model"
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    make_model(tokenizer).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_results_are_those_of_plain_scoring(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    returned = evaluate(model_folder.parent, suite, tmp_path / "out", EvaluationSettings(limit=30))
    results = json.loads((tmp_path / "out" / "results.json").read_text())
    assert results == json.loads(json.dumps(returned))
    left = [path.name for path in sorted((tmp_path / "out").iterdir())]
    assert left == ["evaluation.json", "predictions", "report.html", "results.json", "results.md"]
    (task,) = results["tasks"]
    model, tokenizer = load_model(model_folder)
    mixture_task = load_mixture(suite).tasks[0]
    by_name = {template.name: template for template in mixture_task.templates}
    assert [entry["template"] for entry in task["templates"]] == sorted(by_name.keys() - {"open"})
    for entry in task["templates"]:
        rendered = [by_name[entry["template"]].apply(row) for row in mixture_task.evaluation_rows(30)]
        usable = [r for r in rendered if r.input and r.target]
        scores = rank_plainly(
            model, tokenizer, [r.input for r in usable], [r.answer_choices or [] for r in usable]
        )
        hits = [r.answer_choices[int(np.argmax(s))] == r.target for r, s in zip(usable, scores, strict=True)]
        assert entry["accuracy"] == pytest.approx(np.mean(hits))
        assert entry["examples"] == len(usable)
        assert entry["chance"] == pytest.approx(np.mean([1 / len(r.answer_choices) for r in usable]))
        assert entry["interval"][0] <= entry["accuracy"] <= entry["interval"][1]
        assert (entry["dataset"], entry["subset"], entry["split"]) == ("follows", None, "test")
        assert sum(entry["dropped"].values()) == 30 - len(usable)
    assert task["rows"] == 30
    assert task["mean"] == pytest.approx(np.mean([entry["accuracy"] for entry in task["templates"]]))
    assert results["skipped"] == [{"task": "follows", "template": "open", "reason": OPEN_ENDED}]


def test_predictions_can_be_read_and_the_page_written(model_folder: Path, tmp_path: Path) -> None:
    results = evaluate(model_folder, write_suite(tmp_path / "suite"), tmp_path / "out")
    found = read_predictions(tmp_path / "out" / "predictions")
    assert {of.template for of in found} == {"plain question", "only the sure", "row's own choices"}
    by_name = {entry["template"]: entry for entry in results["tasks"][0]["templates"]}
    for of in found:
        assert of.task == "follows" and len(of.items) == by_name[of.template]["examples"]
        assert (
            np.mean([item.prediction == item.gold for item in of.items]) == by_name[of.template]["accuracy"]
        )
        for item in of.items:
            assert len(item.choices) == len(item.log_likelihoods) == len(item.lengths)
            assert item.prediction == int(np.argmax(item.log_likelihoods))
            assert any(word in item.prompt for word in WORDS)
    page = (tmp_path / "out" / "report.html").read_text()
    assert "follows" in page and "Not scored" in page and "plain question" in page


def test_other_scores_stand_beside_the_official_one(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    settings = EvaluationSettings(scoring=("length-normalised", "calibrated"), limit=12)
    results = evaluate(model_folder, suite, tmp_path / "out", settings)
    official = evaluate(model_folder, suite, tmp_path / "official", EvaluationSettings(limit=12))
    assert results["scoring"] == ["official", "length-normalised", "calibrated"]
    assert results["tasks"][0]["mean"] == official["tasks"][0]["mean"]
    model, tokenizer = load_model(model_folder)
    by_name = {entry["template"]: entry for entry in results["tasks"][0]["templates"]}
    for of in read_predictions(tmp_path / "out" / "predictions"):
        hits = {"length-normalised": 0, "calibrated": 0}
        for item in of.items:
            (scores,) = rank_plainly(model, tokenizer, [item.prompt], [item.choices])
            (empty,) = rank_plainly(model, tokenizer, [""], [item.choices])
            lengths = [len(tokenizer(choice)["input_ids"]) - 1 for choice in item.choices]
            hits["length-normalised"] += int(np.argmax(np.divide(scores, lengths))) == item.gold
            hits["calibrated"] += int(np.argmax(np.subtract(scores, empty))) == item.gold
        for name, count in hits.items():
            assert by_name[of.template]["other_scores"][name] == pytest.approx(count / len(of.items))


def test_the_same_suite_gives_the_same_results(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    first, second = (
        evaluate(model_folder, suite, tmp_path / name, EvaluationSettings(seed=3)) for name in ("a", "b")
    )
    for results in (first, second):
        for key in ("seconds", "written", "examples_per_second"):
            results.pop(key)
        results["tasks"][0].pop("seconds")
    assert first == second
    one, other = (read_predictions(tmp_path / name / "predictions") for name in ("a", "b"))
    assert [of.items for of in one] == [of.items for of in other]


def test_long_prompts_are_counted(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite", use=["plain question"])
    results = evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(max_input_length=12))
    assert 0 < results["truncated_prompts"] == results["tasks"][0]["templates"][0]["truncated_prompts"] <= 40


def one_template(jinja: str, choices: str | None = "yes ||| no") -> dict[str, Any]:
    entry = {"name": "it", "jinja": jinja} | ({} if choices is None else {"answer_choices": choices})
    return {"dataset": "follows", "templates": {"1": entry}}


@pytest.mark.parametrize(
    ("templates", "message"),
    [
        (
            one_template("{{ premise }} ||| perhaps"),
            r"'it'.*row 1: the answer 'perhaps' is not among the choices",
        ),
        (one_template("{{ premise }}"), r"gives no example for any of the 40 rows: no target \(40\)"),
        (one_template("{{ premise }} ||| yes", choices=None), "no template has answer choices to rank"),
        (one_template("{{ premises }} ||| yes"), "premises"),
    ],
)
def test_a_broken_template_ends_the_run_and_leaves_nothing(
    model_folder: Path, tmp_path: Path, templates: dict[str, Any], message: str
) -> None:
    suite = write_suite(tmp_path / "suite", templates)
    with pytest.raises(ValueError, match=message):
        evaluate(model_folder, suite, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_other_mistakes(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    with pytest.raises(ValueError, match="limit must be at least 1"):
        evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(limit=0))
    with pytest.raises(ValueError, match="no scoring 'best'; known: official, length-normalised, calibrated"):
        evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(scoring=("best",)))
    with pytest.raises(ValueError, match="shots must be 0 or more"):
        evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(shots=-1))
    with pytest.raises(ValueError, match="no 'shots:' rows"):
        evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(shots=1))
    with pytest.raises(ValueError, match="no model at"):
        evaluate(tmp_path / "nowhere", suite, tmp_path / "out")
    with pytest.raises(ValueError, match=r"holds a config\.json"):
        evaluate(tmp_path, suite, tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "results.json").write_text("{}")
    with pytest.raises(ValueError, match=r"already holds results\.json"):
        evaluate(model_folder, suite, tmp_path / "out")
    assert (tmp_path / "out" / "results.json").read_text() == "{}"


def test_real_tasks_and_templates(golden: Path, real_data: Path, tmp_path: Path) -> None:
    suite = tmp_path / "suite.yaml"
    tasks = [
        {"dataset": name, "validation": {"split": "validation"}, "use": "original-task"}
        for name in ("super_glue/rte", "hellaswag")
    ]
    suite.write_text(yaml.safe_dump({"name": "real", "tasks": tasks}))
    results = evaluate(
        golden / "hf_tiny",
        suite,
        tmp_path / "out",
        EvaluationSettings(limit=8),
        templates=real_data / "promptsource_templates",
        data_root=real_data / "tasks",
    )
    rte, hellaswag = results["tasks"]
    assert (rte["dataset"], rte["subset"], rte["split"], rte["rows"]) == (
        "super_glue",
        "rte",
        "validation",
        8,
    )
    assert rte["chance"] == 0.5 and hellaswag["chance"] == 0.25
    assert results["overall"]["mean"] == pytest.approx((rte["mean"] + hellaswag["mean"]) / 2)


def test_another_kind_of_model_by_the_same_command(tmp_path: Path) -> None:
    save_foreign_model("t5", tmp_path / "t5")
    suite = write_suite(tmp_path / "suite", use=["plain question", "row's own choices"])
    results = evaluate(tmp_path / "t5", suite, tmp_path / "out", EvaluationSettings(limit=10))
    model, tokenizer = load_model(tmp_path / "t5")
    for of in read_predictions(tmp_path / "out" / "predictions"):
        ranked = rank(model, tokenizer, [i.prompt for i in of.items], [i.choices for i in of.items])
        assert [item.prediction for item in of.items] == [result.prediction for result in ranked]
    assert results["prompts"] == 20 and not results["failures"]


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", "bfloat16"), ("int8", "int8")])
def test_rounding_says_what_it_changes(
    model_folder: Path, tmp_path: Path, precision: Precision, dtype: str
) -> None:
    if precision == "int8" and not int8_is_supported():
        pytest.skip("torch without FBGEMM")
    suite = write_suite(tmp_path / "suite")
    precise = evaluate(model_folder, suite, tmp_path / "fp32")
    assert precise["precision"] == {"dtype": "float32", "sample": None, "changed": None}
    half = evaluate(model_folder, suite, tmp_path / precision, EvaluationSettings(precision=precision))
    assert half["precision"]["dtype"] == half["environment"]["precision"] == dtype
    assert half["precision"]["sample"] == half["prompts"] == precise["prompts"]
    pairs = zip(
        *(read_predictions(tmp_path / name / "predictions") for name in ("fp32", precision)), strict=True
    )
    changed = sum(
        a.prediction != b.prediction for x, y in pairs for a, b in zip(x.items, y.items, strict=True)
    )
    assert half["precision"]["changed"] == changed
    assert half["checksums"] == precise["checksums"]


def test_templates_without_choices_are_answered_when_asked(model_folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("torchmetrics")
    suite = write_suite(tmp_path / "suite", use=["open", "plain question"])
    results = evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(generate=True, limit=6))
    (entry,) = results["generated"]
    assert (entry["task"], entry["template"], entry["examples"]) == ("follows", "open", 6)
    assert all(0 <= entry[metric] <= 1 for metric in ("exact_match", "f1", "rouge_l"))
    (answers,) = read_answers(tmp_path / "out" / "generated")
    assert [item.target for item in answers.items] == [row["hypothesis"] for row in rows(40)[:6]]
    assert not results["skipped"] and len(results["tasks"]) == 1
    only_open = write_suite(tmp_path / "only", use=["open"])
    results = evaluate(model_folder, only_open, tmp_path / "open", EvaluationSettings(generate=True, limit=3))
    assert results["overall"] is None and not results["tasks"] and len(results["generated"]) == 1


def test_two_processes_give_what_one_gives(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite")
    evaluate(model_folder, suite, tmp_path / "one", EvaluationSettings(scoring=("calibrated",)))
    command = [
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        "2",
        "-m",
        "metro_t0.cli.main",
    ]
    command += ["evaluate", model_folder, "--suite", suite, "--out", tmp_path / "two", "--also", "calibrated"]
    done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1, "the main process alone speaks"
    one, two = (read_predictions(tmp_path / name / "predictions") for name in ("one", "two"))
    for a, b in zip(one, two, strict=True):
        assert (a.task, a.template, a.dropped) == (b.task, b.template, b.dropped)
        for x, y in zip(a.items, b.items, strict=True):
            assert (x.prompt, x.prediction) == (y.prompt, y.prediction)
            assert x.log_likelihoods == pytest.approx(y.log_likelihoods, rel=1e-4)
            assert x.unprompted == pytest.approx(y.unprompted, rel=1e-4)
    with_error = subprocess.run(
        [sys.executable, *map(str, command)], capture_output=True, text=True, check=False, timeout=120
    )
    assert with_error.returncode != 0 and "already holds results.json" in with_error.stderr


def test_how_often_the_shortest_answer_was_chosen() -> None:
    def item(lengths: list[int], prediction: int) -> Prediction:
        return Prediction(
            0, "p", ["a", "b", "c"][: len(lengths)], [-1.0] * len(lengths), lengths, prediction, 0
        )

    equal, mixed = [item([2, 2], 1)] * 3, [item([2, 5], 0), item([5, 2, 2], 0), item([9, 2, 2], 1)]
    both = [TemplatePredictions("t", "one", [*equal, *mixed[:1]]), TemplatePredictions("t", "two", mixed[1:])]
    assert shortest_entry(both) == {
        "examples": 3,
        "chosen": pytest.approx(2 / 3),
        "even": pytest.approx((1 / 2 + 2 / 3 + 2 / 3) / 3),
    }
    assert shortest_entry([TemplatePredictions("t", "one", equal)]) is None


def test_shots_fit_into_what_the_model_has_positions_for(model_folder: Path, tmp_path: Path) -> None:
    suite = write_suite(tmp_path / "suite", shots="test.jsonl", use=["plain question"])
    results = evaluate(model_folder, suite, tmp_path / "out", EvaluationSettings(shots=9, limit=6))
    (template,) = results["tasks"][0]["templates"]
    assert template["shots_left_out"] > 0 and results["truncated_prompts"] == 0
