"""A small real vocabulary, in a module of its own: what travels to other processes is found by its module's name."""

from __future__ import annotations

import io
from collections.abc import Iterable

import sentencepiece

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
