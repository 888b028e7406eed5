"""Rank classification: which of the given answers does the model find likeliest after this prompt?

    results = rank(model, tokenizer, prompts=["Is the sky blue?"], choices=[["Yes", "No"]])
    results[0].log_likelihoods, results[0].prediction

The rule is the published one (official ``t-zero/t0/model.py`` and ``t-zero/evaluation/run_eval.py``): an
answer's score is the sum of log-probabilities of its tokens and the end token, not divided by its length;
the highest score wins, the first on ties. The prompt is ``<s> tokens </s>``, the decoder starts from
``decoder_start_token_id``.

The work is not the published one. Equal prompts and equal answers are computed once, each prompt is encoded once for
all its answers, and prompts of like length share a batch. How answers are scored is :mod:`.folded`'s matter for our
models and :mod:`.plain`'s for others. The scores are those of the plain computation, up to the order of floating-point
sums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from metro_t0.evaluation.predictions import predict
from metro_t0.evaluation.ranking.budget import TokenBudget, worked
from metro_t0.evaluation.ranking.folded import FoldedScorer
from metro_t0.evaluation.ranking.linear import quick_linear
from metro_t0.evaluation.ranking.plain import PlainScorer
from metro_t0.evaluation.ranking.scorer import DistinctPrompt, Encoded, Scorer, Tokens
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def unheard(line: str) -> None:
    """For callers that do not listen."""


@dataclass(frozen=True)
class RankResult:
    """A prompt's answers, scored.

    Attributes:
        log_likelihoods: a score an answer: summed natural-log probabilities of its tokens and ``</s>``.
        prediction: index of the highest score, the first on ties.
        lengths: tokens of each answer as it was scored, ``</s>`` counted.
        prompt_truncated: the prompt was longer than ``max_input_length`` and its end was not read.
        choices_truncated: number of answers cut to ``max_choice_length``.
    """

    log_likelihoods: list[float]
    prediction: int
    lengths: list[int]
    prompt_truncated: bool = False
    choices_truncated: int = 0


def rank(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    max_choice_length: int = 256,
    batch_tokens: int | TokenBudget | None = None,
    console: Console | None = None,
) -> list[RankResult]:
    """Score each prompt's answer choices by rank classification.

    Args:
        model: ours, or another encoder-decoder of transformers; used on its own device, in its own precision
            (log-probabilities are taken in float32), without dropout.
        tokenizer: of the model.
        prompts: one text a row.
        choices: a row's answers; rows may offer different numbers of them, and answers may repeat.
        max_input_length: prompt tokens with ``<s>`` and ``</s>``; what is beyond is cut before ``</s>``,
            and the result says so. Never more than the model has positions for.
        max_choice_length: answer tokens, counted as officially: with the ``<s>`` that is then taken off.
        batch_tokens: padded tokens (prompts and answers) computed at once, or a budget that several calls share; by
            default what suits the device. Halved where memory runs out.
        console: shows a progress bar there, and what there is to say; silent without.

    Returns:
        A result a row, in the order of the rows. An answer of no tokens is scored by ``</s>`` alone.

    Raises:
        ValueError: a row without answers, not as many rows of choices as prompts, or a prompt that does not even fit in
            memory alone.
    """
    with progress_bar(console, len(prompts), "Ranking answers") as advance:
        return rank_rows(
            model,
            tokenizer,
            prompts,
            choices,
            max_input_length=max_input_length,
            max_choice_length=max_choice_length,
            batch_tokens=batch_tokens,
            advance=advance,
            say=unheard if console is None else console.print,
        )


def rank_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    max_choice_length: int = 256,
    batch_tokens: int | TokenBudget | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    say: Callable[[str], None] = unheard,
) -> list[RankResult]:
    """:func:`rank` for a caller with its own progress bar.

    ``advance`` hears how many more rows are done, ``say`` a line when memory ran out and less is computed at once.
    """
    check_rows(prompts, choices)
    if max_input_length < 2 or max_choice_length < 2:
        raise ValueError("max_input_length and max_choice_length must be at least 2: room for <s> and </s>")
    scorer = _scorer(model, tokenizer)
    texts = [choice for row in choices for choice in row]
    read = scorer.encode(prompts, max_length=max_input_length, keep_start=True)
    offered = scorer.encode(texts, max_length=max_choice_length, keep_start=False)

    distinct = _distinct(prompts, choices, read, offered)
    if not isinstance(batch_tokens, TokenBudget):
        batch_tokens = TokenBudget.of(model, batch_tokens, longest=max(map(len, distinct), default=0))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), quick_linear():
            for batch in worked(list(distinct.values()), scorer, batch_tokens, say):
                advance(sum(prompt.rows for prompt in batch))
    finally:
        model.train(was_training)

    results = []
    for prompt, row in zip(prompts, choices, strict=True):
        scores = distinct[read.tokens[prompt]].scores
        likelihoods = [scores[offered.tokens[choice]] for choice in row]
        results.append(
            RankResult(
                log_likelihoods=likelihoods,
                prediction=predict(likelihoods),
                lengths=[len(offered.tokens[choice]) for choice in row],
                prompt_truncated=prompt in read.cut,
                choices_truncated=sum(choice in offered.cut for choice in row),
            )
        )
    return results


def _distinct(
    prompts: Sequence[str], choices: Sequence[Sequence[str]], read: Encoded, offered: Encoded
) -> dict[Tokens, DistinctPrompt]:
    """Prompts that differ in their tokens, each with all answers that any of its rows offers."""
    distinct: dict[Tokens, DistinctPrompt] = {}
    for prompt, row in zip(prompts, choices, strict=True):
        tokens = read.tokens[prompt]
        entry = distinct.setdefault(tokens, DistinctPrompt(tokens))
        entry.rows += 1
        entry.scores.update((offered.tokens[choice], 0.0) for choice in row)
    return distinct


def _scorer(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> Scorer:
    """The quick way where model and tokenizer know it."""
    if isinstance(model, MetroT0ForConditionalGeneration) and isinstance(tokenizer, MetroT0Tokenizer):
        return FoldedScorer(model, tokenizer)
    return PlainScorer(model, tokenizer)


def check_rows(prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> None:
    """Raises a ValueError unless there is a row of at least one choice for each prompt."""
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list of them, and a list of choices for each")
    if len(prompts) != len(choices):
        raise ValueError(f"{len(prompts)} prompts but {len(choices)} rows of choices; give one row a prompt")
    for index, row in enumerate(choices):
        if isinstance(row, str):
            raise ValueError(f"the choices of prompt {index} are one string; give a list of strings")
        if not len(row):
            raise ValueError(f"prompt {index} has no choices to rank; give at least one")


@contextmanager
def progress_bar(console: Console | None, total: int, doing: str) -> Iterator[Callable[[int], None]]:
    """A bar on the console, as a function that hears how many more are done; without a console, nothing."""
    if console is None:
        yield lambda rows: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task(doing, total=total)
        yield lambda rows: progress.advance(task, rows)
