"""Ranking on several processes, one a GPU, that torchrun or another launcher has started.

    with Processes.from_environment() as processes:          # alone without a launcher
        with processes.together():                           # one's error is everyone's
            model, tokenizer = load_model(path, device=processes.device)
        results = rank_together(processes, model, tokenizer, prompts, choices)     # all results, on every process
        if processes.is_main:
            ...                                              # write them

Words between processes go through gloo whatever the devices are: they are few and are no tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Self, TypeVar

from metro_t0.launcher import LaunchedProcess

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from metro_t0.evaluation.ranking.budget import TokenBudget
    from metro_t0.evaluation.ranking.rank import RankResult

Item = TypeVar("Item")

# How long processes wait for a slower one; a process that died is noticed at once.
_PATIENCE = timedelta(hours=2)


class Processes(LaunchedProcess):
    """The processes that work on one evaluation; without arguments a lone one. Talking needs the ``with``."""

    @property
    def device(self) -> str:
        """The GPU of this process where there are GPUs, else ``cpu``.

        Raises:
            ValueError: the machine has fewer GPUs than processes.
        """
        import torch

        if not torch.cuda.is_available():
            return "cpu"
        return f"cuda:{self.own_gpu(torch.cuda.device_count())}"

    def __enter__(self) -> Self:
        if self.size > 1:
            from torch import distributed

            distributed.init_process_group("gloo", rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        return self

    def __exit__(self, *error: object) -> None:
        if self.size > 1:
            from torch import distributed

            distributed.destroy_process_group()

    def share(self, number: int) -> range:
        """Which of so many items are this process's: every ``size``-th."""
        return range(self.rank, number, self.size)

    def gather(self, items: Sequence[Item]) -> list[Item]:
        """All processes' items in their common order, on every process; each gives those of its :meth:`share`."""
        dealt = zip_longest(*self._all(list(items)), fillvalue=_NOTHING)
        return [item for turn in dealt for item in turn if item is not _NOTHING]

    def broadcast(self, item: Item) -> Item:
        """The main process's item, on every process."""
        if self.size == 1:
            return item
        from torch import distributed

        given = [item]
        distributed.broadcast_object_list(given, src=0)
        return given[0]

    @contextmanager
    def together(self) -> Iterator[None]:
        """What every process does for itself and none leaves before the others; no word between them inside.

        Raises:
            ValueError: another process raised something; its message. A process's own error is raised as it is.
        """
        own: Exception | None = None
        try:
            yield
        except Exception as error:
            own = error
        said = self._all(_words(own))
        if own is not None:
            raise own
        for words in said:
            if words is not None:
                raise ValueError(words)

    def _all(self, item: Item) -> list[Item]:
        """One item of each process, in the order of the processes."""
        if self.size == 1:
            return [item]
        from torch import distributed

        items: list[Any] = [None] * self.size
        distributed.all_gather_object(items, item)
        return items


_NOTHING: Any = object()


def _words(error: Exception | None) -> str | None:
    """What others hear of an error; an unexpected one says what it was, its traceback stays with its process."""
    if error is None or isinstance(error, ValueError):
        return None if error is None else str(error)
    return f"another process failed: {type(error).__name__}: {error}"


def rank_together(
    processes: Processes,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[str],
    choices: Sequence[Sequence[str]],
    *,
    max_input_length: int = 512,
    max_choice_length: int = 256,
    batch_tokens: int | TokenBudget | None = None,
    advance: Callable[[int], None] = lambda rows: None,
    say: Callable[[str], None] = lambda line: None,
) -> list[RankResult]:
    """:func:`metro_t0.evaluation.ranking.rank.rank_rows`, each process ranking its share of the prompts.

    All processes call it with the same rows, and all get all results, in the order of the rows. Prompts are dealt by
    length, equal ones to the same process. ``advance`` hears this process's progress as if it were that of all.

    Raises:
        ValueError: on all processes, if any of them raised one.
    """
    from metro_t0.evaluation.ranking.rank import check_rows, rank_rows

    check_rows(prompts, choices)
    hands = _hands(prompts)
    own = [hands[index] for index in processes.share(len(hands))]
    rows = [row for hand in own for row in hand]
    done = told = 0

    def advance_all(more: int) -> None:
        nonlocal done, told
        done += more
        now = done * len(prompts) // len(rows)
        advance(now - told)
        told = now

    with processes.together():
        ranked = rank_rows(
            model,
            tokenizer,
            [prompts[row] for row in rows],
            [choices[row] for row in rows],
            max_input_length=max_input_length,
            max_choice_length=max_choice_length,
            batch_tokens=batch_tokens,
            advance=advance_all,
            say=say if processes.size == 1 else lambda line: say(f"process {processes.rank}: {line}"),
        )
    advance(len(prompts) - told)
    result_of = dict(zip(rows, ranked, strict=True))
    gathered = processes.gather([[result_of[row] for row in hand] for hand in own])
    for hand, results in zip(hands, gathered, strict=True):
        result_of.update(zip(hand, results, strict=True))
    return [result_of[row] for row in range(len(prompts))]


def _hands(prompts: Sequence[str]) -> list[list[int]]:
    """The rows of each distinct prompt, the longest prompt first: what is dealt in turn is alike in work."""
    rows_of: dict[str, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows_of.setdefault(prompt, []).append(row)
    return [rows_of[prompt] for prompt in sorted(rows_of, key=len, reverse=True)]
