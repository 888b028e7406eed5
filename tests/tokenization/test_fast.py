"""The export to `tokenizers`: the ids of SentencePiece, or a refusal that says where they part."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from language_texts import SCRIPTS, sentences
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from metro_t0.data.corpora import read_documents
from metro_t0.tokenization.fast import export_fast, fast_backend, find_differences
from metro_t0.tokenization.sampling import lines_of, random_lines
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer
from metro_t0.tokenization.training import train_tokenizer

VOCABULARIES = ["small_vocabulary", "cased_vocabulary", "languages_vocabulary"]


@pytest.fixture(params=VOCABULARIES)
def tokenizer(request: pytest.FixtureRequest) -> MetroT0Tokenizer:
    return MetroT0Tokenizer.from_pretrained(request.getfixturevalue(request.param))


def published(real_data: Path, vocabulary: str, lower: bool, folder: Path) -> MetroT0Tokenizer:
    for name in ("sp.model", "dict.txt"):
        shutil.copy(real_data / "vocab" / vocabulary / name, folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"lower": lower, "n_sentinel_tokens": 512}))
    return MetroT0Tokenizer.from_pretrained(folder)


def test_same_ids_on_real_text(tokenizer: MetroT0Tokenizer, reference_texts: list[str]) -> None:
    lines = [
        *lines_of(reference_texts),
        *(line for script in SCRIPTS for line in sentences(script, 20, seed=1)),
    ]
    assert len(lines) > 5000
    assert find_differences(tokenizer, fast_backend(tokenizer), lines) == []


def test_same_ids_around_characters_of_every_kind(tokenizer: MetroT0Tokenizer) -> None:
    codes = [*range(0x300), *range(0x2000, 0x2100), *range(0x300, sys.maxunicode, 101)]
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    lines = [f"a{c}b {c} c{c} {c}(D{c}E' S{c} ΑΣ{c} ' LL{c}x" for c in characters]
    assert find_differences(tokenizer, fast_backend(tokenizer), lines) == []


words = st.one_of(
    st.sampled_from(
        ["don't", "x'LL-y", "' s", "' VE.", "``", "''", "ΟΔΟΣ", "ΑΣ.Β", "ﬁn", "½", "İs", "ß", "①", "ｆｕ"]
    ),
    st.sampled_from(
        ["<s>", "</s>", "<unk>", "x<sen001>y", "a[MASK]b", "[MASK]", "<0x41>", "a<0x41>b", "▁", "a▁b"]
    ),
    st.text("abcXYZ019.,!?'\"`-–—’“”()[]<>%$€£°é中あ\u00a0\u3000\t\u200b ", max_size=12),
)


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
    deadline=None,
)
@given(lines=st.lists(st.lists(words, max_size=8).map(" ".join), min_size=1, max_size=6))
def test_same_ids_on_nasty_lines(
    lines: list[str], small_vocabulary: Path, cased_vocabulary: Path, languages_vocabulary: Path
) -> None:
    for folder in (small_vocabulary, cased_vocabulary, languages_vocabulary):
        tokenizer = MetroT0Tokenizer.from_pretrained(folder)
        assert find_differences(tokenizer, fast_backend(tokenizer), lines) == []


def test_the_folder_is_read_by_all_who_read_such_folders(
    tokenizer: MetroT0Tokenizer, reference_texts: list[str], tmp_path: Path
) -> None:
    lines = random_lines(reference_texts, 200, seed=0)
    seen: list[int] = []
    assert export_fast(tokenizer, tmp_path, lines, on_lines=seen.append) == []
    assert sum(seen) == 200
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tokenizer.json", "tokenizer_config.json"]
    backend = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    texts = ["Hello, world: it's <s> </s> <sen001> x<sen002>y!", *lines]
    for fast in (AutoTokenizer.from_pretrained(tmp_path), PreTrainedTokenizerFast.from_pretrained(tmp_path)):
        assert len(fast) == len(tokenizer)
        for name in ("bos", "eos", "pad", "unk", "cls", "sep"):
            assert getattr(fast, f"{name}_token_id") == getattr(tokenizer, f"{name}_token_id")
        for text in texts:
            ids = tokenizer(text).input_ids
            assert fast(text).input_ids == ids
            # Sentinels are decoded, and like the other special tokens never read from a text.
            ids = [*ids, tokenizer.mask_id, tokenizer.mask_id + 1]
            for skip in (True, False):
                assert fast.decode(ids, skip_special_tokens=skip) == tokenizer.decode(
                    ids, skip_special_tokens=skip
                )
        assert fast(texts[0], texts[1]).input_ids == tokenizer(texts[0], texts[1]).input_ids
        batches = [
            each(
                texts[:3], padding=True, truncation=True, max_length=9, return_tensors="pt"
            ).input_ids.tolist()
            for each in (fast, tokenizer)
        ]
        assert batches[0] == batches[1]
    assert backend.token_to_id("<sen000>") == tokenizer.mask_id


def with_near_ties(folder: Path, source: Path) -> MetroT0Tokenizer:
    """A vocabulary whose scores are so large that 32 bits lose what tells two cuts of a word apart."""
    generated = pytest.importorskip(
        "sentencepiece.sentencepiece_model_pb2", reason="protobuf is not installed"
    )
    shutil.copytree(source, folder)
    model = generated.ModelProto.FromString((folder / "sp.model").read_bytes())
    for piece in model.pieces:
        if piece.type == piece.NORMAL:
            piece.score -= 100_000
    (folder / "sp.model").write_bytes(model.SerializeToString())
    return MetroT0Tokenizer.from_pretrained(folder)


def test_a_refusal_says_where(small_vocabulary: Path, reference_texts: list[str], tmp_path: Path) -> None:
    tokenizer = with_near_ties(tmp_path / "ties", small_vocabulary)
    lines = random_lines(reference_texts, 2000, seed=0)
    differences = find_differences(tokenizer, fast_backend(tokenizer), lines)
    assert 0 < len(differences) < 2000
    first = differences[0]
    assert first.line == lines[first.number - 1]
    assert first.sentencepiece == tokenizer.convert_ids_to_tokens(tokenizer.encode_texts([first.line])[0])
    assert first.fast != first.sentencepiece
    assert "".join(first.fast) == "".join(first.sentencepiece)

    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError) as caught:
        export_fast(tokenizer, tmp_path / "out", lines, tolerated=len(differences) - 1)
    message = str(caught.value)
    assert f"{len(differences)} of 2000 lines" in message
    assert f"Line {first.number} of those compared, {first.line[:60]!r}" in message
    place = next(
        n for n, pair in enumerate(zip(first.sentencepiece, first.fast, strict=False)) if len(set(pair)) > 1
    )
    for pieces in (first.sentencepiece, first.fast):
        assert " ".join(pieces[place : place + 3]) in message
    assert list((tmp_path / "out").iterdir()) == []

    assert export_fast(tokenizer, tmp_path / "out", lines, tolerated=len(differences)) == differences
    assert (tmp_path / "out" / "tokenizer.json").is_file()


def test_what_has_no_twin(small_vocabulary: Path, tmp_path: Path) -> None:
    tokenizer = MetroT0Tokenizer.from_pretrained(small_vocabulary)
    with pytest.raises(ValueError, match="there is no line to compare"):
        export_fast(tokenizer, tmp_path, [])
    shutil.copytree(small_vocabulary, tmp_path / "lacking")
    dictionary = tmp_path / "lacking" / "dict.txt"
    dictionary.write_text(dictionary.read_text(encoding="utf-8").replace("▁the 1\n", ""), encoding="utf-8")
    with pytest.raises(ValueError, match="its dictionary lacks 1 pieces, such as '▁the'"):
        fast_backend(MetroT0Tokenizer.from_pretrained(tmp_path / "lacking"))
    generated = pytest.importorskip(
        "sentencepiece.sentencepiece_model_pb2", reason="protobuf is not installed"
    )
    model = generated.ModelProto.FromString((small_vocabulary / "sp.model").read_bytes())
    model.normalizer_spec.add_dummy_prefix = False
    shutil.copytree(small_vocabulary, tmp_path / "bare")
    (tmp_path / "bare" / "sp.model").write_bytes(model.SerializeToString())
    with pytest.raises(ValueError, match="not a unigram model that marks the space before a word"):
        fast_backend(MetroT0Tokenizer.from_pretrained(tmp_path / "bare"))


@pytest.mark.parametrize(
    ("vocabulary", "lower"), [("vocab_32k", True), ("vocab_64k", True), ("vocab_64k", False)]
)
def test_published_vocabularies_on_some_real_lines(
    vocabulary: str, lower: bool, real_data: Path, tmp_path: Path
) -> None:
    tokenizer = published(real_data, vocabulary, lower, tmp_path)
    texts = (document.text for document in read_documents([str(real_data / "pretrain" / "wiki*.xz")]))
    lines = random_lines(texts, 1500, seed=5)
    # Near-ties are a few in 100,000 lines.
    assert len(find_differences(tokenizer, fast_backend(tokenizer), lines)) <= 2


@pytest.mark.slow
def test_a_hundred_thousand_real_lines(real_data: Path, tmp_path: Path) -> None:
    texts = [document.text for document in read_documents([str(real_data / "pretrain" / "*.jsonl.xz")])]
    lines = random_lines(texts, 100_000, seed=0)
    for vocabulary, lower in (("vocab_32k", True), ("vocab_64k", True), ("vocab_64k", False)):
        tokenizer = published(real_data, vocabulary, lower, tmp_path)
        differences = find_differences(tokenizer, fast_backend(tokenizer), lines)
        assert len(differences) <= 20
        # The same text, cut otherwise: never another normalisation.
        assert all("".join(each.sentencepiece) == "".join(each.fast) for each in differences)
    for name, normalizer, lower in (("a", "english", True), ("b", "english", False), ("c", "neutral", False)):
        tokenizer = train_tokenizer(
            texts, 8000, tmp_path / name, normalizer=normalizer, lower=lower, sample_characters=5_000_000
        )
        assert find_differences(tokenizer, fast_backend(tokenizer), lines) == []
