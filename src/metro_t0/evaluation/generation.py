"""Free answers: what the model writes after a prompt.

generate_texts(model, tokenizer, ["Summarise: ..."], max_new_tokens=32)[0].output
"""

from __future__ import annotations

from collections.abc import Sequence
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
        batch_size: prompts at once.
        console: shows a progress bar there; silent without.

    Raises:
        ValueError: a length, width or temperature that is not positive.
    """
    if max_new_tokens < 1 or beams < 1 or batch_size < 1:
        raise ValueError("the longest answer, the beams and the batch size must be at least 1")
    if temperature is not None and temperature <= 0:
        raise ValueError(
            f"temperature must be above 0, not {temperature}; leave it out for the likeliest answer"
        )
    import torch

    limit = readable_tokens(model, max_input_length)
    lengths = _lengths(tokenizer, texts)
    # Prompts of like length together: little padding.
    order = sorted(range(len(texts)), key=lambda index: min(lengths[index], limit))
    outputs: dict[int, str] = {}
    # transformers types the method's owner by a protocol that its own classes do not meet.
    write = cast(Any, model).generate
    sampling = {} if temperature is None else {"temperature": temperature}
    bar = progress_bar(console, len(texts), "Writing answers")
    with bar as advance, torch.random.fork_rng(), quick_linear():
        torch.manual_seed(seed)
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            batch = tokenizer(
                [texts[index] for index in members],
                padding=True,
                truncation=True,
                max_length=limit,
                return_tensors="pt",
            ).to(model.device)
            written = write(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                max_new_tokens=max_new_tokens,
                num_beams=beams,
                do_sample=temperature is not None,
                **sampling,
            )
            decoded = tokenizer.batch_decode(written, skip_special_tokens=True)
            outputs.update(zip(members, decoded, strict=True))
            advance(len(members))
    return [
        Generation(text, outputs[index].strip(), lengths[index] > limit) for index, text in enumerate(texts)
    ]


def _lengths(tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> list[int]:
    """Tokens of each text, special tokens counted."""
    if isinstance(tokenizer, MetroT0Tokenizer):
        return [len(ids) + 2 for ids in tokenizer.encode_texts(list(texts))]
    return [len(ids) for ids in tokenizer(list(texts), verbose=False)["input_ids"]] if texts else []
