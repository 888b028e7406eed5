"""What the server computes, and which requests are too long for its model.

engine = Engine(model, tokenizer, max_input_length=512)
engine.refusal(Ranking(), [Question("Is the sky blue?", ("Yes", "No"))])     # None: it can be answered
engine.answer(Ranking(), [Question("Is the sky blue?", ("Yes", "No"))])      # [RankResult(...)]
engine.answer(Writing(max_new_tokens=16), ["Is the sky blue?"])              # [Generation(...)]
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from metro_t0.evaluation.generation import Generation, generate_texts
from metro_t0.evaluation.ranking.plain import readable_tokens
from metro_t0.evaluation.ranking.rank import RankResult, rank_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

MAX_CHOICE_TOKENS = 256


@dataclass(frozen=True)
class Question:
    """A prompt and the answers to rank."""

    prompt: str
    choices: tuple[str, ...]


@dataclass(frozen=True)
class Ranking:
    """Rows are questions; each becomes a ``RankResult``."""

    width: int = 1
    alone: bool = False


@dataclass(frozen=True)
class Writing:
    """Rows are prompts; each becomes a ``Generation``. The settings are those of ``generate_texts``."""

    max_new_tokens: int
    beams: int = 1
    temperature: float | None = None
    seed: int = 0

    @property
    def width(self) -> int:
        return self.beams

    @property
    def alone(self) -> bool:
        """What is drawn depends on the shape of the batch: sampled requests get one of their own."""
        return self.temperature is not None


class Engine:
    """A model and its tokenizer, used by one thread.

    Args:
        model: on its device.
        tokenizer: of the model.
        max_input_length: most tokens of a prompt, specials included; never more than the model has positions for.

    Raises:
        ValueError: no room for a prompt.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, max_input_length: int = 512
    ) -> None:
        if max_input_length < 3:
            raise ValueError(
                f"the longest prompt (--max-input-length) must be at least 3, not {max_input_length}"
            )
        self.model = model
        self.tokenizer = tokenizer
        self.max_prompt_tokens = readable_tokens(model, max_input_length)
        self.max_choice_tokens = readable_tokens(model, MAX_CHOICE_TOKENS)

    def refusal(self, kind: Ranking | Writing, rows: Sequence[Question | str]) -> str | None:
        """One sentence about the first text that has more tokens than the model reads; None where all fit."""
        texts = [row.prompt if isinstance(row, Question) else row for row in rows]
        for count in self._counts(texts):
            if count > self.max_prompt_tokens:
                return f"a prompt has {count} tokens, and at most {self.max_prompt_tokens} are read"
        choices = [choice for row in rows if isinstance(row, Question) for choice in row.choices]
        for count in self._counts(choices):
            if count > self.max_choice_tokens:
                return f"a choice has {count} tokens, and at most {self.max_choice_tokens} are read"
        if isinstance(kind, Writing) and kind.max_new_tokens > (most := self.max_new_tokens):
            return f"max_new_tokens is {kind.max_new_tokens}, and this model writes at most {most}"
        return None

    @property
    def max_new_tokens(self) -> int:
        """Most tokens that the model has positions for after its start token."""
        return readable_tokens(self.model, 1 << 30) - 1

    def answer(
        self, kind: Ranking | Writing, rows: Sequence[Question | str]
    ) -> list[RankResult] | list[Generation]:
        """An answer a row, each as if it were computed alone."""
        if isinstance(kind, Ranking):
            questions = [row for row in rows if isinstance(row, Question)]
            return rank_rows(
                self.model,
                self.tokenizer,
                [question.prompt for question in questions],
                [question.choices for question in questions],
                max_input_length=self.max_prompt_tokens,
                max_choice_length=self.max_choice_tokens,
            )
        return generate_texts(
            self.model,
            self.tokenizer,
            [row for row in rows if isinstance(row, str)],
            max_new_tokens=kind.max_new_tokens,
            beams=kind.beams,
            temperature=kind.temperature,
            seed=kind.seed,
            max_input_length=self.max_prompt_tokens,
        )

    def _counts(self, texts: Sequence[str]) -> list[int]:
        return [len(ids) for ids in self.tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []
