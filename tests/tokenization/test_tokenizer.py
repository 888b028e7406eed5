"""The tokenizer: ids, specials and sentinels, batches, saving, and the official answers where given."""

from __future__ import annotations

import gzip
import json
import multiprocessing
import pickle
import shutil
from pathlib import Path

import pytest
import sentencepiece
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from transformers import dynamic_module_utils

from metro_t0.tokenization import normalizer as normalizer_module
from metro_t0.tokenization import tokenizer as tokenizer_module
from metro_t0.tokenization.normalizer import TextNormalizer
from metro_t0.tokenization.tokenizer import FairseqT5Tokenizer, MetroT0Tokenizer

BOS, PAD, EOS, UNK = 0, 1, 2, 3


@pytest.fixture
def tokenizer(small_vocabulary: Path) -> MetroT0Tokenizer:
    return MetroT0Tokenizer.from_pretrained(small_vocabulary)


def published_like(folder: Path, source: Path, **changes: object) -> Path:
    """``source`` with changes to its settings; None takes one out."""
    shutil.copytree(source, folder)
    file = folder / "tokenizer_config.json"
    content = {**json.loads(file.read_text()), **changes}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
    return folder


def test_ids_are_sentencepiece_ids_of_the_normalised_text(
    tokenizer: MetroT0Tokenizer, small_vocabulary: Path, reference_texts: list[str]
) -> None:
    processor = sentencepiece.SentencePieceProcessor(model_file=str(small_vocabulary / "sp.model"))
    normalize = TextNormalizer(True)
    expected = [processor.encode(normalize(text)) for text in reference_texts[:20]]
    assert tokenizer.encode_texts(reference_texts[:20]) == expected
    assert tokenizer(reference_texts[:20]).input_ids == [[BOS, *ids, EOS] for ids in expected]


any_text = st.text(st.characters(exclude_categories=[]))


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(texts=st.lists(any_text, max_size=4), num_threads=st.integers(1, 2))
def test_call_and_encode_texts_agree(tokenizer: MetroT0Tokenizer, texts: list[str], num_threads: int) -> None:
    for text, ids in zip(texts, tokenizer.encode_texts(texts, num_threads=num_threads), strict=True):
        # The call alone answers <unk> to a text that is not empty but of which nothing is left.
        assert tokenizer(text).input_ids == [BOS, *(ids or [UNK] * bool(text)), EOS]
        assert tokenizer.convert_tokens_to_ids(tokenizer.tokenize(text)) == (ids or [UNK] * bool(text))
        assert all(UNK <= id_ < tokenizer.mask_id for id_ in ids)


def test_a_pair_is_set_apart_by_two_separators(tokenizer: MetroT0Tokenizer) -> None:
    first, second = tokenizer.encode_texts(["the first", "the second"])
    assert tokenizer("the first", "the second").input_ids == [BOS, *first, EOS, EOS, *second, EOS]


def test_padding_truncation_and_masks(tokenizer: MetroT0Tokenizer) -> None:
    texts = ["a function", "a much longer sentence about the function and its many arguments"]
    long = tokenizer.encode_texts(texts)[1]
    batch = tokenizer(texts, padding=True, truncation=True, max_length=8, return_tensors="pt")
    assert batch.input_ids.shape == (2, 8)
    assert batch.input_ids[1].tolist() == [BOS, *long[:6], EOS]
    assert torch.equal(batch.attention_mask, (batch.input_ids != PAD).long())
    assert batch.input_ids[0, -1] == PAD
    assert sorted(batch) == ["attention_mask", "input_ids"]
    padded = tokenizer(texts[0], padding="max_length", max_length=16, return_special_tokens_mask=True)
    assert len(padded.input_ids) == 16
    special = [id_ in (BOS, PAD, EOS) for id_ in padded.input_ids]
    assert [bool(mask) for mask in padded.special_tokens_mask] == special


def test_special_ids(tokenizer: MetroT0Tokenizer) -> None:
    assert (tokenizer.bos_token_id, tokenizer.cls_token_id) == (BOS, BOS)
    assert (tokenizer.eos_token_id, tokenizer.sep_token_id) == (EOS, EOS)
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (PAD, UNK)
    assert (len(tokenizer), tokenizer.vocab_size, tokenizer.mask_id) == (1064, 1064, 1000)
    assert tokenizer.num_sentinel_tokens == 64
    assert len(tokenizer.get_vocab()) == 1064


def test_sentinels_convert_both_ways_but_only_by_id(tokenizer: MetroT0Tokenizer) -> None:
    ids = list(range(1000, 1064))
    names = [f"<sen{number:03d}>" for number in range(64)]
    assert tokenizer.convert_ids_to_tokens(ids) == names
    assert tokenizer.convert_tokens_to_ids(names) == ids
    assert max(tokenizer("<sen001> [MASK] <sen000>").input_ids) < 1000
    word = tokenizer.encode_texts(["function"])[0]
    assert tokenizer.decode([BOS, *word, 1001, EOS], skip_special_tokens=True) == "function<sen001>"


def test_ids_outside_the_vocabulary_decode_as_unknown(tokenizer: MetroT0Tokenizer) -> None:
    assert tokenizer.convert_ids_to_tokens([-100, 1064, 10**9]) == ["<unk>"] * 3


def test_decoding_cleans_up_spaces(tokenizer: MetroT0Tokenizer) -> None:
    ids = tokenizer("Yes, it's a function. Isn't it?").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "yes, it's a function. isn't it?"
    untouched = tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert untouched == "yes , it's a function . isn't it ?"
    assert tokenizer.batch_decode([ids, [EOS]], skip_special_tokens=True)[1] == ""
    assert tokenizer.decode([BOS, *tokenizer.encode_texts(["the"])[0], EOS]) == "<s> the</s>"


def test_special_tokens_in_a_text(
    tokenizer: MetroT0Tokenizer, small_vocabulary: Path, tmp_path: Path
) -> None:
    text = "the <unk> of</s> it"
    the, of, it, end = tokenizer.encode_texts(["the", "of", "it", "</s>"])
    published = MetroT0Tokenizer.from_pretrained(
        published_like(tmp_path / "published", small_vocabulary, split_special_tokens=None)
    )
    assert published(text).input_ids == [BOS, *the, UNK, *of, EOS, *it, EOS]
    # A vocabulary of ours takes them as text, and encode_texts does so with every vocabulary.
    assert EOS not in end
    assert tokenizer(text).input_ids == [BOS, *tokenizer.encode_texts([text])[0], EOS]
    assert published.encode_texts([text]) == tokenizer.encode_texts([text])


def test_empty_and_blank_texts(tokenizer: MetroT0Tokenizer) -> None:
    assert tokenizer(["", "\n"]).input_ids == [[BOS, EOS], [BOS, UNK, EOS]]
    assert tokenizer.encode_texts(["", "\n"]) == [[], []]
    assert tokenizer.encode_texts([]) == []


def test_halves_of_surrogate_pairs(tokenizer: MetroT0Tokenizer) -> None:
    split_pair, lone = "the \ud83d\ude00", "the \ud83d"
    assert tokenizer.encode_texts([split_pair, lone]) == tokenizer.encode_texts(
        ["the \U0001f600", "the \ufffd"]
    )
    assert tokenizer(lone).input_ids == tokenizer("the \ufffd").input_ids


def test_saving_and_loading(tokenizer: MetroT0Tokenizer, small_vocabulary: Path, tmp_path: Path) -> None:
    text = "Saved, and loaded: “twice”."
    tokenizer.save_pretrained(tmp_path / "once")
    MetroT0Tokenizer.from_pretrained(tmp_path / "once").save_pretrained(tmp_path / "twice")
    again = MetroT0Tokenizer.from_pretrained(tmp_path / "twice")
    assert again(text).input_ids == tokenizer(text).input_ids
    assert (len(again), again.lower, again.mask_id) == (1064, True, 1000)
    for folder in ("once", "twice"):
        assert sorted(file.name for file in (tmp_path / folder).iterdir()) == [
            "dict.txt",
            "sp.model",
            "tokenizer_config.json",
        ]
        for name in ("sp.model", "dict.txt"):
            assert (tmp_path / folder / name).read_bytes() == (small_vocabulary / name).read_bytes()
        saved = (tmp_path / folder / "tokenizer_config.json").read_text()
        assert json.loads(saved)["tokenizer_class"] == "FairseqT5Tokenizer"
        assert str(tmp_path.parent) not in saved


def test_a_saved_tokenizer_needs_none_of_its_old_files(tokenizer: MetroT0Tokenizer, tmp_path: Path) -> None:
    tokenizer.save_pretrained(tmp_path / "old")
    loaded = MetroT0Tokenizer.from_pretrained(tmp_path / "old")
    shutil.rmtree(tmp_path / "old")
    loaded.save_pretrained(tmp_path / "new")
    assert MetroT0Tokenizer.from_pretrained(tmp_path / "new").encode_texts(["it"]) == tokenizer.encode_texts(
        ["it"]
    )


def test_added_tokens_follow_the_sentinels(tokenizer: MetroT0Tokenizer, tmp_path: Path) -> None:
    assert tokenizer.add_tokens(["<extra>"]) == 1
    tokenizer.save_pretrained(tmp_path)
    for each in (tokenizer, MetroT0Tokenizer.from_pretrained(tmp_path)):
        each.split_special_tokens = False
        assert len(each) == 1065
        assert 1064 in each("a <extra> b").input_ids
        assert each.mask_id == 1000


def test_another_order_of_the_dictionary_is_served(
    tokenizer: MetroT0Tokenizer, small_vocabulary: Path, tmp_path: Path
) -> None:
    folder = published_like(tmp_path / "reversed", small_vocabulary)
    lines = (small_vocabulary / "dict.txt").read_text(encoding="utf-8").splitlines()
    dropped = "▁the 1"
    lines = [line for line in reversed(lines) if line != dropped]
    (folder / "dict.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    other = MetroT0Tokenizer.from_pretrained(folder)
    assert len(other) == 1063
    text = "the function is in the module"
    pieces = tokenizer.tokenize(text)
    expected = [UNK if piece == "▁the" else 4 + lines.index(f"{piece} 1") for piece in pieces]
    assert other.encode_texts([text]) == [expected]
    assert other(text).input_ids == [BOS, *expected, EOS]
    assert other.convert_ids_to_tokens([4]) == [lines[0].split(" ")[0]]


def test_without_a_dictionary_the_ids_are_sentencepieces(
    tokenizer: MetroT0Tokenizer, small_vocabulary: Path, tmp_path: Path
) -> None:
    folder = published_like(tmp_path / "bare", small_vocabulary)
    (folder / "dict.txt").unlink()
    bare = MetroT0Tokenizer.from_pretrained(folder)
    assert bare.get_vocab() == tokenizer.get_vocab()
    bare.save_pretrained(tmp_path / "saved")
    assert not (tmp_path / "saved" / "dict.txt").exists()
    assert MetroT0Tokenizer.from_pretrained(tmp_path / "saved").encode_texts(
        ["it"]
    ) == tokenizer.encode_texts(["it"])


def test_errors_name_the_file(small_vocabulary: Path, tmp_path: Path) -> None:
    broken = published_like(tmp_path / "broken", small_vocabulary)
    (broken / "sp.model").write_bytes(b"not a model")
    with pytest.raises(ValueError, match=r"sp\.model is not a SentencePiece model"):
        MetroT0Tokenizer.from_pretrained(broken)
    twice = published_like(tmp_path / "twice", small_vocabulary)
    with (twice / "dict.txt").open("a") as file:
        file.write("<sen000> 1\n")
    with pytest.raises(ValueError, match="holds a token twice"):
        MetroT0Tokenizer.from_pretrained(twice)
    with pytest.raises(ValueError, match=r"needs a SentencePiece model .* missing"):
        MetroT0Tokenizer(dict_path=str(small_vocabulary / "dict.txt"))


def _encode(arguments: tuple[MetroT0Tokenizer, str]) -> list[int]:
    tokenizer, text = arguments
    return tokenizer(text).input_ids


def test_pickles_are_small_the_same_after_use_and_work_in_other_processes(
    tokenizer: MetroT0Tokenizer, small_vocabulary: Path
) -> None:
    before = pickle.dumps(tokenizer)
    expected = _encode((tokenizer, "a function"))
    assert pickle.dumps(tokenizer) == before
    files = sum((small_vocabulary / name).stat().st_size for name in ("sp.model", "dict.txt"))
    assert len(before) < files + 5000
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_encode, [(tokenizer, "a function")]) == [expected]


def test_dataset_map_with_processes_and_cache(
    tokenizer: MetroT0Tokenizer, reference_texts: list[str]
) -> None:
    rows = Dataset.from_dict({"text": reference_texts[:8]})
    mapped = rows.map(lambda batch: {"ids": tokenizer.encode_texts(batch["text"])}, batched=True, num_proc=2)
    assert list(mapped["ids"]) == tokenizer.encode_texts(reference_texts[:8])


def test_the_two_files_travel_as_remote_code(
    tokenizer: MetroT0Tokenizer, small_vocabulary: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = published_like(
        tmp_path / "hub", small_vocabulary, auto_map={"AutoTokenizer": ["tokenizer.FairseqT5Tokenizer", None]}
    )
    for module in (tokenizer_module, normalizer_module):
        shutil.copy(str(module.__file__), folder)
    # AutoTokenizer takes the package's own class wherever it is imported, as it is here.
    kind = dynamic_module_utils.get_class_from_dynamic_module("tokenizer.FairseqT5Tokenizer", str(folder))
    remote = kind.from_pretrained(folder)
    assert type(remote) is not FairseqT5Tokenizer
    assert remote("It travels.").input_ids == tokenizer("It travels.").input_ids


@pytest.mark.parametrize(("vocabulary", "lower"), [("vocab_32k", True), ("vocab_64k", False)])
def test_official_ids_and_strings(
    vocabulary: str, lower: bool, golden: Path, real_data: Path, tmp_path: Path
) -> None:
    for name in ("sp.model", "dict.txt"):
        shutil.copy(real_data / "vocab" / vocabulary / name, tmp_path)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"lower": lower, "n_sentinel_tokens": 512}))
    tokenizer = MetroT0Tokenizer.from_pretrained(tmp_path)
    with gzip.open(golden / "tokenizer" / f"cases_{vocabulary}.jsonl.gz", "rt", encoding="utf-8") as lines:
        cases = [json.loads(line) for line in lines]
    assert len(cases) == 900
    assert [tokenizer(case["text"]).input_ids for case in cases] == [case["ids"] for case in cases]
    decoded = [tokenizer.decode(case["ids"], skip_special_tokens=True) for case in cases]
    assert decoded == [case["decoded"] for case in cases]
    bare = tokenizer.encode_texts([case["text"] for case in cases])
    assert bare == [case["ids"][1:-1] if case["text"].strip() else [] for case in cases]


def test_official_checkpoint_folder(golden: Path) -> None:
    tokenizer = MetroT0Tokenizer.from_pretrained(golden / "hf_tiny")
    cases = json.loads((golden / "hf_tiny" / "cases.json").read_text(encoding="utf-8"))
    tensors = load_file(golden / "hf_tiny" / "cases.safetensors")
    batch = tokenizer(cases["strings"], padding=True, truncation=True, max_length=64, return_tensors="pt")
    assert torch.equal(batch.input_ids, tensors["input_ids"])
    assert torch.equal(batch.attention_mask, tensors["attention_mask"])
    assert tokenizer.batch_decode(tensors["greedy"], skip_special_tokens=True) == cases["decoded_greedy"]
