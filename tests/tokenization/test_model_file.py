"""The model file walked by hand against the reader that SentencePiece itself generates."""

from __future__ import annotations

from pathlib import Path

import pytest
import sentencepiece

from metro_t0.tokenization.model_file import read_model, round_scores

generated = pytest.importorskip("sentencepiece.sentencepiece_model_pb2", reason="protobuf is not installed")


def check(content: bytes) -> None:
    expected = generated.ModelProto.FromString(content)
    found = read_model(content)
    spec = expected.normalizer_spec
    assert found.kinds == [piece.type for piece in expected.pieces]
    assert found.normalizer_name == spec.name
    assert found.character_map == spec.precompiled_charsmap
    assert found.add_dummy_prefix == spec.add_dummy_prefix
    assert found.remove_extra_whitespaces == spec.remove_extra_whitespaces
    assert found.escape_whitespaces == spec.escape_whitespaces
    assert found.unigram == (expected.trainer_spec.model_type == expected.trainer_spec.UNIGRAM)
    assert found.whitespace_suffix == expected.trainer_spec.treat_whitespace_as_suffix


def test_own_vocabularies(small_vocabulary: Path, languages_vocabulary: Path) -> None:
    for folder in (small_vocabulary, languages_vocabulary):
        check((folder / "sp.model").read_bytes())


@pytest.mark.parametrize("vocabulary", ["vocab_32k", "vocab_64k"])
def test_published_vocabularies(real_data: Path, vocabulary: str) -> None:
    check((real_data / "vocab" / vocabulary / "sp.model").read_bytes())


def test_fields_that_are_not_the_defaults(small_vocabulary: Path) -> None:
    model = generated.ModelProto.FromString((small_vocabulary / "sp.model").read_bytes())
    model.normalizer_spec.add_dummy_prefix = model.normalizer_spec.escape_whitespaces = False
    model.trainer_spec.model_type = model.trainer_spec.BPE
    model.trainer_spec.treat_whitespace_as_suffix = True
    check(model.SerializeToString())


def test_rounding_changes_the_scores_alone(small_vocabulary: Path) -> None:
    content = (small_vocabulary / "sp.model").read_bytes()
    expected = generated.ModelProto.FromString(content)
    # Trained vocabularies are rounded to 1/256 already.
    assert round_scores(content, 256) == content
    assert all((256 * piece.score).is_integer() for piece in expected.pieces)
    for piece in expected.pieces:
        piece.score = round(4 * piece.score) / 4
    rounded = round_scores(content, 4)
    assert rounded == expected.SerializeToString() != content
    assert sentencepiece.SentencePieceProcessor(model_proto=rounded).encode("it") != []
