"""How good are answers that the model wrote itself? Exact match, F1 and ROUGE-L of texts beside the wanted ones.

    scores = score_answers(["in the Alps"], [["The Alps", "in Switzerland"]])
    scores.exact_match, scores.f1, scores.rouge_l                                   # 0.0, 0.667, 0.8

Ranking cannot score a template without answer choices; this can. The scores are torchmetrics' (the extra ``metrics``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

Target = str | Sequence[str]

_NO_WORD = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class AnswerScores:
    """Means over examples, each 0 to 1.

    Attributes:
        exact_match: share of answers that equal a wanted one after normalisation.
        f1: overlap of the two bags of words.
        rouge_l: F-measure of the longest common subsequence of words.
        examples: how many answers were scored.
    """

    exact_match: float
    f1: float
    rouge_l: float
    examples: int


def score_answers(outputs: Sequence[str], targets: Sequence[Target]) -> AnswerScores:
    """Scores each written answer beside the wanted one, or the best of several wanted ones, and takes the mean.

    Exact match and F1 are SQuAD's (Rajpurkar et al. 2016, ``evaluate-v1.1.py``): both texts in lower case, without
    ASCII punctuation, without the articles a, an, the, spaces run together. Where nothing is left of one of the
    two, both scores are 1 if nothing is left of the other, else 0.

    ROUGE-L is Lin's (2004): words are runs of letters and digits in lower case, not stemmed, articles kept; 0 where
    either text has no word. These are the words of the ``rouge-score`` package, but for letters beyond a to z, which
    that drops and which count here.

    Args:
        outputs: what was written, one a row.
        targets: what was wanted, one text a row or several.

    Raises:
        ValueError: not as many targets as outputs, no outputs, a row without a target, or torchmetrics is not
            installed.
    """
    rows = _checked(outputs, targets)
    squad, rouge = _squad(), _rouge()
    # Greedy answers repeat themselves, and the longest common subsequence takes the product of the lengths.
    known: dict[tuple[str, tuple[str, ...]], tuple[float, float, float]] = {}
    for row in rows:
        if row not in known:
            known[row] = (*squad(*row), rouge(*row))
    exact_match, f1, rouge_l = (fmean(column) for column in zip(*(known[row] for row in rows), strict=True))
    return AnswerScores(exact_match, f1, rouge_l, len(rows))


def _checked(outputs: Sequence[str], targets: Sequence[Target]) -> list[tuple[str, tuple[str, ...]]]:
    if isinstance(outputs, str) or isinstance(targets, str):
        raise ValueError("outputs and targets are lists, an entry a row; give [text] for a single one")
    if len(outputs) != len(targets):
        raise ValueError(f"{len(outputs)} outputs but {len(targets)} targets; give one target a row")
    if not outputs:
        raise ValueError("no answers to score")
    wanted = [(target,) if isinstance(target, str) else tuple(target) for target in targets]
    for index, row in enumerate(wanted):
        if not row:
            raise ValueError(f"row {index} has no target; give at least one text")
    return list(zip(outputs, wanted, strict=True))


def _squad() -> Callable[[str, tuple[str, ...]], tuple[float, float]]:
    """Exact match and F1 of one answer, 0 to 1."""
    try:
        from torchmetrics.functional.text import squad
    except ModuleNotFoundError as error:
        raise _missing() from error

    def score(output: str, wanted: tuple[str, ...]) -> tuple[float, float]:
        answers: dict[str, list[str] | list[int]] = {"text": list(wanted)}
        found = squad({"prediction_text": output, "id": "0"}, {"answers": answers, "id": "0"})
        return found["exact_match"].item() / 100, found["f1"].item() / 100

    return score


def _rouge() -> Callable[[str, tuple[str, ...]], float]:
    """ROUGE-L of one answer, 0 to 1."""
    try:
        from torchmetrics.functional.text.rouge import rouge_score
    except ModuleNotFoundError as error:
        raise _missing() from error

    def words(text: str) -> str:
        return _NO_WORD.sub(" ", text.lower())

    def score(output: str, wanted: tuple[str, ...]) -> float:
        found = rouge_score(
            [output], [list(wanted)], accumulate="best", rouge_keys="rougeL", normalizer=words
        )
        return found["rougeL_fmeasure"].item()

    return score


def _missing() -> ValueError:
    return ValueError("scores of written answers need torchmetrics: pip install 'metro-t0[metrics]'")
