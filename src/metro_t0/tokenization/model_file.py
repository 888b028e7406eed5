"""What a SentencePiece model file holds beyond what its Python class tells: normaliser, kinds of pieces.

>>> content = Path("sp.model").read_bytes()
>>> read_model(content).normalizer_name
'nmt_nfkc_cf'

The file is a protocol buffer; the few fields read here are those of ``sentencepiece_model.proto``, walked by
hand because SentencePiece's own reader asks for the whole `protobuf` library.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

NORMAL = 1
USER_DEFINED = 4

_UNIGRAM = 1

# Field numbers of ModelProto, SentencePiece, TrainerSpec and NormalizerSpec.
_PIECES, _TRAINER, _NORMALIZER = 1, 2, 3
_PIECE_SCORE, _PIECE_KIND = 2, 3
_MODEL_TYPE, _WHITESPACE_SUFFIX = 3, 24
_NAME, _CHARACTER_MAP, _DUMMY_PREFIX, _REMOVE_EXTRA, _ESCAPE = 1, 2, 3, 4, 5


@dataclass(frozen=True, slots=True)
class ModelFile:
    """Fields of a SentencePiece model.

    Attributes:
        kinds: of each piece: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte.
        character_map: the normaliser's compiled map; empty where characters stay as they are.
        unigram: whether the model is a unigram model.
        whitespace_suffix: whether words carry their space behind instead of before.
    """

    kinds: list[int]
    normalizer_name: str
    character_map: bytes
    add_dummy_prefix: bool
    remove_extra_whitespaces: bool
    escape_whitespaces: bool
    unigram: bool
    whitespace_suffix: bool


def read_model(content: bytes) -> ModelFile:
    """Read the fields of a serialized model that SentencePiece itself has loaded."""
    kinds: list[int] = []
    trainer: dict[int, int] = {}
    numbers: dict[int, int] = {}
    texts: dict[int, bytes] = {}
    for field, start, value in _fields(content, 0, len(content)):
        if field == _PIECES:
            kinds.append(
                next(
                    (kind for part, _, kind in _fields(content, start, start + value) if part == _PIECE_KIND),
                    NORMAL,
                )
            )
        elif field == _TRAINER:
            trainer = {part: number for part, _, number in _fields(content, start, start + value)}
        elif field == _NORMALIZER:
            for part, begin, number in _fields(content, start, start + value):
                numbers[part] = number
                texts[part] = content[begin : begin + number] if part in (_NAME, _CHARACTER_MAP) else b""
    return ModelFile(
        kinds=kinds,
        normalizer_name=texts.get(_NAME, b"").decode(),
        character_map=texts.get(_CHARACTER_MAP, b""),
        add_dummy_prefix=bool(numbers.get(_DUMMY_PREFIX, 1)),
        remove_extra_whitespaces=bool(numbers.get(_REMOVE_EXTRA, 1)),
        escape_whitespaces=bool(numbers.get(_ESCAPE, 1)),
        unigram=trainer.get(_MODEL_TYPE, _UNIGRAM) == _UNIGRAM,
        whitespace_suffix=bool(trainer.get(_WHITESPACE_SUFFIX, 0)),
    )


def round_scores(content: bytes, steps: int) -> bytes:
    """The model with each piece's score rounded to the nearest multiple of ``1 / steps``."""
    changed = bytearray(content)
    for field, start, value in _fields(content, 0, len(content)):
        if field == _PIECES:
            for part, place, _ in _fields(content, start, start + value):
                if part == _PIECE_SCORE:
                    (score,) = struct.unpack_from("<f", content, place)
                    struct.pack_into("<f", changed, place, round(score * steps) / steps)
    return bytes(changed)


def _fields(content: bytes, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Field number, where its value begins, and its value: the number itself, or the length in bytes."""
    while position < end:
        key, position = _varint(content, position)
        kind = key & 7
        if kind == 0:
            start = position
            value, position = _varint(content, position)
        elif kind == 2:
            value, start = _varint(content, position)
            position = start + value
        else:
            start, value = position, {1: 8, 5: 4}[kind]
            position += value
        yield key >> 3, start, value


def _varint(content: bytes, position: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[position]
        value |= (byte & 127) << shift
        position += 1
        shift += 7
        if byte < 128:
            return value, position
