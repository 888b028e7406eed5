"""Free answers: what the model writes after a prompt.

generate_texts(model, tokenizer, ["Summarise: ..."], max_new_tokens=32)[0].output
for answer in stream_texts(model, tokenizer, windows): ...     # as they come
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from metro_t0.evaluation.ranking.linear import quick_linear
from metro_t0.evaluation.ranking.plain import readable_tokens
from metro_t0.evaluation.ranking.rank import progress_bar
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

if TYPE_CHECKING:
    from rich.console import Console
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generation:
    """A prompt and what the model wrote.

    Attributes:
        input: the prompt as given.
        output: the decoded answer, special tokens left out.
        prompt_truncated: the prompt was longer than ``max_input_length`` and its end was not read.
    """

    input: str
    output: str
    prompt_truncated: bool


def generate_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    *,
    max_new_tokens: int = 64,
    beams: int = 1,
    temperature: float | None = None,
    seed: int = 0,
    max_input_length: int = 512,
    batch_size: int = 16,
    console: Console | None = None,
) -> list[Generation]:
    """Answer each prompt, in the order given.

    Args:
        model: ours, or another encoder-decoder of transformers; used on its own device.
        tokenizer: of the model.
        texts: the prompts.
        max_new_tokens: longest answer.
        beams: width of the beam search; 1 is greedy.
        temperature: sample at this temperature instead of taking the likeliest; None does not sample.
        seed: of the sampling; answers are then the same from run to run on one machine.
        max_input_length: tokens of a prompt that are read, specials included.
        batch_size: prompts at once, of like length.
        console: shows a progress bar there; silent without.

    Raises:
        ValueError: a length, width or temperature that is not positive.
    """
    answers = stream_texts(
        model,
        tokenizer,
        [texts] if texts else [],
        max_new_tokens=max_new_tokens,
        beams=beams,
        temperature=temperature,
        seed=seed,
        max_input_length=max_input_length,
        batch_size=batch_size,
    )
    written = []
    with progress_bar(console, len(texts), "Writing answers") as advance:
        for answer in answers:
            written.append(answer)
            advance(1)
    return written


def stream_texts(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    windows: Iterable[Sequence[str]],
    *,
    max_new_tokens: int = 64,
    beams: int = 1,
    temperature: float | None = None,
    seed: int = 0,
    max_input_length: int = 512,
    batch_size: int = 16,
) -> Iterator[Generation]:
    """Answer prompts that come a window at a time, each as soon as it and all before it are answered.

    Prompts of like length within a window are answered together. Sampled answers depend on the seed and on what stands
    in a window.

    Args:
        windows: prompts that are there together; the next window is asked for when one is answered.
        max_new_tokens: see :func:`generate_texts`, as the rest.

    Raises:
        ValueError: a length, width or temperature that is not positive.
    """
    if max_new_tokens < 1 or beams < 1 or batch_size < 1:
        raise ValueError("the longest answer, the beams and the batch size must be at least 1")
    if temperature is not None and temperature <= 0:
        raise ValueError(
            f"temperature must be above 0, not {temperature}; leave it out for the likeliest answer"
        )
    limit = readable_tokens(model, max_input_length)
    settings: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "num_beams": beams,
        "do_sample": temperature is not None,
    }
    if temperature is not None:
        settings["temperature"] = temperature
    draws = random.Random(seed)

    def answers() -> Iterator[Generation]:
        for texts in windows:
            lengths = _lengths(tokenizer, texts)
            outputs: dict[int, str] = {}
            ready = 0
            for members in _batches([min(length, limit) for length in lengths], batch_size):
                batch = [texts[index] for index in members]
                written = _write(model, tokenizer, batch, limit, draws.getrandbits(63), settings)
                outputs.update(zip(members, written, strict=True))
                while ready in outputs:
                    yield Generation(texts[ready], outputs.pop(ready).strip(), lengths[ready] > limit)
                    ready += 1

    return answers()


def _batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Indices in batches of like length, the batch that holds the first of them first."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    return sorted((order[start : start + size] for start in range(0, len(order), size)), key=min)


def _write(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    limit: int,
    seed: int,
    settings: dict[str, Any],
) -> list[str]:
    """Answers of one batch."""
    import torch

    batch = tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt").to(
        model.device
    )
    with torch.random.fork_rng(), quick_linear():
        torch.manual_seed(seed)
        # transformers types the method's owner by a protocol that its own classes do not meet.
        written = cast(Any, model).generate(
            input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], **settings
        )
    return list(tokenizer.batch_decode(written, skip_special_tokens=True))


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, special tokens counted."""
    if isinstance(tokenizer, MetroT0Tokenizer):
        return [len(ids) + 2 for ids in tokenizer.encode_texts(list(texts))]
    return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []
