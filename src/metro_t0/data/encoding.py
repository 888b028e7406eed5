"""Documents to token blocks, on several processes, in the order of the documents.

``encode_documents`` streams: a bounded number of batches is in flight, so a corpus of any size goes through.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from metro_t0.data.blocks import pack_document

if TYPE_CHECKING:
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

_BATCH_CHARACTERS = 400_000
_BATCHES_IN_FLIGHT_A_PROCESS = 3


@dataclass(frozen=True, slots=True)
class TextBatch:
    """Documents to encode: their numbers and texts, all held out or none."""

    numbers: list[int]
    texts: list[str]
    held_out: bool

    @property
    def characters(self) -> int:
        return sum(map(len, self.texts))


@dataclass(frozen=True, slots=True)
class BlockBatch:
    """The blocks of a ``TextBatch``.

    Attributes:
        tokens: ids of all blocks, one after the other, ``[tokens]``.
        lengths: tokens of each block, ``[blocks]``.
        documents: number of each block's document, ``[blocks]``.
        lines, cut_lines, blank_lines: lines packed; those longer than a block; those that held no token.
        dropped_blocks: blocks of a single token, left out.
        unknown_tokens: tokens that are ``<unk>``.
    """

    tokens: np.ndarray
    lengths: np.ndarray
    documents: np.ndarray
    lines: int
    cut_lines: int
    blank_lines: int
    dropped_blocks: int
    unknown_tokens: int


def batch_texts(texts: Iterable[str], held_out: np.ndarray) -> Iterator[TextBatch]:
    """Group documents into batches of about equal size, held-out ones apart; ``held_out`` is ``[documents]``."""
    pending = {False: TextBatch([], [], False), True: TextBatch([], [], True)}
    sizes = {False: 0, True: 0}
    for number, (text, hidden) in enumerate(zip(texts, held_out.tolist(), strict=True)):
        pending[hidden].numbers.append(number)
        pending[hidden].texts.append(text)
        sizes[hidden] += len(text)
        if sizes[hidden] >= _BATCH_CHARACTERS:
            yield pending[hidden]
            pending[hidden], sizes[hidden] = TextBatch([], [], hidden), 0
    yield from (batch for batch in pending.values() if batch.texts)


def encode_documents(
    batches: Iterable[TextBatch], tokenizer: Path, *, max_length: int, processes: int
) -> Iterator[tuple[TextBatch, BlockBatch]]:
    """Tokenise and pack batches in their order, on ``processes`` processes (1: in this one)."""
    if processes == 1:
        for batch in batches:
            yield batch, encode_batch(batch, tokenizer, max_length)
        return
    # Forking shares what is already imported; elsewhere than on Linux it is not safe.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    pool = ProcessPoolExecutor(
        processes, mp_context=context, initializer=_begin_worker, initargs=(os.getpid(),)
    )
    try:
        in_flight: deque[tuple[TextBatch, Future[BlockBatch]]] = deque()
        for batch in batches:
            in_flight.append((batch, pool.submit(encode_batch, batch, tokenizer, max_length)))
            if len(in_flight) >= processes * _BATCHES_IN_FLIGHT_A_PROCESS:
                done, future = in_flight.popleft()
                yield done, future.result()
        for done, future in in_flight:
            yield done, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


def encode_batch(batch: TextBatch, tokenizer: Path, max_length: int) -> BlockBatch:
    """Tokenise the lines of some documents and pack each document's into blocks of at most ``max_length``."""
    encoder = _load(tokenizer)
    lines = [[line for line in text.splitlines() if line and not line.isspace()] for text in batch.texts]
    encoded = iter(encoder.encode_texts([line for document in lines for line in document]))
    blocks: list[list[int]] = []
    numbers: list[int] = []
    cut_lines = dropped_blocks = blank_lines = 0
    for number, document in zip(batch.numbers, lines, strict=True):
        ids = [next(encoded) for _ in document]
        packed = pack_document(
            ids, max_length=max_length, bos_token_id=encoder.bos_token_id, eos_token_id=encoder.eos_token_id
        )
        blocks += packed.blocks
        numbers += [number] * len(packed.blocks)
        cut_lines += packed.cut_lines
        dropped_blocks += packed.dropped_blocks
        blank_lines += sum(not line for line in ids)
    tokens = np.fromiter((token for block in blocks for token in block), token_dtype(len(encoder)))
    return BlockBatch(
        tokens=tokens,
        lengths=np.array([len(block) for block in blocks], np.int32),
        documents=np.array(numbers, np.int32),
        lines=sum(map(len, lines)) - blank_lines,
        cut_lines=cut_lines,
        blank_lines=blank_lines,
        dropped_blocks=dropped_blocks,
        unknown_tokens=int((tokens == encoder.unk_token_id).sum()),
    )


def token_dtype(vocabulary_size: int) -> type[np.uint16] | type[np.int32]:
    """The smallest type that columns of token ids are kept in."""
    return np.uint16 if vocabulary_size <= 1 << 16 else np.int32


def available_processes() -> int:
    """CPU cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _begin_worker(parent: int) -> None:
    """Leave interrupts to the parent, and end with it even if it was killed (idle workers would wait for ever)."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@lru_cache(maxsize=1)
def _load(tokenizer: Path) -> MetroT0Tokenizer:
    from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

    return MetroT0Tokenizer.from_pretrained(str(tokenizer))
