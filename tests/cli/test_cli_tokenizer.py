"""``metro-t0 tokenizer``: train, inspect and export, and how they refuse."""

from __future__ import annotations

import json
import lzma
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from pydoc_data.topics import topics

import pytest
from transformers import AutoTokenizer

from metro_t0.cli.main import main
from metro_t0.data.prepare import vocabulary_checksum
from metro_t0.tokenization.tokenizer import MetroT0Tokenizer


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("source") / "topics.jsonl.xz"
    rows = "".join(json.dumps({"body": text}) + "\n" for text in sorted(topics.values()))
    path.write_bytes(lzma.compress(rows.encode()))
    return path


@pytest.fixture(scope="module")
def trained(source: Path) -> Path:
    out = source.parent / "trained"
    command = [
        sys.executable,
        "-m",
        "metro_t0.cli.main",
        "tokenizer",
        "train",
        str(source),
        "--text-column",
        "body",
    ]
    options = ["--out", str(out), "--vocab-size", "700", "--json"]
    done = subprocess.run([*command, *options], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["path"] == str(out)
    assert "Training 700 pieces" in done.stderr, "progress goes to standard error"
    return out


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["metro-t0", "tokenizer", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_train(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    trained: Path,
    tmp_path: Path,
) -> None:
    tokenizer = MetroT0Tokenizer.from_pretrained(trained)
    assert (len(tokenizer), tokenizer.lower, tokenizer.text_normalizer) == (1212, True, "english")
    common = [source, "--text-column", "body", "--vocab-size", "700"]
    assert run(monkeypatch, "train", *common, "--out", tmp_path / "cased", "--cased", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    cased = MetroT0Tokenizer.from_pretrained(tmp_path / "cased")
    assert facts == {
        "path": str(tmp_path / "cased"),
        "size": 1212,
        "pieces": 700,
        "sentinels": 512,
        "lower": False,
        "normalizer": "english",
        "sha256": vocabulary_checksum(cased),
        "documents": len(topics),
        "characters": sum(map(len, topics.values())),
    }
    sampled = ["--normalizer", "neutral", "--sample-characters", "100000", "--seed", "3"]
    assert run(monkeypatch, "train", *common, "--out", tmp_path / "neutral", *sampled) == 0
    assert " neutral " in capsys.readouterr().out
    text = "It's “any”\ttext: 文."
    neutral = MetroT0Tokenizer.from_pretrained(tmp_path / "neutral")
    assert neutral.decode(neutral.encode_texts([text])[0]) == text


def test_inspect(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path, trained: Path
) -> None:
    options = [trained, source, "--text-column", "body", "--lines", "400", "--examples", "2"]
    assert run(monkeypatch, "inspect", *options, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    tokenizer = MetroT0Tokenizer.from_pretrained(trained)
    assert found["vocabulary"]["sha256"] == vocabulary_checksum(tokenizer)
    assert (found["lines"], len(found["examples"])) == (400, 2)
    for example in found["examples"]:
        assert example["pieces"] == tokenizer.tokenize(example["line"])
    assert run(monkeypatch, "inspect", *options) == 0
    shown = capsys.readouterr().out
    assert f"{found['tokens']:,}" in shown
    assert f"{found['tokens_per_word']:.3f}" in shown and f"{found['unknown_rate']:.4%}" in shown
    assert found["examples"][1]["line"][:100] in shown


def test_export(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    trained: Path,
    tmp_path: Path,
) -> None:
    options = [trained, source, "--text-column", "body", "--lines", "500", "--out", tmp_path / "fast"]
    assert run(monkeypatch, "export", *options, "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed == {
        "path": str(tmp_path / "fast"),
        "lines_compared": 500,
        "lines_that_differ": 0,
        "differences": [],
    }
    fast, tokenizer = (
        AutoTokenizer.from_pretrained(tmp_path / "fast"),
        MetroT0Tokenizer.from_pretrained(trained),
    )
    text = "The “export”, it's read by others."
    assert fast(text).input_ids == tokenizer(text).input_ids


def test_a_refused_export_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    trained: Path,
    tmp_path: Path,
) -> None:
    generated = pytest.importorskip(
        "sentencepiece.sentencepiece_model_pb2", reason="protobuf is not installed"
    )
    shutil.copytree(trained, tmp_path / "ties")
    model = generated.ModelProto.FromString((trained / "sp.model").read_bytes())
    for piece in model.pieces:
        piece.score -= 100_000 if piece.type == piece.NORMAL else 0
    (tmp_path / "ties" / "sp.model").write_bytes(model.SerializeToString())
    options = [tmp_path / "ties", source, "--text-column", "body", "--out", tmp_path / "new" / "fast"]
    assert run(monkeypatch, "export", *options) == 2
    assert "lines have other ids than SentencePiece's. Line " in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["ties"]
    assert run(monkeypatch, "export", *options, "--tolerate", "100000") == 0
    assert (tmp_path / "new" / "fast" / "tokenizer.json").is_file()


def test_mistakes_are_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    source: Path,
    trained: Path,
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    column = ["--text-column", "body"]
    for arguments, message in [
        (["train", "missing.txt", "--out", out, "--vocab-size", "700"], "missing.txt does not exist"),
        (["train", source, "--out", out, "--vocab-size", "700"], "no column 'text'; the columns are: body"),
        (["train", source, *column, "--out", out, "--vocab-size", "20"], "vocab_size 20 is too small"),
        (
            ["train", source, *column, "--out", out, "--vocab-size", "9999999"],
            "is too large: this corpus yields",
        ),
        (["train", source, *column, "--out", trained, "--vocab-size", "700"], "is not empty"),
        (
            ["train", source, *column, "--out", out, "--vocab-size", "700", "--sample-characters", "0"],
            "a sample needs at least 1 character",
        ),
        (["inspect", tmp_path / "no", source], "the tokenizer folder"),
        (["inspect", source.parent, source], "holds no tokenizer that can be read"),
        (["inspect", trained, source, *column, "--lines", "0"], "must be at least 1, not 0"),
        (["export", trained, "missing.txt", "--out", out], "missing.txt does not exist"),
        (["export", trained, source, *column, "--out", trained], "already holds something"),
        (["export", trained, source, *column, "--out", out, "--tolerate", "-1"], "0 or more, not -1"),
    ]:
        assert run(monkeypatch, *arguments) == 2
        shown = capsys.readouterr()
        [line] = [each for each in shown.err.splitlines() if each.startswith("metro-t0: ")]
        assert message in line
        assert shown.out == ""
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_a_training_that_ends_early_leaves_nothing(sent: signal.Signals, tmp_path: Path) -> None:
    # A pipe that nobody closes keeps the command reading until it is told to stop.
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    command = [
        sys.executable,
        "-m",
        "metro_t0.cli.main",
        "tokenizer",
        "train",
        str(pipe),
        "--vocab-size",
        "700",
    ]
    process = subprocess.Popen(
        [*command, "--out", str(tmp_path / "out")],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    with suppress(BrokenPipeError), pipe.open("w") as writer:  # opened by the reader too, once it reads
        writer.write("some words\n" * 100_000)
        process.send_signal(sent)
        # An interrupt between two reads of a pipe is seen after the next one that Python asks for: 1 MB.
        while process.poll() is None:
            writer.write("some words\n" * 100_000)
    assert process.wait(timeout=30) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.txt"]
