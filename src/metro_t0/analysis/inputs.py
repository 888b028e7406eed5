"""What the analyses read: rows of text and prompts with their answers, in a model's own tokens.

text = read_text(Path("prepared"), tokenizer, rows=64, longest=512, seed=0)
questions = read_prompts("suite.yaml", rows=64, seed=0, templates=None, data_root=Path("data"))
prompts = encode_prompts(questions, tokenizer, longest_input=512, longest_answer=256)
batches = cut_into_batches(prompts.rows, batch_tokens=4096)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from metro_t0.data.blocks import pack_document
from metro_t0.data.corpora import read_documents
from metro_t0.data.prepare import PreparedCorpus
from metro_t0.data.rows import TokenRows
from metro_t0.evaluation.questions import ask
from metro_t0.evaluation.suite_file import load_suite
from metro_t0.objectives.base import Row
from metro_t0.tokenization.inspection import open_tokenizer, vocabulary_difference
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

# Of a text file, rows are drawn from so many times as many blocks at its beginning.
_BLOCKS_A_ROW = 16


@dataclass(frozen=True)
class Rows:
    """Rows of token ids.

    Attributes:
        rows: ``{"input_ids": [length]}``, of prompts with ``"labels"``, int64.
        note: what was done to get them, for the record; empty where nothing is to be said.
    """

    rows: list[Row]
    note: str = ""

    @property
    def tokens(self) -> int:
        """Of all rows and columns."""
        return sum(column.size for row in self.rows for column in row.values())


def read_text(source: Path, tokenizer: MetroT0Tokenizer, *, rows: int, longest: int, seed: int) -> Rows:
    """Blocks of a prepared corpus's held-out part, or of a text file, at random.

    A corpus that was prepared with another vocabulary is read back to text, block by block, and tokenized anew.

    Args:
        source: a folder of ``metro-t0 prepare``, or a file that it could read.
        tokenizer: of the model.
        rows: how many blocks at most.
        longest: tokens of a block, specials included; what is beyond is cut.
        seed: of the choice.

    Raises:
        ValueError: there is no such corpus or file, or it holds no text.
    """
    if source.is_file():
        blocks = _blocks_of_file(source, tokenizer, rows * _BLOCKS_A_ROW, longest)
        return Rows([{"input_ids": blocks[index]} for index in _choice(len(blocks), rows, seed)])
    if not source.exists():
        raise ValueError(
            f"there is no text at {source}: give a folder of 'metro-t0 prepare' or a file of text (.txt, .jsonl, ...)"
        )
    corpus = PreparedCorpus.load(source)
    stored = TokenRows(corpus.validation, ("input_ids",))
    chosen = [stored[index]["input_ids"].astype(np.int64) for index in _choice(len(stored), rows, seed)]
    if not chosen:
        raise ValueError(f"{source} has no held-out text: prepare it with a larger --validation-fraction")
    own = open_tokenizer(corpus.tokenizer)
    difference = vocabulary_difference(tokenizer, own)
    if difference is None:
        return Rows([{"input_ids": ids[:longest]} for ids in chosen])
    texts = [str(own.decode(ids.tolist(), skip_special_tokens=True)) for ids in chosen]
    return Rows(
        [{"input_ids": ids} for ids in _framed(tokenizer, texts, longest, begin=True)],
        f"the corpus's vocabulary is not the model's ({difference}): its blocks were read back to text and tokenized "
        "anew",
    )


def _blocks_of_file(source: Path, tokenizer: MetroT0Tokenizer, most: int, longest: int) -> list[np.ndarray]:
    blocks: list[np.ndarray] = []
    for document in read_documents([source]):
        lines = tokenizer.encode_texts(document.text.splitlines())
        packed = pack_document(
            lines,
            max_length=longest,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
        blocks += [np.array(block, dtype=np.int64) for block in packed.blocks]
        if len(blocks) >= most:
            return blocks[:most]
    if not blocks:
        raise ValueError(f"{source} holds no text")
    return blocks


def read_prompts(
    suite: str | Path, *, rows: int, seed: int, templates: Path | None = None, data_root: Path | None = None
) -> list[tuple[str, str]]:
    """Questions and their right answers from a suite's or a mixture's file, evenly over tasks and templates.

    Args:
        suite: ``t0``, ``mmlu``, or a file, as ``metro-t0 evaluate`` takes it.
        rows: how many questions at most.
        seed: of the order and of what templates draw.
        templates: takes the place of the file's own.
        data_root: takes the place of the file's own.

    Raises:
        ValueError: the file or its data is not there or broken, or no template has answers to choose from.
    """
    tasks = load_suite(suite, templates=templates, data_root=data_root).tasks
    each = -(-rows // len(tasks))
    turns: list[list[tuple[str, str]]] = []
    for task in tasks:
        for asked in ask(task, limit=each, seed=seed).questions:
            answers = [choices[gold] for choices, gold in zip(asked.choices, asked.golds, strict=True)]
            turns.append(list(zip(asked.prompts, answers, strict=True)))
    if not turns:
        raise ValueError(
            f"{suite}: no template has answer_choices, so that no question has one right answer to be measured"
        )
    # First each template's first question, then each one's second: evenly, whatever the templates are.
    longest = max(map(len, turns))
    in_turn = [
        questions[(place + number) % len(questions)]
        for place in range(longest)
        for number, questions in enumerate(turns)
        if place < len(questions)
    ]
    return [in_turn[index] for index in np.random.default_rng(seed).permutation(min(rows, len(in_turn)))]


def encode_prompts(
    questions: Sequence[tuple[str, str]],
    tokenizer: MetroT0Tokenizer,
    *,
    longest_input: int,
    longest_answer: int,
) -> Rows:
    """Rows as finetuning has them: ``<s> prompt </s>`` and ``answer </s>``; what is longer is cut before the end."""
    inputs = _framed(tokenizer, [question for question, _ in questions], longest_input, begin=True)
    labels = _framed(tokenizer, [answer for _, answer in questions], longest_answer, begin=False)
    return Rows([{"input_ids": one, "labels": other} for one, other in zip(inputs, labels, strict=True)])


def _framed(
    tokenizer: MetroT0Tokenizer, texts: Sequence[str], longest: int, *, begin: bool
) -> list[np.ndarray]:
    start = [tokenizer.bos_token_id] if begin else []
    room = longest - len(start) - 1
    # Whitespace is collapsed, as when a mixture is built.
    encoded = tokenizer.encode_texts([" ".join(text.split()) for text in texts])
    return [np.array([*start, *ids[:room], tokenizer.eos_token_id], dtype=np.int64) for ids in encoded]


def cut_into_batches(rows: Sequence[Row], batch_tokens: int) -> list[list[int]]:
    """Places of rows in their order, as many a batch as make at most ``batch_tokens`` padded tokens; at least one.

    Rows are not sorted by length: a batch of one kind of prompt would have another gradient than a mixed one.
    """
    batches: list[list[int]] = []
    widths: dict[str, int] = {}
    for place, row in enumerate(rows):
        widths = {name: max(ids.size, widths.get(name, 0)) for name, ids in row.items()}
        if not batches or (len(batches[-1]) + 1) * sum(widths.values()) > batch_tokens:
            batches.append([])
            widths = {name: ids.size for name, ids in row.items()}
        batches[-1].append(place)
    return batches


def _choice(number: int, wanted: int, seed: int) -> Iterator[int]:
    yield from np.random.default_rng(seed).choice(number, min(wanted, number), replace=False).tolist()
