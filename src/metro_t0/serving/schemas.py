"""What requests and answers look like, and how large a request may be: the source of the OpenAPI document.

GenerateRequest.model_validate_json('{"prompt": "Is the sky blue?", "max_new_tokens": 8}')
RankRequest.model_validate_json('{"prompt": "Is the sky blue?", "choices": ["Yes", "No"]}')

Types are strict (no ``"8"`` for 8) and unknown keys are errors, so that a misspelt setting is never ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, Tag

MAX_BODY_BYTES = 256 * 1024
MAX_PROMPTS = 64
MAX_PROMPT_CHARACTERS = 20_000
MAX_CHOICES = 100
MAX_CHOICE_CHARACTERS = 2_000
MAX_NEW_TOKENS = 256
MAX_BEAMS = 8


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 8.0 is the integer 8."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# Behind the bounds, or the document would lose them.
_ALSO_AS_FLOAT = BeforeValidator(_whole)
Prompt = Annotated[
    str, Field(max_length=MAX_PROMPT_CHARACTERS, description="The text to answer.", examples=["Is it cold?"])
]
Choices = Annotated[
    list[Annotated[str, Field(max_length=MAX_CHOICE_CHARACTERS)]],
    Field(min_length=1, max_length=MAX_CHOICES, description="The answers to rank.", examples=[["Yes", "No"]]),
]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _Settings(_Strict):
    max_new_tokens: Annotated[
        int, Field(ge=1, le=MAX_NEW_TOKENS, description="Longest answer, in tokens."), _ALSO_AS_FLOAT
    ] = 64
    beams: Annotated[
        int, Field(ge=1, le=MAX_BEAMS, description="Width of the beam search; 1 is greedy."), _ALSO_AS_FLOAT
    ] = 1
    temperature: Annotated[
        float | None,
        Field(ge=0.05, le=10, description="Sample at this temperature instead of taking the likeliest."),
    ] = None
    seed: Annotated[int, Field(ge=0, le=2**32 - 1, description="Of the sampling."), _ALSO_AS_FLOAT] = 0


class GenerateOne(_Settings):
    """One prompt."""

    prompt: Prompt


class GenerateMany(_Settings):
    """Several prompts."""

    prompts: Annotated[list[Prompt], Field(min_length=1, max_length=MAX_PROMPTS)]


class RankOne(_Strict):
    """One prompt and its choices."""

    prompt: Prompt
    choices: Choices


class RankMany(_Strict):
    """Several prompts, each with its choices."""

    questions: Annotated[list[RankOne], Field(min_length=1, max_length=MAX_PROMPTS)]


def _has(key: str) -> Discriminator:
    def tag(body: Any) -> str:
        keys = body if isinstance(body, dict) else getattr(body, "__dict__", ())
        return "many" if key in keys else "one"

    return Discriminator(tag)


GenerateRequest = Annotated[
    Annotated[GenerateOne, Tag("one")] | Annotated[GenerateMany, Tag("many")], _has("prompts")
]
RankRequest = Annotated[Annotated[RankOne, Tag("one")] | Annotated[RankMany, Tag("many")], _has("questions")]


class Written(BaseModel):
    """What the model wrote after one prompt."""

    output: Annotated[str, Field(description="The answer; special tokens are left out.")]


class GenerateAnswer(BaseModel):
    """An answer a prompt, in the order of the prompts."""

    answers: list[Written]


class Ranked(BaseModel):
    """The choices of one prompt, scored."""

    log_likelihoods: Annotated[
        list[float],
        Field(description="A score a choice: the summed natural-log probability of its tokens and the end."),
    ]
    prediction: Annotated[int, Field(ge=0, description="Index of the likeliest choice, the first on ties.")]


class RankAnswer(BaseModel):
    """A ranking a question, in the order of the questions."""

    answers: list[Ranked]


class Health(BaseModel):
    """How the server is."""

    status: Annotated[str, Field(description='"ok", or "stopping".')]
    model: Annotated[str, Field(description="What the server was started with.")]
    waiting: Annotated[int, Field(ge=0, description="Requests that are not answered yet.")]
    max_prompt_tokens: Annotated[int, Field(ge=1, description="Longest prompt that is read.")]


class Problem(BaseModel):
    """Why there is no answer."""

    error: Annotated[str, Field(description="One sentence.")]
