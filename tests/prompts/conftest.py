"""Small templates, rows and a small real vocabulary for the tests of prompts."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
import yaml

WORDS = """
the river is wide and cold a small boat crosses it every morning before the market opens yes no good bad
is this true or false what colour has the stone in her hand red green blue she said that nobody knows
0 1 2 3 4 5 6 7 8 9
""".split()  # noqa: SIM905


class SmallTokenizer:
    """A real SentencePiece vocabulary behind the interface that building needs."""

    bos_token_id = 0
    eos_token_id = 2

    def __init__(self) -> None:
        model = io.BytesIO()
        sentences = [" ".join(WORDS[start : start + 9]) for start in range(len(WORDS))] * 3
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(sentences),
            model_writer=model,
            vocab_size=120,
            hard_vocab_limit=False,
            minloglevel=2,
        )
        self.pieces = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
        self.texts = 0

    def __len__(self) -> int:
        return 4 + len(self.pieces)

    def encode_texts(self, texts: list[str]) -> list[list[int]]:
        self.texts += len(texts)
        return [[4 + token for token in ids] for ids in self.pieces.encode(texts)]

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return ["", *"abc"][: len(ids)] + [str(self.pieces.id_to_piece(token - 4)) for token in ids[4:]]

    def decode(self, ids: Iterable[int]) -> str:
        return str(self.pieces.decode([int(token) - 4 for token in ids if token >= 4]))


@pytest.fixture(scope="session")
def small_tokenizer() -> SmallTokenizer:
    return SmallTokenizer()


WriteTemplates = Callable[..., Path]


@pytest.fixture
def write_templates(tmp_path: Path) -> WriteTemplates:
    """Writes a templates file: name -> (jinja, answer choices) or a whole entry; gives its path."""

    def write(path: str, **templates: Any) -> Path:
        entries = {}
        for number, (name, given) in enumerate(templates.items()):
            entry = (
                dict(given) if isinstance(given, Mapping) else {"jinja": given[0], "answer_choices": given[1]}
            )
            entries[f"id-{number}"] = {"name": name.replace("_", " "), **entry}
        target = tmp_path / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(
            yaml.safe_dump({"dataset": "boats", "templates": entries}, allow_unicode=True), "utf-8"
        )
        return target

    return write


def _write_json_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


@pytest.fixture
def write_json_lines() -> Callable[..., Path]:
    return _write_json_lines


def _boat_rows(number: int) -> list[dict[str, Any]]:
    return [
        {"text": f"boat {row} " + " ".join(WORDS[row % 30 : row % 30 + 5]), "label": row % 2}
        for row in range(number)
    ]


@pytest.fixture
def boat_rows() -> Callable[[int], list[dict[str, Any]]]:
    """Makes rows with a text of their own and a label that takes turns."""
    return _boat_rows
