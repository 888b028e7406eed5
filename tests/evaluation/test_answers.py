"""Scores of written answers: by hand, and beside a plain twin of each."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from metro_t0.evaluation.answers import AnswerScores, score_answers

pytest.importorskip("torchmetrics")


def plain_f1(output: str, target: str) -> float:
    one, other = output.split(), target.split()
    if not one or not other:
        return float(one == other)
    common = sum((Counter(one) & Counter(other)).values())
    return 2 * common / (len(one) + len(other))


def plain_rouge(output: str, target: str) -> float:
    one, other = output.split(), target.split()
    if not one or not other:
        return 0.0

    def longest(i: int, j: int) -> int:
        if i == len(one) or j == len(other):
            return 0
        if one[i] == other[j]:
            return 1 + longest(i + 1, j + 1)
        return max(longest(i + 1, j), longest(i, j + 1))

    return 2 * longest(0, 0) / (len(one) + len(other))


def one(output: str, target: str | list[str]) -> tuple[float, float, float]:
    scores = score_answers([output], [target])
    assert scores.examples == 1
    return (
        pytest.approx(scores.exact_match),
        pytest.approx(scores.f1),
        pytest.approx(scores.rouge_l, abs=1e-6),
    )


@pytest.mark.parametrize(
    ("output", "target", "exact_match", "f1", "rouge_l"),
    [
        ("Paris", "Paris", 1, 1, 1),
        ("The Paris!", "paris", 1, 1, 2 / 3),  # articles and punctuation: SQuAD drops both, ROUGE the latter
        ("in the Alps", ["The Alps", "in Switzerland"], 0, 2 / 3, 4 / 5),
        ("a b c d", "d c b a", 0, 1, 1 / 4),  # same bag but for the article, no common order
        ("red red red", "red", 0, 1 / 2, 1 / 2),
        ("don't", "dont", 1, 1, 0),  # SQuAD drops the mark, ROUGE splits at it
        ("snake_case", "snake case", 0, 0, 1),
        ("Größe ändern", "größe ändern", 1, 1, 1),
        ("Москва река", "река Москва", 0, 1, 1 / 2),
        ("東京", "京都", 0, 0, 0),
        ("", "something", 0, 0, 0),
        ("something", "", 0, 0, 0),
        ("", "", 1, 1, 0),
        ("the", "...", 1, 1, 0),  # nothing is left of either
        (" \n", ["x", ""], 1, 1, 0),
        ("yes", ["no", "yes", "maybe"], 1, 1, 1),
    ],
)
def test_by_hand(output: str, target: str | list[str], exact_match: float, f1: float, rouge_l: float) -> None:
    assert one(output, target) == (exact_match, f1, rouge_l)


def test_the_best_target_is_chosen_for_each_score_by_itself() -> None:
    # Exact and F1 by the first target, ROUGE-L by the second.
    assert one("the cat sat", ["cat sat", "the cat sat down"]) == (1, 1, pytest.approx(6 / 7))


def test_means_over_examples() -> None:
    scores = score_answers(["yes", "no", "no", "x y"], ["yes", "yes", ["yes", "no"], "x z"])
    assert scores == AnswerScores(0.5, 0.625, 0.625, 4)


words = st.lists(st.sampled_from(["red", "blue", "größe", "река", "7"]), max_size=6).map(" ".join)


@given(st.lists(st.tuples(words, st.lists(words, min_size=1, max_size=3)), min_size=1, max_size=5))
@settings(deadline=None, max_examples=60)
def test_as_the_plain_twins(rows: list[tuple[str, list[str]]]) -> None:
    outputs, targets = [output for output, _ in rows], [wanted for _, wanted in rows]
    scores = score_answers(outputs, targets)
    assert scores.exact_match == pytest.approx(sum(o in w for o, w in rows) / len(rows))
    assert scores.f1 == pytest.approx(sum(max(plain_f1(o, t) for t in w) for o, w in rows) / len(rows))
    assert scores.rouge_l == pytest.approx(
        sum(max(plain_rouge(o, t) for t in w) for o, w in rows) / len(rows)
    )


def test_rouge_of_ascii_texts_is_the_original_package_s() -> None:
    rouge_score = pytest.importorskip("rouge_score.rouge_scorer")
    scorer = rouge_score.RougeScorer(["rougeL"])
    for output, target in [
        ("The quick brown fox's den, 12 feet.", "a brown-fox den of 12 feet"),
        ("x_1 is (not) x-1", "x 1 is x_1"),
    ]:
        expected = scorer.score(target, output)["rougeL"].fmeasure
        assert score_answers([output], [target]).rouge_l == pytest.approx(expected)


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        (["a"], ["a", "b"], "1 outputs but 2 targets"),
        ([], [], "no answers to score"),
        (["a", "b"], ["a", []], "row 1 has no target"),
        ("ab", ["a", "b"], "an entry a row"),
        (["a", "b"], "ab", "an entry a row"),
    ],
)
def test_mistakes_are_named(outputs: list[str], targets: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_answers(outputs, targets)


def test_without_the_library_one_line_says_what_to_install() -> None:
    code = (
        "import sys; sys.modules['torchmetrics'] = None\n"
        "from metro_t0.evaluation.answers import score_answers\n"
        "score_answers(['a'], ['a'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    last = found.stderr.splitlines()[-1]
    assert last == "ValueError: scores of written answers need torchmetrics: pip install 'metro-t0[metrics]'"
