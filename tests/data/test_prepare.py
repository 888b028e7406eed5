"""Prepared corpora: real English (the language reference of this Python), a real tokenizer, real Arrow files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from pydoc_data.topics import topics

import numpy as np
import pytest
from datasets import Dataset, load_from_disk

from metro_t0.data.encoding import TextBatch, batch_texts, encode_documents, token_dtype
from metro_t0.data.prepare import PreparedCorpus, prepare, vocabulary_checksum
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer

DOCUMENTS = [topics[name].strip() for name in sorted(topics)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "topics.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    return path


@pytest.fixture(scope="module")
def corpus(source: Path, tmp_path_factory: pytest.TempPathFactory) -> PreparedCorpus:
    out = tmp_path_factory.mktemp("prepared") / "corpus"
    return prepare([source], out, vocab_size=1000, validation_fraction=0.1, max_length=128)


@pytest.fixture(scope="module")
def tokenizer(corpus: PreparedCorpus) -> MetroT0Tokenizer:
    return MetroT0Tokenizer.from_pretrained(str(corpus.tokenizer))


def blocks_by_document(*parts: Dataset) -> dict[int, list[list[int]]]:
    blocks = defaultdict(list)
    for part in parts:
        for row in part:
            blocks[row["document"]].append(row["input_ids"])
    return dict(blocks)


def rows(part: Dataset) -> list[dict[str, object]]:
    return list(part)


# ---------------------------------------------------------------- what comes out


def test_every_token_of_every_document_is_in_its_blocks(
    corpus: PreparedCorpus, tokenizer: MetroT0Tokenizer
) -> None:
    blocks = blocks_by_document(corpus.train, corpus.validation)
    distinct = list(dict.fromkeys(DOCUMENTS))
    assert sorted(blocks) == list(range(len(distinct)))
    lone_ends = 0
    for number, text in enumerate(distinct):
        lines = [line for line in text.splitlines() if line.strip()]
        expected = [token for ids in tokenizer.encode_texts(lines) if ids for token in [*ids, 2]]
        assert all(block[0] == 0 and 3 <= len(block) <= 128 for block in blocks[number])
        actual = [token for block in blocks[number] for token in block[1:]]
        lone_ends += len(expected) - len(actual)
        assert [token for token in actual if token != 2] == [token for token in expected if token != 2]
    assert lone_ends == corpus.card["dropped"]["dropped_blocks"]


def test_no_document_is_in_both_parts(corpus: PreparedCorpus) -> None:
    train, validation = set(corpus.train["document"]), set(corpus.validation["document"])
    assert train and validation and not train & validation


def test_the_parts_are_memory_mapped_datasets_of_small_integers(corpus: PreparedCorpus) -> None:
    for part in (corpus.train, corpus.validation):
        assert part.features["input_ids"].feature.dtype == "uint16"
        assert part.features["document"].dtype == "int32"
        assert part.cache_files, "memory-mapped from disk"
    assert rows(load_from_disk(str(corpus.path / "train"))) == rows(corpus.train)


def test_the_folder_holds_what_it_promises(corpus: PreparedCorpus) -> None:
    assert {path.name for path in corpus.path.iterdir()} == {"train", "validation", "tokenizer", "card.json"}
    assert {path.name for path in corpus.path.parent.iterdir()} == {corpus.path.name}


def test_the_card_counts_what_is_there(corpus: PreparedCorpus, tokenizer: MetroT0Tokenizer) -> None:
    card = corpus.card
    distinct = list(dict.fromkeys(DOCUMENTS))
    assert card["format_version"] == 1
    assert card["documents"] == len(distinct)
    assert card["characters"] == sum(map(len, distinct))
    assert card["lines"] == sum(bool(line.strip()) for text in distinct for line in text.splitlines())
    assert card["dropped"]["duplicate_documents"] == len(DOCUMENTS) - len(distinct)
    for name, part in (("train", corpus.train), ("validation", corpus.validation)):
        ids = part["input_ids"]
        assert card[name]["blocks"] == len(ids)
        assert card[name]["documents"] == len(set(part["document"]))
        assert card[name]["tokens"] == sum(map(len, ids))
        assert card[name]["unknown_tokens"] == sum(block.count(3) for block in ids)
        histogram = card[name]["block_lengths"]
        assert sum(histogram.values()) == len(ids)
        assert histogram["121-128"] == sum(121 <= len(block) <= 128 for block in ids)
    assert card["tokens"] == card["train"]["tokens"] + card["validation"]["tokens"]
    (source,) = card["sources"]
    assert (source["documents"], source["files"]) == (len(distinct), 1)
    assert card["tokenizer"]["vocabulary_size"] == len(tokenizer) == 1512
    assert card["tokenizer"]["vocabulary_checksum"] == vocabulary_checksum(tokenizer)
    assert card["tokenizer"]["trained_here"] is True
    assert card["settings"]["seed"] == 0


def test_the_held_out_share_is_about_what_was_asked(corpus: PreparedCorpus) -> None:
    share = corpus.card["validation"]["characters"] / corpus.card["characters"]
    assert 0.02 < share <= 0.1


# ---------------------------------------------------------------- the same again, and with settings


def test_a_tokenizer_taken_gives_the_same_blocks_on_any_number_of_processes(
    source: Path, corpus: PreparedCorpus, tmp_path: Path
) -> None:
    for processes in (1, 2):
        again = prepare(
            [source],
            tmp_path / str(processes),
            tokenizer=corpus.tokenizer,
            validation_fraction=0.1,
            max_length=128,
            processes=processes,
        )
        assert rows(again.train) == rows(corpus.train)
        assert rows(again.validation) == rows(corpus.validation)
        checksum = again.card["tokenizer"].pop("vocabulary_checksum")
        assert checksum == corpus.card["tokenizer"]["vocabulary_checksum"]
        assert again.card["tokenizer"]["trained_here"] is False


def test_the_seed_changes_what_is_held_out(source: Path, corpus: PreparedCorpus, tmp_path: Path) -> None:
    other = prepare(
        [source],
        tmp_path / "out",
        tokenizer=corpus.tokenizer,
        validation_fraction=0.1,
        max_length=128,
        seed=1,
    )
    assert set(other.validation["document"]) != set(corpus.validation["document"])


def test_blank_lines_and_several_sources(corpus: PreparedCorpus, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("First one.\n\nSecond\nof two lines.\n\nFirst one.\n")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.txt").write_text("Third one.\n\nFirst one.")
    (tmp_path / "b" / "d.csv").write_text("not read")
    made = prepare(
        [tmp_path / "a.txt", tmp_path / "b"],
        tmp_path / "out",
        tokenizer=corpus.tokenizer,
        split_documents="blank-line",
    )
    assert made.card["documents"] == 3 == len(made.train) + len(made.validation)
    assert [source["documents"] for source in made.card["sources"]] == [2, 1]
    assert [source["duplicate_documents"] for source in made.card["sources"]] == [1, 1]
    assert [source["skipped_files"] for source in made.card["sources"]] == [0, 1]
    assert made.card["dropped"]["duplicate_documents"] == 2


def test_long_lines_are_cut_and_counted(corpus: PreparedCorpus, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("word " * 100)
    (tmp_path / "b.txt").write_text("short")
    made = prepare([tmp_path], tmp_path / "out", tokenizer=corpus.tokenizer, max_length=16)
    assert made.card["cut_lines"] == 1


def test_an_uncased_tokenizer_lowers_and_a_cased_one_does_not(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for number, text in enumerate(DOCUMENTS[:10]):
        (source / f"{number}.txt").write_text(text)
    for lower in (True, False):
        made = prepare([source], tmp_path / str(lower), vocab_size=300, lower=lower)
        tokenizer = MetroT0Tokenizer.from_pretrained(str(made.tokenizer))
        upper, small = tokenizer.encode_texts(["The Import", "the import"])
        assert (upper == small) is lower
        assert made.card["tokenizer"]["lower"] is lower


def test_tokens_take_two_bytes_up_to_65536_entries() -> None:
    assert token_dtype(65_536) is np.uint16
    assert token_dtype(65_537) is np.int32


def test_documents_are_read_no_faster_than_they_are_encoded(corpus: PreparedCorpus) -> None:
    pulled = 0

    def batches() -> object:
        nonlocal pulled
        for number in range(40):
            pulled += 1
            yield TextBatch([number], [f"Document {number}."], held_out=False)

    encoded = encode_documents(batches(), corpus.tokenizer, max_length=16, processes=2)
    for number, (texts, blocks) in enumerate(encoded):
        assert texts.numbers == blocks.documents.tolist() == [number]
        assert pulled <= number + 6
    assert pulled == 40


def test_batches_hold_documents_of_one_part() -> None:
    held_out = np.array([False, True, False, True, False])
    batches = list(batch_texts(["a" * 300_000, "b", "c" * 200_000, "d", "e"], held_out))
    assert [(batch.numbers, batch.held_out) for batch in batches] == [
        ([0, 2], False),
        ([4], False),
        ([1, 3], True),
    ]


# ---------------------------------------------------------------- what is refused, leaving nothing behind


def refusal(sources: list[Path], out: Path, **settings: object) -> str:
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(ValueError) as caught:
        prepare(sources, out, **settings)  # type: ignore[arg-type]
    assert sorted(out.parent.rglob("*")) == before, "nothing half-written"
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_broken_line_at_the_end(source: Path, corpus: PreparedCorpus, tmp_path: Path) -> None:
    broken = tmp_path / "broken.jsonl"
    broken.write_text(source.read_text() + '{"text": ')
    message = refusal([broken], tmp_path / "out", tokenizer=corpus.tokenizer)
    assert message.startswith(f"{broken}:{len(DOCUMENTS) + 1}: broken JSON (")


def test_an_output_folder_that_holds_something(source: Path, corpus: PreparedCorpus) -> None:
    message = refusal([source], corpus.path, vocab_size=1000)
    assert message.startswith(f"{corpus.path} already holds something")


def test_an_empty_corpus(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n")
    assert refusal([tmp_path], tmp_path / "out").startswith("the corpus is empty")


def test_a_single_document(corpus: PreparedCorpus, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Alone.\n\nWith itself.")
    message = refusal([tmp_path], tmp_path / "out", tokenizer=corpus.tokenizer)
    assert message.startswith("the corpus is one document")


def test_a_vocabulary_that_the_text_cannot_fill(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("few words")
    (tmp_path / "b.txt").write_text("fewer")
    assert "vocab" in refusal([tmp_path], tmp_path / "out", vocab_size=5000).lower()


def test_text_without_a_token(corpus: PreparedCorpus, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("\u200b\u200b" + "\u200b" * (name == "a"))
    assert "no block of tokens" in refusal([tmp_path], tmp_path / "out", tokenizer=corpus.tokenizer)


def test_no_tokenizer_there(source: Path, tmp_path: Path) -> None:
    assert "does not exist" in refusal([source], tmp_path / "out", tokenizer=tmp_path / "none")
    (tmp_path / "empty").mkdir()
    message = refusal([source], tmp_path / "out", tokenizer=tmp_path / "empty")
    assert message.startswith(f"{tmp_path / 'empty'} holds no tokenizer that can be read: ")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"tokenizer": Path("t"), "vocab_size": 10}, "either a tokenizer to take or a vocabulary size"),
        ({"validation_fraction": 0.0}, "between 0 and 1, not 0.0"),
        ({"validation_fraction": 1.0}, "between 0 and 1, not 1.0"),
        ({"max_length": 2}, "at least 3"),
        ({"processes": 0}, "at least 1, not 0"),
    ],
)
def test_impossible_settings(source: Path, tmp_path: Path, settings: dict[str, object], message: str) -> None:
    assert message in refusal([source], tmp_path / "out", **settings)


def test_a_worker_that_dies_ends_the_work(corpus: PreparedCorpus) -> None:
    # Killed as the system does when memory runs out: an error, not a wait for ever.
    from concurrent.futures.process import BrokenProcessPool

    def batches() -> object:
        for number in range(40):
            if number == 8:
                import multiprocessing

                os.kill(multiprocessing.active_children()[0].pid, 9)
            yield TextBatch([number], ["text"], held_out=False)

    with pytest.raises(BrokenProcessPool):
        list(encode_documents(batches(), corpus.tokenizer, max_length=16, processes=2))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_workers_end_when_their_parent_is_killed() -> None:
    code = """
import multiprocessing, time
from pathlib import Path
from metro_t0.data.encoding import TextBatch, encode_documents

def batches():
    yield TextBatch([0], ["text"], held_out=False)
    print(*[process.pid for process in multiprocessing.active_children()], flush=True)
    time.sleep(60)

list(encode_documents(batches(), Path("none"), max_length=16, processes=2))
"""
    parent = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    workers = [Path("/proc", pid, "stat") for pid in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(map(alive, workers))
    parent.kill()
    parent.communicate()
    deadline = time.monotonic() + 10
    while any(map(alive, workers)) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(map(alive, workers))


def alive(stat: Path) -> bool:
    """Whether a process runs, by its line in /proc: neither gone nor a zombie that nobody has waited for."""
    try:
        return stat.read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_loading_what_is_no_prepared_corpus(corpus: PreparedCorpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder; make a prepared corpus with: metro-t0 prepare"):
        PreparedCorpus.load(tmp_path / "none")
    with pytest.raises(ValueError, match=r"is not a prepared corpus: its card\.json cannot be read"):
        PreparedCorpus.load(tmp_path)
    copy = tmp_path / "copy"
    shutil.copytree(corpus.path, copy)
    (copy / "card.json").write_text(json.dumps({**corpus.card, "format_version": 2}))
    with pytest.raises(ValueError, match="has format version 2, this program reads 1"):
        PreparedCorpus.load(copy)
