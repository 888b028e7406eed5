"""Prepared corpora: real English (the language reference of this Python), a real tokenizer, real Arrow files."""

from __future__ import annotations

import gzip
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from datasets import Dataset, load_from_disk

from metro_t0.data.cleaning import QUALITY_FILTERS, Cleaning
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
    assert {path.name for path in corpus.path.iterdir()} == {
        "train",
        "validation",
        "tokenizer",
        "card.json",
        "card.md",
        "card.svg",
    }
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


# ---------------------------------------------------------------- interrupted and gone on with

COMMAND = """
import sys
from pathlib import Path
from metro_t0.data.prepare import prepare
source, out, tokenizer = map(Path, sys.argv[1:4])
prepare([source], out, tokenizer=tokenizer, processes=2, shard_characters=400_000)
"""


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Several files, so that there are several units: 21 MB, above what is kept after an error."""
    folder = tmp_path_factory.mktemp("larger")
    for part in range(4):
        lines = (json.dumps({"text": f"{part} {copy}\n{text}"}) for copy in range(12) for text in DOCUMENTS)
        (folder / f"{part}.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    return folder


def test_a_killed_preparation_is_gone_on_with(larger: Path, corpus: PreparedCorpus, tmp_path: Path) -> None:
    whole = prepare(
        [larger], tmp_path / "whole", tokenizer=corpus.tokenizer, processes=1, shard_characters=400_000
    )
    out, work = tmp_path / "out", tmp_path / ".out.work"
    arguments = [sys.executable, "-c", COMMAND, str(larger), str(out), str(corpus.tokenizer)]
    for stage, enough in (("read/*", 1), ("blocks-*/*", 3), ("blocks-*/*", 9)):
        process = subprocess.Popen(arguments, stderr=subprocess.PIPE, text=True)
        while process.poll() is None and len([p for p in work.glob(stage) if p.suffix != ".part"]) < enough:
            time.sleep(0.005)
        process.kill()
        assert process.communicate()[1] == "" and not out.exists()
    finished = {path: path.stat().st_mtime_ns for path in work.glob("blocks-*/*/train.arrow")}
    assert len(finished) >= 9
    again = prepare([larger], out, tokenizer=corpus.tokenizer, processes=2, shard_characters=400_000)
    assert not work.exists()
    for part in ("train", "validation"):
        assert again.card[part] == whole.card[part]
        assert rows(getattr(again, part)) == rows(getattr(whole, part))


def test_a_file_that_ends_early_is_named_and_mended(
    larger: Path, corpus: PreparedCorpus, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    shutil.copytree(larger, source)
    good = (source / "3.jsonl.gz").read_bytes()
    (source / "3.jsonl.gz").write_bytes(good[: len(good) // 2])
    with pytest.raises(ValueError) as caught:
        prepare([source], tmp_path / "out", tokenizer=corpus.tokenizer, shard_characters=2_000_000)
    message = str(caught.value)
    assert message.startswith(f"{source / '3.jsonl.gz'}: the compressed file is damaged or ends early")
    assert "the same command goes on from there" in message and not (tmp_path / "out").exists()
    assert len(list((tmp_path / ".out.work" / "read").iterdir())) == 3
    (source / "3.jsonl.gz").write_bytes(good)
    mended = prepare([source], tmp_path / "out", tokenizer=corpus.tokenizer, shard_characters=2_000_000)
    assert mended.card["documents"] == 4 * 12 * len(set(DOCUMENTS))


def test_weights_repeat_documents_of_the_training_part(tmp_path: Path, corpus: PreparedCorpus) -> None:
    for name, documents in (("a", DOCUMENTS[:30]), ("b", DOCUMENTS[30:])):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in documents)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    sources = [tmp_path / "a.jsonl", tmp_path / "b.jsonl"]
    settings = {"tokenizer": corpus.tokenizer, "validation_fraction": 0.1, "max_length": 128}
    once = prepare(sources, tmp_path / "once", **settings)  # type: ignore[arg-type]
    weights = {str(sources[0]): 2.5, str(sources[1]): 0.5}
    many = prepare(sources, tmp_path / "many", weights=weights, **settings)  # type: ignore[arg-type]
    assert rows(many.validation) == rows(once.validation)
    single, repeated = blocks_by_document(once.train), blocks_by_document(many.train)
    number_of_a = many.card["sources"][0]["documents"]
    times = {document: len(repeated.get(document, [])) / len(blocks) for document, blocks in single.items()}
    assert all(repeated[n] == single[n] * round(times[n]) for n in repeated)
    assert {times[n] for n in times if n < number_of_a} == {2.0, 3.0}
    assert {times[n] for n in times if n >= number_of_a} == {0.0, 1.0}
    assert [source["weight"] for source in many.card["sources"]] == [2.5, 0.5]


@pytest.mark.parametrize(
    ("weights", "message"),
    [({"nowhere": 2}, "a weight is given for nowhere, which is no source"), ({"x": 0}, "must lie above 0")],
)
def test_impossible_weights(source: Path, tmp_path: Path, weights: dict[str, float], message: str) -> None:
    assert message in refusal([source], tmp_path / "out", weights=weights)


def test_a_text_too_large_to_hold_is_read_in_parts(tmp_path: Path, corpus: PreparedCorpus) -> None:
    lines = [f"line {number} of a very long book" for number in range(300_000)]
    (tmp_path / "book.txt").write_text("\n".join(lines))
    (tmp_path / "note.txt").write_text("short")
    made = prepare([tmp_path], tmp_path / "out", tokenizer=corpus.tokenizer)
    assert made.card["continued_documents"] == 1 and made.card["documents"] == 3
    assert made.card["lines"] == 300_001


def test_the_card_can_be_read(corpus: PreparedCorpus) -> None:
    page = (corpus.path / "card.md").read_text(encoding="utf-8")
    card = corpus.card
    assert f"{card['documents']:,} documents" in page and f"{card['train']['blocks']:,}" in page
    assert card["train"]["checksum"][:16] in page and "topics.jsonl" in page
    assert sum(card["document_characters"].values()) == card["documents"]
    assert (corpus.path / "card.svg").read_text(encoding="utf-8").startswith("<?xml")


def test_a_neutral_tokenizer_can_be_trained(tmp_path: Path, source: Path) -> None:
    made = prepare([source], tmp_path / "out", vocab_size=1000, normalizer="neutral", validation_fraction=0.1)
    assert made.card["tokenizer"]["normalizer"] == "neutral"
    tokenizer = MetroT0Tokenizer.from_pretrained(str(made.tokenizer))
    [ids] = tokenizer.encode_texts(["Ünïcödé  SPACES, kept"])
    assert tokenizer.decode(ids) == "Ünïcödé  SPACES, kept" and made.card["unknown_tokens"] == 0


def test_what_is_left_out_is_counted_by_its_reason(tmp_path: Path, corpus: PreparedCorpus) -> None:
    for package in ("ftfy", "datatrove"):
        pytest.importorskip(package)
    quiz = "Which of the stone bridges over the wide river was built before the great flood came?"
    (tmp_path / "quiz.jsonl").write_text(json.dumps({"question": quiz}))
    extracted = tmp_path / "extracted" / "AA"
    extracted.mkdir(parents=True)
    articles = [f"From the quiz of today: {quiz}", DOCUMENTS[0].replace("the", "th\u00c3\u00a9"), "too short"]
    pages = (
        f'<doc id="{n}" url="" title="t{n}">\nt{n}\n\n{text}\n</doc>\n' for n, text in enumerate(articles)
    )
    (extracted / "wiki_00").write_text("".join(pages), encoding="utf-8")
    words = DOCUMENTS[1].split(" ")
    nearly = [" ".join(words), " ".join([*words[:-1], "changed"])]
    lines = "".join(json.dumps({"text": text}) + "\n" for text in [*DOCUMENTS[2:12], *nearly])
    (tmp_path / "texts.jsonl").write_text(lines)
    made = prepare(
        [tmp_path / "extracted", tmp_path / "texts.jsonl"],
        tmp_path / "out",
        tokenizer=corpus.tokenizer,
        near_duplicates=True,
        cleaning=Cleaning(repair_unicode=True, quality=("gopher-repetition",)),
        decontaminate=[tmp_path / "quiz.jsonl"],
        processes=2,
    )
    dropped = made.card["dropped"]
    assert dropped["in the evaluation: quiz"] == 1
    assert dropped["near_duplicate_documents"] == 1
    assert made.card["repaired_documents"] == 1
    left_out = sum(number for reason, number in dropped.items() if reason.split(":")[0] in QUALITY_FILTERS)
    assert made.card["documents"] == 3 + 12 - 2 - left_out
    page = (made.path / "card.md").read_text(encoding="utf-8")
    assert "| in the evaluation: quiz | 1 |" in page
    settings = made.card["settings"]
    assert settings["cleaning"] == {"repair_unicode": True, "quality": ["gopher-repetition"]}
    assert settings["decontaminate"] == [str(tmp_path / "quiz.jsonl")] and settings["near_duplicates"] is True


@pytest.mark.parametrize("small_disk", [24], indirect=True)
def test_a_full_disk_is_named_and_with_room_the_work_goes_on(
    larger: Path, corpus: PreparedCorpus, small_disk: Path
) -> None:
    # Room for some of the documents, 22 MB once they are unpacked.
    (small_disk / "filler").write_bytes(b"x" * 6_000_000)
    settings = {"tokenizer": corpus.tokenizer, "shard_characters": 2_000_000, "processes": 2}
    with pytest.raises(ValueError, match=r"cannot write .*\.out\.work: No space left on device") as caught:
        prepare([larger], small_disk / "out", **settings)  # type: ignore[arg-type]
    assert "the same command goes on from there" in str(caught.value) and not (small_disk / "out").exists()
    kept = {path.name for path in (small_disk / ".out.work" / "read").iterdir()}
    assert kept and not any(name.endswith(".part") for name in kept)
    (small_disk / "filler").unlink()
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    again = prepare([larger], small_disk / "out", **settings)  # type: ignore[arg-type]
    assert again.card["documents"] == 4 * 12 * len(set(DOCUMENTS))
