"""Readers of rows: formats, compressions, and what broken files say."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from metro_t0.prompts.sources import HubDataset, LocalFile, data_root_file

ROWS = [
    {"text": "first, with a comma", "label": 0, "parts": ["a", "b"]},
    {"text": 'second "quoted"\nand broken', "label": 1, "parts": []},
    {"text": "third é", "label": 0, "parts": ["c"]},
]
JSON_LINES = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize(
    ("name", "compress"),
    [("a.jsonl", bytes), ("a.json.gz", gzip.compress), ("a.jsonl.xz", lzma.compress), ("a.ndjson.zst", zstd)],
)
def test_json_lines_with_every_compression(tmp_path: Path, name: str, compress: object) -> None:
    path = tmp_path / name
    path.write_bytes(compress(b"\xef\xbb\xbf" + JSON_LINES + b"\n  \n"))  # type: ignore[operator]
    source = LocalFile(path)
    assert list(source.rows()) == ROWS
    assert list(source.rows(2)) == ROWS[:2]
    assert list(source.rows(0)) == []
    assert source.count() == 3
    assert source.split == "a"


def test_parquet(tmp_path: Path) -> None:
    parquet.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    source = LocalFile(tmp_path / "a.parquet", "train")
    assert list(source.rows()) == ROWS
    assert source.count() == 3
    (tmp_path / "b.parquet").write_bytes(b"PAR1 not really PAR1")
    with pytest.raises(ValueError, match=r"b\.parquet"):
        list(LocalFile(tmp_path / "b.parquet").rows())


def test_csv_columns_of_numbers_are_numbers(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text(
        'text,label,weight,code,note,blank\n"one, and\ntwo",0,0.5,007,3,\n\nthree,-1,2,12,,\n',
        encoding="utf-8",
    )
    assert list(LocalFile(path).rows()) == [
        {"text": "one, and\ntwo", "label": 0, "weight": 0.5, "code": "007", "note": 3, "blank": ""},
        {"text": "three", "label": -1, "weight": 2.0, "code": "12", "note": None, "blank": ""},
    ]
    assert LocalFile(path).count() == 2
    tabs = tmp_path / "a.tsv.gz"
    tabs.write_bytes(gzip.compress(b"a\tb\nx, y\t1\n", mtime=0))
    assert list(LocalFile(tabs).rows()) == [{"a": "x, y", "b": 1}]


@given(
    st.lists(st.text(alphabet='ab,"\n é1', min_size=1).filter(lambda text: text.strip() != ""), min_size=1),
)
def test_csv_text_survives(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    path = tmp_path_factory.mktemp("csv") / "a.csv"
    quoted = ['"' + text.replace('"', '""') + '"' for text in ["é", *texts]]
    path.write_text("\n".join(["text", *quoted]) + "\n", encoding="utf-8", newline="")
    assert [row["text"] for row in LocalFile(path).rows()] == ["é", *texts]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"a": 1}\n\n{"a": \n', r"a\.jsonl, line 3: not valid JSON"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', r"a\.jsonl, line 2: not a JSON object but list"),
        (
            "a.jsonl",
            b'{"a": 1}\n{"a": "\xe9"}\n',
            r"a\.jsonl, line 2: not UTF-8 \(byte 0xe9 at its position 8\)",
        ),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", r"a\.csv, line 3: 3 fields where the first line names 2"),
        ("a.csv", b'a,b\n1,"2\n', r"a\.csv, line 2: not valid CSV"),
        ("a.csv", b"a,a\n1,2\n", "two columns of the same name"),
        ("a.csv", b"a,b\n1,\xff\n", r"a\.csv, line 2: not UTF-8"),
        (
            "a.jsonl.gz",
            gzip.compress(JSON_LINES * 99, mtime=0)[:-9],
            r"a\.jsonl\.gz: the compressed file is damaged or ends early",
        ),
        ("a.jsonl.gz", JSON_LINES, "is damaged"),
        ("a.jsonl.gz", gzip.compress(b"x" * 99, mtime=0)[:12] + b"\x99" * 30, "is damaged|not valid"),
        ("a.jsonl.xz", lzma.compress(JSON_LINES * 99)[:-20], "is damaged"),
        ("a.jsonl.zst", zstd(JSON_LINES * 999)[:-9], "is damaged|cannot be read"),
    ],
)
def test_broken_files_are_named(tmp_path: Path, name: str, content: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        list(LocalFile(path).rows())
    assert "\n" not in str(error.value)


def test_files_that_cannot_be_read_are_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"nowhere\.jsonl: no such file"):
        LocalFile(tmp_path / "nowhere.jsonl")
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(ValueError, match=r"a\.xlsx: unknown kind of file \(known: \.jsonl"):
        LocalFile(tmp_path / "a.xlsx")
    (tmp_path / "a.parquet.gz").write_bytes(b"")
    with pytest.raises(ValueError, match="unpack the file"):
        LocalFile(tmp_path / "a.parquet.gz")


def test_data_root(tmp_path: Path) -> None:
    folder = tmp_path / "boats" / "default"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_bytes(b"")
    (folder / "train.jsonl.gz").write_bytes(gzip.compress(JSON_LINES, mtime=0))
    (folder / "dev.csv").write_bytes(b"a\n1\n")
    (folder / "notes.txt").write_bytes(b"")
    found = data_root_file(tmp_path, "boats", None, "train")
    assert (found.path.name, found.split, found.count()) == ("train.jsonl.gz", "train", 3)
    assert data_root_file(tmp_path, "boats", None, "dev").path.name == "dev.csv"
    with pytest.raises(ValueError, match=r"default: no split 'test' there \(splits: dev, train\)"):
        data_root_file(tmp_path, "boats", None, "test")
    with pytest.raises(ValueError, match=r"boats/red: no split 'test' there$"):
        data_root_file(tmp_path, "boats", "red", "test")


def test_hub_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of files is what ``datasets`` loads without a network; an id then fails in one line."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train.jsonl").write_bytes(JSON_LINES)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    source = HubDataset(str(tmp_path / "data"))
    assert list(source.rows()) == ROWS
    assert list(source.rows(1)) == ROWS[:1]
    assert source.count() == 3
    with pytest.raises(ValueError, match=r"Hub dataset .*data \(test\): ") as error:
        HubDataset(str(tmp_path / "data"), split="test").count()
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match=r"Hub dataset nobody/nothing/small \(train\): "):
        HubDataset("nobody/nothing", "small").count()
