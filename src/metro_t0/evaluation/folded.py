"""Rank classification with our models: each prompt encoded once, all its answers in one decoder row.

    scorer = FoldedScorer(model, tokenizer)

Distinct answers of a prompt are laid side by side in one decoder row: positions restart with each answer, a mask keeps
answers apart, and all of them attend to the same encoder states, whose cross-attention keys and values are therefore
computed once. Only target positions are projected to the vocabulary, and a token's log-probability is its logit minus
log-sum-exp.

Shapes: B rows of a batch, S prompt tokens, T answer tokens laid side by side, D width, N targets.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from metro_t0.evaluation.scorer import LOGITS_AT_ONCE, DistinctPrompt, Encoded, Size, Tokens, pad
from metro_t0.modeling.encoder_decoder import MetroT0ForConditionalGeneration
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

# Answers of one prompt beyond this many tokens go into a further decoder row: attention among them is quadratic.
_TOKENS_PER_DECODER_ROW = 512


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


class FoldedScorer:
    """Scores with a model of ours.

    Args:
        model: on its device, in its precision.
        tokenizer: of the model.
        watch_greedy: also fill in which answers greedy decoding would write.
    """

    def __init__(
        self,
        model: MetroT0ForConditionalGeneration,
        tokenizer: MetroT0Tokenizer,
        *,
        watch_greedy: bool = False,
    ) -> None:
        self.model, self.tokenizer, self.watch_greedy = model, tokenizer, watch_greedy

    def encode(self, texts: Sequence[str], *, max_length: int, keep_start: bool) -> Encoded:
        """See :class:`~metro_t0.evaluation.scorer.Scorer`; never more than the model has positions for."""
        tokenizer = self.tokenizer
        distinct = list(dict.fromkeys(texts))
        start = (tokenizer.bos_token_id,) if keep_start else ()
        room = min(max_length, self.model.config.num_positions) - 2
        encoded: dict[str, Tokens] = {}
        cut: set[str] = set()
        all_ids = tokenizer.encode_texts(distinct)
        for index, text in enumerate(distinct):
            # As officially: a special token that a text spells out is that token, and a text that normalisation leaves
            # empty is <unk>. encode_texts does neither.
            empty = bool(text) and not all_ids[index]
            if empty or any(token in text for token in tokenizer.all_special_tokens):
                all_ids[index] = tokenizer(text, add_special_tokens=False)["input_ids"]
        for text, ids in zip(distinct, all_ids, strict=True):
            if len(ids) > room:
                cut.add(text)
            encoded[text] = (*start, *ids[:room], tokenizer.eos_token_id)
        return Encoded(encoded, cut)

    def size(self, prompt: DistinctPrompt) -> Size:
        """One row, whose answers lie side by side."""
        return Size(1, len(prompt.tokens), min(sum(map(len, prompt.scores)), _TOKENS_PER_DECODER_ROW))

    def score(self, prompts: Sequence[DistinctPrompt], most_tokens: int) -> None:
        """Encodes the prompts and fills in the scores of their answers, a decoder row a prompt at a time."""
        model = self.model
        device, padding = model.device, model.config.pad_token_id
        input_ids = pad([prompt.tokens for prompt in prompts], padding).to(device)
        attention_mask = None
        if len({len(prompt.tokens) for prompt in prompts}) > 1:  # attention without a mask is quicker
            attention_mask = pad([(1,) * len(prompt.tokens) for prompt in prompts], 0).to(device)
        states = model.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        groups = [_decoder_rows(prompt) for prompt in prompts]
        for turn in range(max(map(len, groups))):
            members = [index for index, rows in enumerate(groups) if len(rows) > turn]
            whole = len(members) == len(prompts)
            answers = [groups[index][turn] for index in members]
            scores = _score_answers(
                model,
                states if whole else states[members],
                attention_mask if whole or attention_mask is None else attention_mask[members],
                answers,
                self.watch_greedy,
            )
            for index, row in zip(members, answers, strict=True):
                for answer in row:
                    prompts[index].scores[answer], greedy = next(scores)
                    if greedy:
                        prompts[index].greedy.add(answer)


def _decoder_rows(prompt: DistinctPrompt) -> list[list[Tokens]]:
    """The answers, in groups that one decoder row holds."""
    groups: list[list[Tokens]] = []
    room = 0
    for answer in prompt.scores:
        if len(answer) > room or not groups:
            groups.append([])
            room = _TOKENS_PER_DECODER_ROW
        groups[-1].append(answer)
        room -= len(answer)
    return groups


def _score_answers(
    model: MetroT0ForConditionalGeneration,
    encoder_states: torch.Tensor,
    encoder_mask: torch.Tensor | None,
    answers: Sequence[Sequence[Tokens]],
    watch_greedy: bool,
) -> Iterator[tuple[float, bool]]:
    """Score of each answer of a decoder row a prompt, in order, and whether it was seen to be the greedy one.

    ``encoder_states`` is ``[B, S, D]``.
    """
    config = model.config
    folded = _fold(answers, start=config.decoder_start_token_id, padding=config.pad_token_id)
    device = encoder_states.device
    hidden = model.decoder(
        input_ids=folded.input_ids.to(device),
        encoder_hidden_states=encoder_states,
        encoder_attention_mask=encoder_mask,
        position_ids=folded.position_ids.to(device),
        attention_mask=folded.may_attend.to(device),
    ).last_hidden_state
    log_probabilities, likeliest = _target_log_probabilities(
        model, hidden[folded.target_mask.to(device)], folded.targets.to(device), watch_greedy
    )
    owner = folded.answer_of_target
    scores = torch.zeros(sum(map(len, answers)), dtype=torch.float64)
    scores.index_add_(0, owner, log_probabilities.double().cpu())
    missed = torch.zeros(len(scores), dtype=torch.int64).index_add_(0, owner, (~likeliest).long().cpu())
    return zip(scores.tolist(), (missed == 0).tolist(), strict=True)


def _fold(answers: Sequence[Sequence[Tokens]], *, start: int, padding: int) -> _FoldedAnswers:
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
    owner = pad(owners, -1)
    length = owner.shape[1]
    same_answer = owner[:, :, None] == owner[:, None, :]
    causal = torch.ones(length, length, dtype=torch.bool).tril()
    return _FoldedAnswers(
        input_ids=pad(inputs, padding),
        position_ids=pad(positions, 0),
        may_attend=(same_answer & causal)[:, None],
        target_mask=owner >= 0,
        targets=torch.tensor(targets),
        answer_of_target=torch.tensor(answer_of_target),
    )


def _target_log_probabilities(
    model: MetroT0ForConditionalGeneration, hidden: torch.Tensor, targets: torch.Tensor, watch_greedy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """``log p(target)`` ``[N]`` in float32 from decoder states ``[N, D]``, a few rows of logits at a time.

    With it, ``[N]``, whether a target was seen to be the likeliest token.
    """
    at_once = max(1, LOGITS_AT_ONCE.get(hidden.device.type, 2**21) // model.config.vocab_size)
    parts: list[torch.Tensor] = []
    likeliest: list[torch.Tensor] = []
    for states, wanted in zip(hidden.split(at_once), targets.split(at_once), strict=True):
        logits = model.project(states).float()
        # The fused cross-entropy is the logit minus log-sum-exp in one pass: half the time of the two on a CPU.
        parts.append(-F.cross_entropy(logits, wanted, reduction="none"))
        likeliest.append(
            logits.argmax(-1) == wanted if watch_greedy else torch.zeros_like(wanted, dtype=torch.bool)
        )
    return torch.cat(parts), torch.cat(likeliest)
