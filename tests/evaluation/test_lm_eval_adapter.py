"""lm-eval's tasks on our models: likelihoods and accuracies beside lm-eval's own path for the same model."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from evaluation_folders import write_lines
from small_models import WORDS, make_model, make_tokenizer
from transformers import T5Config, T5ForConditionalGeneration

from metro_t0.evaluation.ranking.rank import rank
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

pytest.importorskip("lm_eval")

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.api.registry import get_model
from lm_eval.tasks import TaskManager

from metro_t0.evaluation.lm_eval_adapter import MetroT0LM, evaluate_lm_eval

Network = tuple[MetroT0ForConditionalGeneration, MetroT0Tokenizer]

STORY = "The lawyer sold her brother a small engine."
REQUESTS = [
    (STORY, " yes"),
    (STORY, " no"),
    (STORY, " what happens next"),
    ("A river carried the old clock.", " two children"),
    ("A river carried the old clock. ", "maybe"),  # the space goes over to the answer
    ("", " my neighbour"),
    ("<s> true or false", " true"),
    (STORY, " yes"),
    ("ü → 東京", " größe"),
    ("the committee painted " * 30 + "?", " true"),  # longer than is read
    ("no </s> yes", " no </s>"),
]


def questions(count: int) -> list[dict[str, Any]]:
    return [
        {
            "text": " ".join(WORDS[(index * step) % len(WORDS)] for step in range(1, 9)),
            "options": [f"{WORDS[(index + 7 * k) % len(WORDS)]} {WORDS[index % 5 + k]}" for k in range(4)],
            "label": index % 4,
        }
        for index in range(count)
    ]


TASKS: dict[str, dict[str, Any]] = {
    "follows": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}} Does it follow?",
        "doc_to_choice": ["yes", "no", "maybe", "neither"],
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "next": {
        "output_type": "multiple_choice",
        "doc_to_text": "{{text}} What happens next?",
        "doc_to_choice": "{{options}}",
        "doc_to_target": "label",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    },
    "written": {
        "output_type": "generate_until",
        "doc_to_text": "{{text}}",
        "doc_to_target": "{{options[label]}}",
        "generation_kwargs": {"until": ["old"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match"}],
    },
}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Network:
    tokenizer = make_tokenizer(tmp_path_factory.mktemp("tokenizer"))
    return make_model(tokenizer).eval(), tokenizer


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tasks")
    write_lines(folder / "rows.json", questions(24))
    for name, task in TASKS.items():
        data = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.json")}}}
        (folder / f"{name}.yaml").write_text(
            yaml.safe_dump({"task": name, "test_split": "test"} | data | task)
        )
    return folder


def own_path(network: Network, **settings: Any) -> Any:
    """lm-eval's own way of asking a sequence-to-sequence model."""
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM

    model, tokenizer = network
    return HFLM(pretrained=model, tokenizer=tokenizer, backend="seq2seq", batch_size=3, **settings)


def asked(kind: str, arguments: list[tuple[Any, ...]]) -> list[Instance]:
    return [Instance(kind, {}, pair, index) for index, pair in enumerate(arguments)]


@torch.no_grad()
def greedy_answer(network: Network, prompt: str) -> str:
    model, tokenizer = network
    written = model.generate(**tokenizer(prompt, return_tensors="pt"), max_new_tokens=3, do_sample=False)
    return " " + tokenizer.decode(written[0], skip_special_tokens=True)


@pytest.mark.parametrize("batch_tokens", [None, 1, 100_000])
def test_likelihoods_and_greedy_answers_are_those_of_lm_eval_s_own_path(
    network: Network, batch_tokens: int | None
) -> None:
    arguments = [*REQUESTS, *((prompt, greedy_answer(network, prompt)) for prompt in (STORY, "Is it true?"))]
    requests = asked("loglikelihood", arguments)
    theirs = own_path(network, max_length=48).loglikelihood(requests, disable_tqdm=True)
    ours = MetroT0LM(*network, max_length=48, batch_tokens=batch_tokens).loglikelihood(
        requests, disable_tqdm=True
    )
    assert [score for score, _ in ours] == pytest.approx([score for score, _ in theirs], rel=1e-5)
    assert [greedy for _, greedy in ours] == [greedy for _, greedy in theirs]
    assert {greedy for _, greedy in ours} == {True, False}


def test_each_prompt_is_encoded_once(network: Network) -> None:
    rows: list[int] = []
    hook = network[0].encoder.register_forward_hook(
        lambda module, arguments, named, output: rows.append(len(output.last_hidden_state)), with_kwargs=True
    )
    try:
        MetroT0LM(*network, max_length=48).loglikelihood(asked("loglikelihood", REQUESTS), disable_tqdm=True)
    finally:
        hook.remove()
    # The clock's prompt with and without a space at its end is the same.
    assert sum(rows) == len({prompt.rstrip() for prompt, _ in REQUESTS}) == 7


def test_accuracies_are_those_of_lm_eval_s_own_path(network: Network, tasks: Path) -> None:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)

    def scores(model: Any) -> dict[str, Any]:
        found = lm_eval.simple_evaluate(
            model, tasks=list(TASKS), task_manager=manager, bootstrap_iters=0, log_samples=True
        )
        assert found is not None
        predictions = {
            name: [sample["filtered_resps"] for sample in samples]
            for name, samples in found["samples"].items()
        }
        figures = {
            name: {key: value for key, value in task.items() if key.split(",")[0] in ("acc", "acc_norm")}
            for name, task in found["results"].items()
        }
        return {"figures": figures, "written": predictions["written"]}

    ours, theirs = scores(MetroT0LM(*network, max_length=48)), scores(own_path(network, max_length=48))
    assert ours["figures"] == theirs["figures"]
    assert 0 < ours["figures"]["next"]["acc,none"] < 1
    # Theirs may write on for the length of the prompt.
    assert all(
        one[0].startswith(other[0]) for one, other in zip(theirs["written"], ours["written"], strict=True)
    )


def test_the_published_rule_is_that_of_rank(network: Network) -> None:
    arguments = [*REQUESTS, (STORY, ""), ("", ""), (" ", " yes"), (STORY, "yes " * 300)]
    ours = MetroT0LM(*network, official=True, max_length=32).loglikelihood(
        asked("loglikelihood", arguments), disable_tqdm=True
    )
    prompts, answers = [prompt for prompt, _ in arguments], [[answer] for _, answer in arguments]
    expected = rank(*network, prompts, answers, max_input_length=32)
    assert [score for score, _ in ours] == pytest.approx(
        [result.log_likelihoods[0] for result in expected], rel=1e-5
    )


def test_written_answers_are_those_of_lm_eval_s_own_path(network: Network) -> None:
    prompts = [STORY, "A river carried the old clock.", "yes", "the committee painted " * 30]
    settings: list[dict[str, Any]] = [
        {"until": ["</s>"], "max_gen_toks": 5},
        {"until": [" old", "o"], "max_gen_toks": 9, "do_sample": False},
        {"max_gen_toks": 3, "num_beams": 3},
    ]
    requests = asked("generate_until", [(prompt, setting) for setting in settings for prompt in prompts])
    ours = MetroT0LM(*network, max_length=48, batch_size=2).generate_until(requests, disable_tqdm=True)
    again = MetroT0LM(*network, max_length=48, batch_size="auto").generate_until(requests, disable_tqdm=True)
    assert ours == again
    assert any(ours) and not any("o" in text for text in ours[4:8])
    greedy = [index for index, request in enumerate(requests) if "num_beams" not in request.args[1]]
    theirs = own_path(network, max_length=48).generate_until(requests, disable_tqdm=True)
    assert all(theirs[index].startswith(ours[index]) for index in greedy)


def test_what_has_no_answer_is_refused_in_one_line(network: Network) -> None:
    lm = MetroT0LM(*network)
    with pytest.raises(ValueError, match=r"leave out the tasks that measure perplexity"):
        lm.loglikelihood_rolling(asked("loglikelihood_rolling", [(STORY,)]))
    for context in (STORY, ""):
        with pytest.raises(ValueError, match=r"the answer '' has 0 tokens.*official=True"):
            lm.loglikelihood(asked("loglikelihood", [(context, "")]), disable_tqdm=True)
    with pytest.raises(ValueError, match=r"the answer ' yes yes.* scores 1 to 64"):
        lm.loglikelihood(asked("loglikelihood", [(STORY, " yes" * 80)]), disable_tqdm=True)
    with pytest.raises(ValueError, match="needs its tokenizer"):
        MetroT0LM(network[0])
    other = T5ForConditionalGeneration(
        T5Config(vocab_size=9, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    )
    with pytest.raises(ValueError, match=r"t5 is no model of ours.*backend=seq2seq"):
        MetroT0LM(other, network[1])


def test_answers_in_lm_eval_s_cache_are_not_computed_again(
    network: Network, tasks: Path, tmp_path: Path
) -> None:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    settings: dict[str, Any] = {"tasks": ["follows"], "task_manager": manager, "bootstrap_iters": 0}
    first, second = (
        lm_eval.simple_evaluate(MetroT0LM(*network), use_cache=str(tmp_path / "cache"), **settings)
        for _ in range(2)
    )
    plain = lm_eval.simple_evaluate(MetroT0LM(*network), **settings)
    assert first is not None and second is not None and plain is not None
    assert first["results"] == second["results"] == plain["results"]


@pytest.fixture(scope="module")
def model_folder(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    network[0].save_pretrained(folder)
    network[1].save_pretrained(folder)
    return folder


def test_lm_eval_finds_the_model_by_its_name(model_folder: Path, tasks: Path) -> None:
    made = get_model("metro-t0").create_from_arg_string(
        f"pretrained={model_folder},max_length=40,official=True", {"batch_size": 8, "device": "cpu"}
    )
    assert isinstance(made, MetroT0LM)
    assert (made.max_length, made.official, made.batch_size) == (40, True, 8)
    assert made.loglikelihood(asked("loglikelihood", REQUESTS[:2]), disable_tqdm=True)


def test_results_are_written(model_folder: Path, tasks: Path, tmp_path: Path) -> None:
    results = evaluate_lm_eval(
        model_folder, ["follows", "nex*"], tmp_path / "out", include_path=tasks, limit=8
    )
    written = json.loads((tmp_path / "out" / "lm-eval.json").read_text())
    assert written["results"] == results["results"]
    assert {name: task["sample_len"] for name, task in written["results"].items()} == {
        "follows": 8,
        "next": 8,
    }
    assert written["config"]["model_args"]["pretrained"] == str(model_folder)
    assert not list((tmp_path / "out").glob("*.writing"))


@pytest.mark.slow  # lm-eval reads its 14,000 task files each time
def test_mistakes_are_named_and_leave_nothing(model_folder: Path, tasks: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"knows no task 'folows' \(did you mean 'follows'\?\).*--include-path"
    ):
        evaluate_lm_eval(model_folder, ["folows"], tmp_path / "no", include_path=tasks)
    (tasks / "lost.yaml").write_text(
        (tasks / "next.yaml")
        .read_text()
        .replace("task: next", "task: lost")
        .replace("rows.json", "gone.json")
    )
    with pytest.raises(ValueError, match=r"cannot get the data of lost: .*gone\.json"):
        evaluate_lm_eval(model_folder, ["lost"], tmp_path / "no", include_path=tasks)
    assert not (tmp_path / "no").exists()


def test_several_processes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="without torchrun"):
        evaluate_lm_eval("model", ["x"], tmp_path / "out")


def test_without_lm_eval_one_line_says_what_to_install() -> None:
    code = "import sys; sys.modules['lm_eval'] = None\nimport metro_t0.evaluation.lm_eval_adapter"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ})
    last = found.stderr.splitlines()[-1]
    assert last == "ValueError: lm-eval's tasks need lm-eval: pip install 'metro-t0[lm-eval]'"
