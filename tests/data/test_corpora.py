"""Readers of text: every kind of source with real files, every refusal with its one line."""

from __future__ import annotations

import gzip
import json
import lzma
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from metro_t0.data.corpora import Document, read_documents, resolve_sources


def zstd(raw: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(raw)
    return sink.getvalue().to_pybytes()


COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": zstd,
}
compressed = pytest.mark.parametrize("suffix", list(COMPRESSORS))


def texts(*sources: str | Path, **options: str) -> list[str]:
    return [document.text for document in read_documents(list(sources), **options)]  # type: ignore[arg-type]


def refusal(*sources: str | Path, **options: str) -> str:
    with pytest.raises(ValueError) as caught:
        texts(*sources, **options)
    message = str(caught.value)
    assert "\n" not in message, "one line"
    return message


def parquet_bytes(columns: dict[str, list[object]]) -> bytes:
    sink = pa.BufferOutputStream()
    parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


# ---------------------------------------------------------------- what is read


@compressed
def test_a_text_file_is_one_document(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix]("Ein Löwe.\n\nTwo.\r\n".encode()))
    assert list(read_documents([path])) == [Document("Ein Löwe.\n\nTwo.\r\n", str(path))]


@compressed
def test_blank_lines_end_documents(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix]("\n \nOne.\nStill one.\r\n\t\r\n\nTwo é.".encode()))
    assert texts(path, split_documents="blank-line") == ["One.\nStill one.", "Two é."]


@compressed
def test_json_lines(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    lines = [{"text": "One.\n\nStill one."}, {"text": None}, {"text": " "}, {"text": "Zwei ü", "id": 3}]
    raw = "\n\n".join(json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_bytes(COMPRESSORS[suffix](raw.encode()))
    assert texts(path, split_documents="blank-line") == ["One.\n\nStill one.", "Zwei ü"]


@compressed
def test_parquet(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.parquet{suffix}"
    rows = [f"Document {number}." for number in range(600)]
    path.write_bytes(COMPRESSORS[suffix](parquet_bytes({"body": [*rows, None], "id": list(range(601))})))
    assert texts(path, text_column="body") == rows


def test_concatenated_compressed_streams_are_read_to_the_end(tmp_path: Path) -> None:
    for suffix in (".gz", ".xz", ".zst"):
        path = tmp_path / f"a.txt{suffix}"
        path.write_bytes(COMPRESSORS[suffix](b"One.\n") + COMPRESSORS[suffix](b"Two.\n"))
        assert texts(path) == ["One.\nTwo.\n"]


def test_a_folder_is_read_recursively_in_order_without_hidden_and_foreign_files(tmp_path: Path) -> None:
    for name in ("b/2.txt", "a/1.md", "a/deep/er/0.jsonl", ".git/x.txt", "a/.hidden.txt", "a/table.csv"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text('{"text": "json"}' if name.endswith("jsonl") else name)
    assert texts(tmp_path) == ["a/1.md", "json", "b/2.txt"]
    (source,) = resolve_sources([tmp_path])
    assert [path.name for path in source.skipped] == ["table.csv"]


def test_a_pattern_matches_files_and_folders(tmp_path: Path) -> None:
    for name in ("part-1.txt", "part-2.txt", "other.txt", "part-3/x.txt", "part-3/y/z.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    assert texts(f"{tmp_path}/part-*") == ["part-1.txt", "part-2.txt", "part-3/x.txt", "part-3/y/z.txt"]
    assert texts(f"{tmp_path}/**/z.txt") == ["part-3/y/z.txt"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("bracket")
    (tmp_path / "a1.txt").write_text("plain")
    assert texts(tmp_path / "a[1].txt") == ["bracket"]


def test_a_file_named_twice_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "b.txt").write_text("b")
    assert texts(tmp_path / "b.txt", tmp_path, f"{tmp_path}/*.txt") == ["b", "a"]
    (tmp_path / "c").mkdir()
    (tmp_path / "c/c.txt").write_text("c")
    assert texts(f"{tmp_path}/**") == ["a", "b", "c"]


def test_a_byte_order_mark_and_half_a_surrogate_pair_do_no_harm(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfmarked")
    (tmp_path / "b.jsonl").write_text('{"text": "half \\ud83d end"}')
    assert texts(tmp_path, split_documents="blank-line") == ["marked", "half \ufffd end"]
    assert texts(tmp_path / "a.txt") == ["marked"]


def test_a_source_can_be_read_again(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("again")
    (source,) = resolve_sources([tmp_path])
    assert list(source.documents()) == list(source.documents()) != []


def test_a_hub_dataset_is_streamed_through_datasets(tmp_path: Path) -> None:
    # `datasets` takes a folder where it takes a Hub id: the same code reads it, without a network.
    (tmp_path / "train.jsonl").write_text('{"body": "one"}\n{"body": "two"}\n')
    (tmp_path / "test.jsonl").write_text('{"body": "three"}\n')
    name = f"hf:{tmp_path}"
    assert texts(name, text_column="body") == ["one", "two"]
    assert texts(f"{name}@test", text_column="body") == ["three"]
    assert refusal(name) == f"{name}: no column 'text'; the columns are: body"
    assert refusal(f"{name}@nowhere").startswith(f"cannot read the Hub dataset {name}@nowhere: ")


# ---------------------------------------------------------------- what is refused


def test_missing_path() -> None:
    assert refusal("nowhere/at-all.txt").startswith("nowhere/at-all.txt does not exist; a source is a file, ")


def test_errors_of_lookup_come_before_any_reading(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine")
    with pytest.raises(ValueError, match="does not exist"):
        read_documents([tmp_path / "a.txt", tmp_path / "b.txt"])


def test_no_source() -> None:
    assert refusal().startswith("no source of text")


@pytest.mark.parametrize("split", ["file", "blank-line"])
def test_empty_corpus(tmp_path: Path, split: str) -> None:
    (tmp_path / "a.txt").write_text(" \n\n\t\n")
    (tmp_path / "b.txt").write_text("")
    (tmp_path / "c.jsonl").write_text("")
    assert refusal(tmp_path, split_documents=split) == f"the corpus is empty: there is no text in {tmp_path}"


@pytest.mark.parametrize("split", ["file", "blank-line"])
@compressed
def test_not_utf_8(tmp_path: Path, split: str, suffix: str) -> None:
    path = tmp_path / f"latin.txt{suffix}"
    path.write_bytes(COMPRESSORS[suffix]("Première\n".encode() + "déjà vu".encode("latin-1")))
    assert refusal(path, split_documents=split).startswith(f"{path} is not UTF-8: byte 0xe9 at offset 11; ")


def test_not_utf_8_in_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"text": "fine"}\n{"text": "\xff"}\n')
    assert refusal(path).startswith(f"{path} is not UTF-8: byte 0xff at offset 27; ")


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "cut', "broken JSON ("),
        ("not json", "broken JSON ("),
        ("[" * 100_000, "broken JSON ("),
        ('["text"]', "expected one JSON object a line, found list"),
        ('{"text": 3}', "column 'text' holds int, not text"),
        ('{"content": "x", "id": 1}', "no column 'text'; the columns are: content, id"),
        ("{}", "no column 'text'; the columns are: (none)"),
    ],
)
def test_broken_json_line(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"text": "fine"}\n\n' + line + '\n{"text": "fine"}\n')
    assert refusal(path).startswith(f"{path}:3: {reason}")


def test_parquet_without_the_column(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(parquet_bytes({"body": ["x"], "id": [1]}))
    assert refusal(path) == f"{path}: no column 'text'; the columns are: body, id"
    assert refusal(path, text_column="id").startswith(f"{path}: column 'id' holds int, not text")


@pytest.mark.parametrize("suffix", [".parquet", ".parquet.gz"])
def test_broken_parquet(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    path.write_bytes(COMPRESSORS[suffix.removeprefix(".parquet")](b"PAR1 this is not"))
    assert refusal(path).startswith(f"{path}: broken Parquet file (")


@pytest.mark.parametrize("suffix", [".gz", ".xz", ".zst"])
def test_broken_compression(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.txt{suffix}"
    whole = COMPRESSORS[suffix](os.urandom(5000).hex().encode())
    for raw in (whole[:-20], b"this is not compressed at all"):
        path.write_bytes(raw)
        assert refusal(path).startswith(f"{path}: the compressed file is damaged or ends early (")


def test_pattern_that_matches_nothing(tmp_path: Path) -> None:
    assert refusal(f"{tmp_path}/*.txt") == f"{tmp_path}/*.txt: the pattern matches nothing"


def test_unknown_suffix(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x")
    assert refusal(tmp_path / "a.csv").startswith(
        f"{tmp_path}/a.csv: unknown suffix '.csv'; readable are .txt, "
    )
    assert refusal(tmp_path).startswith(
        f"{tmp_path}: the folder holds no file that can be read; readable are "
    )
    assert refusal(f"{tmp_path}/*.csv").startswith(
        f"{tmp_path}/*.csv: the pattern matches no file that can be"
    )


def test_unreadable_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.symlink_to(tmp_path / "gone.txt")
    assert refusal(tmp_path) == f"{path}: cannot be read (No such file or directory)"


def test_malformed_hub_source() -> None:
    assert refusal("hf:").startswith("hf:: a Hub dataset is written hf:owner/name[:subset][@split]")


def test_unknown_way_to_split(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x")
    assert refusal(tmp_path, split_documents="page").startswith(
        "split_documents must be 'file' or 'blank-line'"
    )


# ---------------------------------------------------------------- real text


def test_real_corpora(real_data: Path) -> None:
    pretrain = real_data / "pretrain"
    assert len(texts(pretrain / "world_factbook.jsonl.xz")) == 258
    wikitext = texts(pretrain / "wikitext2_valid.txt.xz", split_documents="blank-line")
    with lzma.open(pretrain / "wikitext2_valid.txt.xz", "rt", encoding="utf-8") as stream:
        lines = [line.rstrip("\n") for line in stream if line.strip()]
    assert [line for document in wikitext for line in document.split("\n")] == lines
