"""Rank classification: which of the given answers does the model find likeliest after this prompt?

    results = rank(model, tokenizer, prompts=["Is the sky blue?"], choices=[["Yes", "No"]])
    results[0].log_likelihoods, results[0].prediction

The rule is the published one (official ``t-zero/t0/model.py`` and ``t-zero/evaluation/run_eval.py``): an
answer's score is the sum of log-probabilities of its tokens and the end token, not divided by its length;
the highest score wins, the first on ties. The prompt is ``<s> tokens </s>``, the decoder starts from
``decoder_start_token_id``.

The work is not the published one. Each distinct prompt is encoded once, and its distinct answers are laid
side by side in one decoder row: positions restart with each answer, a mask keeps answers apart, and all of
them attend to the same encoder states, whose cross-attention keys and values are therefore computed once.
Only target positions are projected to the vocabulary, and a token's log-probability is its logit minus
log-sum-exp. Prompts of like length share a batch. The scores are those of the plain computation, up to the
order of floating-point sums.

Shapes: B rows of a batch, S prompt tokens, T answer tokens laid side by side, D width, N targets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F

if TYPE_CHECKING:
    from rich.console import Console

    from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

Tokens = tuple[int, ...]

# Answers of one prompt beyond this many tokens go into a further decoder row: attention among them is
# quadratic.
_TOKENS_PER_DECODER_ROW = 512
# On a CPU about what its cache holds.
_LOGITS_AT_ONCE = {"cpu": 2**21, "cuda": 2**27}
_BATCH_TOKENS = {"cpu": 4096, "cuda": 65536}


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


@dataclass
class _Prompt:
    """A distinct prompt, its distinct answers with their scores, and how many given rows ask about it."""

    tokens: Tokens
    scores: dict[Tokens, float] = field(default_factory=dict)
    rows: int = 0

    def decoder_rows(self) -> list[list[Tokens]]:
        """The answers, in groups that one decoder row holds."""
        groups: list[list[Tokens]] = []
        room = 0
        for answer in self.scores:
            if len(answer) > room or not groups:
                groups.append([])
                room = _TOKENS_PER_DECODER_ROW
            groups[-1].append(answer)
            room -= len(answer)
        return groups


@dataclass
class _FoldedAnswers:
    """Answers of several prompts, laid side by side a row.

    Attributes:
        input_ids: ``[B, T]``, each answer shifted right behind its own start token.
        position_ids: ``[B, T]``, counting from 0 in each answer.
        may_attend: ``[B, 1, T, T]``, causal within an answer, nothing across.
        target_mask: ``[B, T]``, False on padding.
        targets: ``[N]``, in the order of ``target_mask``'s True entries.
        answer_of_target: ``[N]``, index of the answer a target belongs to, answers counted over the whole
            batch.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    may_attend: torch.Tensor
    target_mask: torch.Tensor
    targets: torch.Tensor
    answer_of_target: torch.Tensor


def rank(
    model: MetroT0ForConditionalGeneration,
    tokenizer: MetroT0Tokenizer,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    max_choice_length: int = 256,
    batch_tokens: int | None = None,
    console: Console | None = None,
) -> list[RankResult]:
    """Score each prompt's answer choices by rank classification.

    Args:
        model: used on its own device, in its own precision (log-probabilities are taken in float32),
            without dropout.
        tokenizer: of the model.
        prompts: one text a row.
        choices: a row's answers; rows may offer different numbers of them, and answers may repeat.
        max_input_length: prompt tokens with ``<s>`` and ``</s>``; what is beyond is cut before ``</s>``,
            and the result says so. Never more than the model has positions for.
        max_choice_length: answer tokens, counted as officially: with the ``<s>`` that is then taken off.
        batch_tokens: padded tokens (prompts and answers) computed at once; by default what suits the device.
        console: shows a progress bar there; silent without.

    Returns:
        A result a row, in the order of the rows. An answer of no tokens is scored by ``</s>`` alone.

    Raises:
        ValueError: a row without answers, or not as many rows of choices as prompts.
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
        )


def rank_rows(
    model: MetroT0ForConditionalGeneration,
    tokenizer: MetroT0Tokenizer,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    max_choice_length: int = 256,
    batch_tokens: int | None = None,
    advance: Callable[[int], None] = lambda rows: None,
) -> list[RankResult]:
    """:func:`rank` for a caller with its own progress bar: ``advance`` hears how many more rows are done."""
    _check_rows(prompts, choices)
    if max_input_length < 2 or max_choice_length < 2:
        raise ValueError("max_input_length and max_choice_length must be at least 2: room for <s> and </s>")
    positions = model.config.num_positions
    prompt_tokens, prompt_cut = _encode(
        tokenizer, prompts, max_length=min(max_input_length, positions), keep_start=True
    )
    texts = [choice for row in choices for choice in row]
    choice_tokens, choice_cut = _encode(
        tokenizer, texts, max_length=min(max_choice_length, positions), keep_start=False
    )

    distinct: dict[Tokens, _Prompt] = {}
    for prompt, row in zip(prompts, choices, strict=True):
        tokens = prompt_tokens[prompt]
        entry = distinct.setdefault(tokens, _Prompt(tokens))
        entry.rows += 1
        entry.scores.update((choice_tokens[choice], 0.0) for choice in row)

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            budget = batch_tokens or _BATCH_TOKENS.get(model.device.type, 4096)
            for batch in _batches(list(distinct.values()), budget):
                _score_batch(model, batch)
                advance(sum(prompt.rows for prompt in batch))
    finally:
        model.train(was_training)

    results = []
    for prompt, row in zip(prompts, choices, strict=True):
        scores = distinct[prompt_tokens[prompt]].scores
        likelihoods = [scores[choice_tokens[choice]] for choice in row]
        results.append(
            RankResult(
                log_likelihoods=likelihoods,
                prediction=likelihoods.index(max(likelihoods)),
                lengths=[len(choice_tokens[choice]) for choice in row],
                prompt_truncated=prompt in prompt_cut,
                choices_truncated=sum(choice in choice_cut for choice in row),
            )
        )
    return results


def _check_rows(prompts: Sequence[str], choices: Sequence[Sequence[str]]) -> None:
    if isinstance(prompts, str):
        raise ValueError("prompts is one string; give a list of them, and a list of choices for each")
    if len(prompts) != len(choices):
        raise ValueError(f"{len(prompts)} prompts but {len(choices)} rows of choices; give one row a prompt")
    for index, row in enumerate(choices):
        if isinstance(row, str):
            raise ValueError(f"the choices of prompt {index} are one string; give a list of strings")
        if not len(row):
            raise ValueError(f"prompt {index} has no choices to rank; give at least one")


def _encode(
    tokenizer: MetroT0Tokenizer, texts: Sequence[str], *, max_length: int, keep_start: bool
) -> tuple[dict[str, Tokens], set[str]]:
    """Token ids of each distinct text, and which texts were cut to ``max_length``."""
    distinct = list(dict.fromkeys(texts))
    start = (tokenizer.bos_token_id,) if keep_start else ()
    room = max_length - 2
    encoded: dict[str, Tokens] = {}
    cut: set[str] = set()
    all_ids = tokenizer.encode_texts(distinct)
    for index, text in enumerate(distinct):
        # As officially, a special token that a text spells out ("</s>") is that token; encode_texts takes it as text.
        if any(token in text for token in tokenizer.all_special_tokens):
            all_ids[index] = tokenizer(text, add_special_tokens=False)["input_ids"]
    for text, ids in zip(distinct, all_ids, strict=True):
        if len(ids) > room:
            cut.add(text)
        encoded[text] = (*start, *ids[:room], tokenizer.eos_token_id)
    return encoded, cut


def _batches(prompts: list[_Prompt], budget: int) -> Iterator[list[_Prompt]]:
    """Prompts of like length together, longest first, at most ``budget`` padded tokens at a time."""

    def answer_length(prompt: _Prompt) -> int:
        return min(sum(map(len, prompt.scores)), _TOKENS_PER_DECODER_ROW)

    def like_length(prompt: _Prompt) -> tuple[int, int, int]:
        return (len(prompt.tokens) // 16, answer_length(prompt), len(prompt.tokens))

    batch: list[_Prompt] = []
    longest_prompt = longest_answers = 0
    for prompt in sorted(prompts, key=like_length, reverse=True):
        longest_prompt = max(longest_prompt, len(prompt.tokens))
        longest_answers = max(longest_answers, answer_length(prompt))
        if batch and (len(batch) + 1) * (longest_prompt + longest_answers) > budget:
            yield batch
            batch = []
            longest_prompt, longest_answers = len(prompt.tokens), answer_length(prompt)
        batch.append(prompt)
    if batch:
        yield batch


def _score_batch(model: MetroT0ForConditionalGeneration, batch: Sequence[_Prompt]) -> None:
    """Fill in the scores of a batch of prompts."""
    device = model.device
    pad = model.config.pad_token_id
    input_ids = _pad([prompt.tokens for prompt in batch], pad).to(device)
    attention_mask = _pad([(1,) * len(prompt.tokens) for prompt in batch], 0).to(device)
    states = model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
    groups = [prompt.decoder_rows() for prompt in batch]
    for turn in range(max(map(len, groups))):
        members = [index for index, rows in enumerate(groups) if len(rows) > turn]
        whole = len(members) == len(batch)
        answers = [groups[index][turn] for index in members]
        scores = _score_answers(
            model,
            states if whole else states[members],
            attention_mask if whole else attention_mask[members],
            answers,
        )
        for index, row in zip(members, answers, strict=True):
            for answer in row:
                batch[index].scores[answer] = next(scores)


def _score_answers(
    model: MetroT0ForConditionalGeneration,
    encoder_states: torch.Tensor,
    encoder_mask: torch.Tensor,
    answers: Sequence[Sequence[Tokens]],
) -> Iterator[float]:
    """Scores of a decoder row of answers a prompt, in order; ``encoder_states`` ``[B, S, D]``."""
    config = model.config
    folded = _fold(answers, start=config.decoder_start_token_id, pad=config.pad_token_id)
    device = encoder_states.device
    hidden = model.decoder(
        input_ids=folded.input_ids.to(device),
        encoder_hidden_states=encoder_states,
        encoder_attention_mask=encoder_mask,
        position_ids=folded.position_ids.to(device),
        attention_mask=folded.may_attend.to(device),
    ).last_hidden_state
    log_probabilities = _target_log_probabilities(
        model, hidden[folded.target_mask.to(device)], folded.targets.to(device)
    )
    scores = torch.zeros(sum(map(len, answers)), dtype=torch.float64)
    scores.index_add_(0, folded.answer_of_target, log_probabilities.double().cpu())
    return iter(scores.tolist())


def _fold(answers: Sequence[Sequence[Tokens]], *, start: int, pad: int) -> _FoldedAnswers:
    """Lay each row's answers side by side."""
    inputs: list[Tokens] = []
    positions: list[Tokens] = []
    owners: list[Tokens] = []
    targets: list[int] = []
    answer_of_target: list[int] = []
    count = 0
    for row in answers:
        inputs.append(tuple(token for answer in row for token in (start, *answer[:-1])))
        positions.append(tuple(position for answer in row for position in range(len(answer))))
        owners.append(tuple(index for index, answer in enumerate(row) for _ in answer))
        for answer in row:
            targets.extend(answer)
            answer_of_target.extend([count] * len(answer))
            count += 1
    # Padding is an answer of its own (-1), so that it attends to itself and no softmax is empty.
    owner = _pad(owners, -1)
    length = owner.shape[1]
    same_answer = owner[:, :, None] == owner[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return _FoldedAnswers(
        input_ids=_pad(inputs, pad),
        position_ids=_pad(positions, 0),
        may_attend=(same_answer & causal)[:, None],
        target_mask=owner >= 0,
        targets=torch.tensor(targets),
        answer_of_target=torch.tensor(answer_of_target),
    )


def _target_log_probabilities(
    model: MetroT0ForConditionalGeneration, hidden: torch.Tensor, targets: torch.Tensor
) -> torch.Tensor:
    """``log p(target)`` ``[N]`` in float32 from decoder states ``[N, D]``, a few rows of logits at a time."""
    at_once = max(1, _LOGITS_AT_ONCE.get(hidden.device.type, 2**21) // model.config.vocab_size)
    # The fused cross-entropy is the logit minus log-sum-exp in one pass: half the time of the two on a CPU.
    parts = [
        -F.cross_entropy(model.project(states).float(), wanted, reduction="none")
        for states, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True)
    ]
    return torch.cat(parts)


def _pad(rows: Sequence[Sequence[int]], value: int) -> torch.Tensor:
    """Rows of integers as one ``[B, longest]`` tensor, filled up on the right."""
    padded = torch.full((len(rows), max(map(len, rows))), value, dtype=torch.long)
    for index, row in enumerate(rows):
        padded[index, : len(row)] = torch.tensor(row, dtype=torch.long)
    return padded


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
