"""Rank classification with any encoder-decoder of transformers (T5, BART, ...), through its plain interface.

    scorer = PlainScorer(AutoModelForSeq2SeqLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder))

The rule is that of :mod:`.rank`: an answer is what the tokenizer makes of it with its special tokens, a start token
taken off, and its score the sum of log-probabilities of all of them. Each prompt is encoded once, its states are
repeated for each of its answers, and the decoder reads an answer shifted right behind the start token.

Shapes: R rows (a prompt and one of its answers), S prompt tokens, T answer tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from transformers.modeling_outputs import BaseModelOutput

from metro_t0.evaluation.ranking.scorer import LOGITS_AT_ONCE, DistinctPrompt, Encoded, Size, Tokens, pad

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_NO_TARGET = -100
# By which names configurations say how many positions a model has, the first ours; T5 and its kin have no limit.
_POSITIONS = (
    "num_positions",
    "max_position_embeddings",
    "max_encoder_position_embeddings",
    "max_decoder_position_embeddings",
)


class PlainScorer:
    """Scores with a model that knows no folded answers.

    Args:
        model: on its device, in its precision.
        tokenizer: of the model.

    Raises:
        ValueError: the model does not say what its decoder starts from, or the tokenizer has no end token.
    """

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.start = start_token(model)
        self.padding = 0 if tokenizer.pad_token_id is None else tokenizer.pad_token_id

    def encode(self, texts: Sequence[str], *, max_length: int, keep_start: bool) -> Encoded:
        """See :class:`~metro_t0.evaluation.ranking.scorer.Scorer`; never more than the model has positions for."""
        encoded = encode_texts(self.tokenizer, texts, max_length=readable_tokens(self.model, max_length))
        if keep_start:
            return encoded
        starts = (self.tokenizer.bos_token_id, self.tokenizer.cls_token_id)
        return Encoded(
            {text: ids[1:] if ids[0] in starts else ids for text, ids in encoded.tokens.items()}, encoded.cut
        )

    def size(self, prompt: DistinctPrompt) -> Size:
        """A row an answer."""
        return Size(len(prompt.scores), len(prompt.tokens), max(map(len, prompt.scores)))

    def score(self, prompts: Sequence[DistinctPrompt], most_tokens: int) -> None:
        """Encodes the prompts and fills in the scores, so many answers at a time as the budget holds."""
        device = self.model.device
        input_ids = pad([prompt.tokens for prompt in prompts], self.padding).to(device)
        attention_mask = pad([(1,) * len(prompt.tokens) for prompt in prompts], 0).to(device)
        encoder: Any = self.model.get_encoder()
        states = encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        rows = [(index, answer) for index, prompt in enumerate(prompts) for answer in prompt.scores]
        rows.sort(key=lambda row: len(row[1]), reverse=True)
        vocabulary = vocabulary_rows(self.model)
        while rows:
            length = len(rows[0][1])
            by_tokens = most_tokens // (states.shape[1] + length)
            by_logits = LOGITS_AT_ONCE.get(device.type, LOGITS_AT_ONCE["cpu"]) // (length * vocabulary)
            at_once = max(1, min(by_tokens, by_logits))
            some, rows = rows[:at_once], rows[at_once:]
            owners = torch.tensor([index for index, _ in some], device=device)
            scores = self._score_answers(
                states[owners], attention_mask[owners], [answer for _, answer in some]
            )
            for (index, answer), score in zip(some, scores, strict=True):
                prompts[index].scores[answer] = score

    def _score_answers(
        self, states: torch.Tensor, mask: torch.Tensor, answers: Sequence[Tokens]
    ) -> list[float]:
        """A score a row: states ``[R, S, D]``, mask ``[R, S]``, R answers."""
        device = states.device
        # What the decoder reads of padding comes after all that counts, and no position looks ahead.
        read = pad([(self.start, *answer[:-1]) for answer in answers], self.padding).to(device)
        labels = pad(answers, _NO_TARGET).to(device)
        logits = self.model(
            encoder_outputs=BaseModelOutput(last_hidden_state=states),
            attention_mask=mask,
            decoder_input_ids=read,
            use_cache=False,
        ).logits
        losses = F.cross_entropy(
            logits.float().flatten(0, 1), labels.flatten(), ignore_index=_NO_TARGET, reduction="none"
        )
        scores: list[float] = losses.view(labels.shape).double().sum(dim=-1).neg().tolist()
        return scores


def start_token(model: PreTrainedModel) -> int:
    """What the decoder starts from.

    Raises:
        ValueError: neither the model's configuration nor that of its generation says so.
    """
    for config in (getattr(model, "generation_config", None), model.config):
        token = getattr(config, "decoder_start_token_id", None)
        if token is not None:
            return int(token)
    raise ValueError(
        f"this {model.config.model_type} model does not say what its decoder starts from: write decoder_start_token_id "
        "into its config.json (for T5 the id of <pad>, for BART that of </s>)"
    )


def vocabulary_rows(model: PreTrainedModel) -> int:
    """Rows of the token embedding: no tokenizer may have more ids."""
    embeddings: Any = model.get_input_embeddings()
    return int(embeddings.weight.shape[0])


def readable_tokens(model: PreTrainedModel, wanted: int) -> int:
    """So many tokens, or as many as the model has positions for where those are fewer."""
    config = model.config
    parts = (config, getattr(config, "encoder", None), getattr(config, "decoder", None))
    limits = [getattr(part, name, None) for part in parts for name in _POSITIONS]
    return min([wanted, *(limit for limit in limits if isinstance(limit, int))])


def encode_texts(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], *, max_length: int) -> Encoded:
    """Ids of each distinct text as its tokenizer makes them, the end token last where it puts none.

    Raises:
        ValueError: the tokenizer has no end token.
    """
    ends = [token for token in (tokenizer.eos_token_id, tokenizer.sep_token_id) if token is not None]
    if not ends:
        raise ValueError(f"the {type(tokenizer).__name__} has no end token: set its eos_token")
    distinct = list(dict.fromkeys(texts))
    tokens: dict[str, Tokens] = {}
    cut: set[str] = set()
    # Of a list of no texts some tokenizers make an error.
    all_ids = tokenizer(distinct, verbose=False)["input_ids"] if distinct else []
    for text, whole in zip(distinct, all_ids, strict=True):
        ids, ended = whole, any(end in whole for end in ends)
        if len(whole) + (not ended) > max_length:
            cut.add(text)
            room = max_length if ended else max_length - 1
            ids = tokenizer(text, truncation=True, max_length=room)["input_ids"]
        tokens[text] = (*ids, *([] if ended else ends[:1]))
    return Encoded(tokens, cut)
