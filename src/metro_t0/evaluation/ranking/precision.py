"""What rounding does to predictions: a sample ranked in float32, then in bfloat16 or with weights of 8 bits.

model, tokenizer = load_model(path)                                            # in float32
ranked, changed = changed_predictions(model, tokenizer, prompts, choices)      # in bfloat16 from here on
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Literal

import torch

from metro_t0.evaluation.quantization import quantize
from metro_t0.evaluation.ranking.rank import rank_rows

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from metro_t0.evaluation.ranking.budget import TokenBudget


def changed_predictions(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    precision: Literal["bf16", "int8"] = "bf16",
    sample: int = 256,
    seed: int = 0,
    max_input_length: int = 512,
    max_choice_length: int = 256,
    batch_tokens: int | TokenBudget | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[int, int]:
    """How many rows of a drawn sample are predicted otherwise in another precision than in float32.

    Rows of one choice say nothing and are not drawn.

    Args:
        model: in float32; left in the other precision, so that no moment holds it twice.
        tokenizer: of the model.
        prompts: of all rows.
        choices: of all rows.
        precision: bfloat16 throughout, or weights of 8 bits (on the CPU).
        sample: rows drawn, or all of them where there are fewer.
        seed: of the draw.
        max_input_length: see :func:`~metro_t0.evaluation.ranking.rank.rank`, as the rest.

    Returns:
        The size of the sample, and the number of predictions in it that differ.

    Raises:
        ValueError: the model is not in float32, the sample is not positive, or int8 cannot be here.
    """
    if model.dtype != torch.float32:
        raise ValueError(f"predictions are compared with float32, but the model is in {model.dtype}")
    if sample < 1:
        raise ValueError(f"the sample must be at least 1, not {sample}")
    open_rows = [row for row, offered in enumerate(choices) if len(offered) > 1]
    drawn = sorted(random.Random(seed).sample(open_rows, min(sample, len(open_rows))))

    def predictions() -> list[int]:
        results = rank_rows(
            model,
            tokenizer,
            [prompts[row] for row in drawn],
            [choices[row] for row in drawn],
            max_input_length=max_input_length,
            max_choice_length=max_choice_length,
            batch_tokens=batch_tokens,
            advance=advance,
            say=say,
        )
        return [result.prediction for result in results]

    precise = predictions()
    if precision == "int8":
        quantize(model)
    else:
        model.bfloat16()
    return len(drawn), sum(a != b for a, b in zip(precise, predictions(), strict=True))
