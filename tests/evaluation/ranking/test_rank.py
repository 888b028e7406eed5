"""Encode-once ranking gives what the plain computation and the official implementation give."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console
from small_models import WORDS, make_model, make_tokenizer, rank_plainly

from metro_t0.evaluation.ranking import folded
from metro_t0.evaluation.ranking.rank import rank
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> MetroT0Tokenizer:
    return make_tokenizer(tmp_path_factory.mktemp("tokenizer"))


@pytest.fixture(scope="module")
def model(tokenizer: MetroT0Tokenizer) -> MetroT0ForConditionalGeneration:
    return make_model(tokenizer)


def sentences(longest: int) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from([*WORDS, "</s>", "<unk>", "\n"]), max_size=longest).map(" ".join)


rows = st.lists(
    st.tuples(sentences(25), st.lists(sentences(6), min_size=1, max_size=7)), min_size=1, max_size=8
)
unhurried = settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@unhurried
@given(
    rows=rows,
    seed=st.integers(0, 3),
    heads=st.sampled_from([1, 2, 4]),
    batch_tokens=st.sampled_from([None, 1, 60, 300]),
    row_tokens=st.sampled_from([4, 20, 512]),
)
def test_equals_the_plain_computation(
    tokenizer: MetroT0Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[str, list[str]]],
    seed: int,
    heads: int,
    batch_tokens: int | None,
    row_tokens: int,
) -> None:
    """Over shapes, paddings, numbers of answers, batch sizes, and answers split over several decoder rows."""
    monkeypatch.setattr(folded, "_TOKENS_PER_DECODER_ROW", row_tokens)
    model = make_model(tokenizer, seed=seed, layers=1 + seed % 2, heads=heads)
    prompts, choices = [row[0] for row in rows], [row[1] for row in rows]
    # 41 tokens, so that long prompts and answers are cut on the way.
    lengths = {"max_input_length": 41, "max_choice_length": 9}
    wanted = rank_plainly(model, tokenizer, prompts, choices, **lengths)
    results = rank(model, tokenizer, prompts, choices, batch_tokens=batch_tokens, **lengths)
    assert model.training, "the model is left as it was"
    for result, scores in zip(results, wanted, strict=True):
        assert result.log_likelihoods == pytest.approx(scores, rel=1e-4, abs=1e-5)
        best = max(scores)
        # A prediction may differ only where two scores are equal up to rounding.
        assert scores[result.prediction] == pytest.approx(best, rel=1e-5, abs=1e-5)


def test_order_and_batch_size_do_not_matter(
    model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer
) -> None:
    prompts = [" ".join(WORDS[: 3 + 2 * i]) for i in range(9)]
    choices = [[" ".join(WORDS[j : j + 1 + i % 3]) for j in range(2 + i % 4)] for i in range(9)]
    forward = rank(model, tokenizer, prompts, choices)
    backward = rank(model, tokenizer, prompts[::-1], choices[::-1], batch_tokens=1)[::-1]
    for a, b in zip(forward, backward, strict=True):
        assert a.log_likelihoods == pytest.approx(b.log_likelihoods, rel=1e-5)
        assert a.prediction == b.prediction


def test_equal_prompts_and_answers_are_computed_once_and_tie_on_the_first(
    model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded: list[int] = []
    forward = model.encoder.forward
    monkeypatch.setattr(
        model.encoder,
        "forward",
        lambda **inputs: encoded.append(len(inputs["input_ids"])) or forward(**inputs),
    )
    results = rank(
        model,
        tokenizer,
        ["does it follow", "does  it follow", "what happens next", "does it follow"],
        [["no", "yes", "yes"], ["yes", "yes"], ["no", "yes"], ["maybe", "yes"]],
    )
    assert sum(encoded) == 2, "four prompts, two of them distinct once tokenized"
    first, second, _, fourth = results
    assert first.log_likelihoods[1] == first.log_likelihoods[2] == second.log_likelihoods[0]
    assert fourth.log_likelihoods[1] == first.log_likelihoods[1]
    assert second.prediction == 0


def test_an_empty_answer_is_its_end_token_alone(
    model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer
) -> None:
    result = rank(model, tokenizer, ["does it follow"], [["", "yes"]])[0]
    with torch.no_grad():
        logits = model.eval()(
            input_ids=tokenizer("does it follow", return_tensors="pt")["input_ids"],
            decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id]]),
        ).logits
    wanted = logits[0, 0].log_softmax(-1)[tokenizer.eos_token_id]
    assert result.log_likelihoods[0] == pytest.approx(wanted.item(), rel=1e-5)


def test_long_prompts_and_answers_are_cut_and_said(
    model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer
) -> None:
    long = " ".join(WORDS * 4)
    cut, whole = rank(model, tokenizer, [long, "yes"], [["yes", long], ["yes", "no"]])
    assert cut.prompt_truncated and cut.choices_truncated == 1
    assert not whole.prompt_truncated and whole.choices_truncated == 0
    assert cut.lengths == [len(tokenizer("yes").input_ids) - 1, 63], "an answer's tokens and </s>"
    same = rank(model, tokenizer, [long + " and more"], [["yes", long]])[0]
    assert same.log_likelihoods == cut.log_likelihoods, "what is beyond the model's positions is not read"


def test_many_answers(model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer) -> None:
    answers = [f"{a} {b}" for a in WORDS[:25] for b in WORDS[:20]]
    assert len(answers) == 500
    result = rank(model, tokenizer, ["which"], [answers])[0]
    wanted = rank_plainly(model, tokenizer, ["which"], [answers])[0]
    assert result.log_likelihoods == pytest.approx(wanted, rel=1e-4)
    assert result.prediction == wanted.index(max(wanted))


@pytest.mark.parametrize(
    ("prompt", "choices"),
    [
        ("", ["yes", "no"]),
        (" \n", ["yes", "no"]),
        ("which", ["", "yes"]),
        ("which", ["", ""]),
        ("which", [" ", "", "yes"]),
        ("which", ["no", "yes", "no", "yes"]),
        ("which", ["yes"]),
        ("which", [""]),
    ],
)
def test_odd_rows_have_an_answer(
    model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer, prompt: str, choices: list[str]
) -> None:
    """The empty string, white space, equal answers, one answer: each as the plain computation scores it."""
    result = rank(model, tokenizer, [prompt], [choices])[0]
    wanted = rank_plainly(model, tokenizer, [prompt], [choices])[0]
    assert result.log_likelihoods == pytest.approx(wanted, rel=1e-4, abs=1e-5)
    assert result.lengths == [len(tokenizer(choice).input_ids) - 1 for choice in choices]
    best = result.log_likelihoods[result.prediction]
    assert best == max(result.log_likelihoods), "the likeliest"
    assert result.prediction == choices.index(choices[result.prediction]), "of equal ones the first"


def test_a_prompt_of_fifty_thousand_characters(tokenizer: MetroT0Tokenizer) -> None:
    model = make_model(tokenizer, positions=600)
    words = " ".join(WORDS * 400)[:50_000]
    assert len(words) == 50_000
    unbroken = "a" * 50_000
    start = tokenizer.decode(tokenizer(words, truncation=True, max_length=512).input_ids[1:-1])
    results = rank(model, tokenizer, [words, unbroken, start], [["yes", "no"]] * 3)
    assert [result.prompt_truncated for result in results] == [True, True, False]
    assert results[0].log_likelihoods == pytest.approx(results[2].log_likelihoods, rel=1e-5)
    wanted = rank_plainly(model, tokenizer, [unbroken], [["yes", "no"]])[0]
    assert results[1].log_likelihoods == pytest.approx(wanted, rel=1e-4)


def test_mistakes_are_named(model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer) -> None:
    with pytest.raises(ValueError, match="prompt 1 has no choices"):
        rank(model, tokenizer, ["a", "b"], [["yes"], []])
    with pytest.raises(ValueError, match="2 prompts but 1 rows of choices"):
        rank(model, tokenizer, ["a", "b"], [["yes"]])
    with pytest.raises(ValueError, match="choices of prompt 0 are one string"):
        rank(model, tokenizer, ["a"], ["yes"])
    with pytest.raises(ValueError, match="prompts is one string"):
        rank(model, tokenizer, "a", [["yes"]])
    assert rank(model, tokenizer, [], []) == []


def test_a_console_gets_a_progress_bar(
    model: MetroT0ForConditionalGeneration, tokenizer: MetroT0Tokenizer
) -> None:
    console = Console(record=True, force_terminal=True, width=100)
    rank(model, tokenizer, ["a", "b"], [["yes"], ["no"]], console=console)
    assert "Ranking answers" in console.export_text()


def test_official_likelihoods_and_predictions(golden: Path) -> None:
    folder = golden / "hf_tiny"
    model = MetroT0ForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    tokenizer = MetroT0Tokenizer.from_pretrained(folder)
    cases = json.loads((golden / "rank" / "cases.json").read_text(encoding="utf-8"))
    for batch_tokens in (None, 1, 500):
        results = rank(
            model,
            tokenizer,
            [case["input"] for case in cases],
            [case["choices"] for case in cases],
            batch_tokens=batch_tokens,
        )
        for case, result in zip(cases, results, strict=True):
            assert result.log_likelihoods == pytest.approx(case["log_likelihood"], rel=1e-4, abs=1e-4)
            assert result.prediction == case["prediction"]
