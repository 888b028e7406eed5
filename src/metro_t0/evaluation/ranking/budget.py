"""How much is computed at once: a budget of padded tokens that gives way when memory runs out.

    budget = TokenBudget.of(model, batch_tokens=None)        # found from the device's memory
    for batch in worked(prompts, scorer, budget, say=print):
        ...                                                  # each prompt of the batch has its scores

A batch that does not fit is done again in two halves, and all later ones stay below the lower budget.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from metro_t0.evaluation.ranking.scorer import DistinctPrompt, Scorer, Size

if TYPE_CHECKING:
    from transformers import PreTrainedModel

# On a CPU more is slower: batches pad more and leave its cache. A GPU has no use for more than keeps it busy.
# Narrow models want more tokens: 1,024 of METRO-T0 base, at most four times as many.
_CPU_STATES = 1024 * 768
_FEWEST_CPU_TOKENS, _MOST_CPU_TOKENS = 1024, 4096
_MOST_GPU_TOKENS = 2**16
_LEAST_TOKENS = 1024
# Of the memory that is free: estimates are rough, and others may use the GPU too.
_SHARE_OF_FREE_MEMORY = 0.5
# What allocators say that raise no error of their own: torch's on a CPU, oneDNN, C++.
_OUT_OF_MEMORY = ("can't allocate memory", "could not create a memory", "std::bad_alloc", "out of memory")


@dataclass
class TokenBudget:
    """Padded tokens (prompts and answers) computed at once; the same one may serve many calls.

    Attributes:
        tokens: the budget, lowered when memory runs out.
    """

    tokens: int

    @classmethod
    def of(cls, model: PreTrainedModel, batch_tokens: int | None, *, longest: int = 512) -> TokenBudget:
        """What was asked for, or else what suits the model's device.

        Args:
            model: on its device already.
            batch_tokens: None to find it: by free memory on a GPU, by the cache on a CPU.
            longest: tokens of the longest prompt, by which attention's part of the memory grows.

        Raises:
            ValueError: a budget that is not positive.
        """
        if batch_tokens is not None:
            if batch_tokens < 1:
                raise ValueError(f"batch_tokens (--batch-tokens) must be at least 1, not {batch_tokens}")
            return cls(batch_tokens)
        if model.device.type != "cuda":
            return cls(min(_MOST_CPU_TOKENS, max(_FEWEST_CPU_TOKENS, _CPU_STATES // _width(model))))
        free, _ = torch.cuda.mem_get_info(model.device)
        # torch keeps what it has freed, out of the driver's sight.
        free += torch.cuda.memory_reserved(model.device) - torch.cuda.memory_allocated(model.device)
        fitting = int(free * _SHARE_OF_FREE_MEMORY / bytes_per_token(model, longest))
        return cls(min(_MOST_GPU_TOKENS, max(_LEAST_TOKENS, fitting)))


def bytes_per_token(model: PreTrainedModel, longest: int) -> int:
    """Rough upper bound of the memory that a padded token takes while a layer without gradients computes.

    States, queries, keys, values and their copies, the feed-forward layer before and after its activation, and
    attention scores written out by the slowest kernel, all at once.
    """
    config = model.config
    width = _width(model)
    inner = int(getattr(config, "d_ff", 4 * width))
    heads = int(getattr(config, "num_attention_heads", 16))
    return model.dtype.itemsize * (12 * width + 2 * inner + 3 * heads * longest)


def _width(model: PreTrainedModel) -> int:
    """Numbers a state; a model made of two others says it elsewhere, and a large one is assumed."""
    return int(getattr(model.config, "hidden_size", 1024))


def worked(
    prompts: Sequence[DistinctPrompt],
    scorer: Scorer,
    budget: TokenBudget,
    say: Callable[[str], None],
) -> Iterator[list[DistinctPrompt]]:
    """Scores prompts of like length together, the longest first, and yields each batch when it is done.

    Args:
        prompts: in any order.
        scorer: does the work; for a batch that did not fit it is called again.
        budget: lowered where memory runs out.
        say: hears a line each time the budget is lowered.

    Raises:
        ValueError: one row of one prompt does not fit in memory.
    """
    sizes = {id(prompt): scorer.size(prompt) for prompt in prompts}

    def like_length(prompt: DistinctPrompt) -> tuple[int, int, int]:
        size = sizes[id(prompt)]
        return (size.prompt // 16, size.answers, size.prompt)

    waiting = deque(sorted(prompts, key=like_length, reverse=True))
    while waiting:
        batch, size = _take(waiting, sizes, budget.tokens)
        complaint = _complaint(scorer, batch, budget.tokens)
        if complaint is None:
            yield batch
            continue
        a_row = size.prompt + size.answers
        rows = size.rows if len(batch) > 1 else max(1, min(size.rows, budget.tokens // a_row))
        if rows == 1:
            raise ValueError(
                f"memory is too small for a prompt of {size.prompt} tokens with {size.answers} tokens of answers, even "
                "alone: read less of it (max_input_length, --max-input-length), or use a machine with more memory "
                f"({complaint})"
            )
        budget.tokens = max(1, rows * a_row // 2)
        say(f"out of memory with {rows * a_row} tokens at once; going on with {budget.tokens}")
        waiting.extendleft(reversed(batch))


def _take(
    waiting: deque[DistinctPrompt], sizes: Mapping[int, Size], tokens: int
) -> tuple[list[DistinctPrompt], Size]:
    """The next batch, taken off, and what it takes up: at least one prompt, and as many as the budget holds."""
    batch: list[DistinctPrompt] = []
    taken = Size(0, 0, 0)
    while waiting:
        size = sizes[id(waiting[0])]
        grown = Size(taken.rows + size.rows, max(taken.prompt, size.prompt), max(taken.answers, size.answers))
        if batch and grown.rows * (grown.prompt + grown.answers) > tokens:
            break
        batch.append(waiting.popleft())
        taken = grown
    return batch, taken


def _complaint(scorer: Scorer, batch: list[DistinctPrompt], tokens: int) -> str | None:
    """What the allocator says of a batch that does not fit; by then nothing holds its tensors any more."""
    try:
        scorer.score(batch, tokens)
    except (torch.OutOfMemoryError, MemoryError) as error:
        complaint = str(error)
    except RuntimeError as error:
        complaint = str(error)
        if not any(words in complaint for words in _OUT_OF_MEMORY):
            raise
    else:
        return None
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # so that what is left lies in one piece
    return complaint.partition("\n")[0] or "out of memory"
