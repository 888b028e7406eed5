"""The ``prepare`` command: what it prints, how it refuses, and that interruption leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from pydoc_data.topics import topics

import pytest

from metro_t0.cli.main import main
from metro_t0.data.prepare import PreparedCorpus


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "topics.txt"
    path.write_text("\n\n".join("\n".join(text.split("\n\n")) for text in sorted(topics.values())[:40]))
    return path


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["metro-t0", "prepare", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)


def test_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path) -> None:
    out = source.parent / "out"
    options = ["--vocab-size", "500", "--split-documents", "blank-line", "--max-length", "64", "--seed", "3"]
    assert run(monkeypatch, source, "--out", out, *options, "--cased", "--json") == 0
    printed = json.loads(capsys.readouterr().out)
    corpus = PreparedCorpus.load(out)
    assert printed == {"path": str(out), **corpus.card}
    assert corpus.card["settings"] == {
        "seed": 3,
        "max_length": 64,
        "validation_fraction": 0.01,
        "split_documents": "blank-line",
        "text_column": "text",
        "keep_duplicates": False,
        "near_duplicates": False,
        "cleaning": {},
        "decontaminate": [],
        "weights": {},
        "shard_characters": 100_000_000,
    }
    assert corpus.card["tokenizer"]["lower"] is False
    assert max(map(len, corpus.train["input_ids"])) <= 64

    other = source.parent / "other"
    options = ["--tokenizer", str(corpus.tokenizer), "--split-documents", "blank-line"]
    assert run(monkeypatch, source, "--out", other, *options) == 0
    captured = capsys.readouterr()
    for part in ("train", "validation"):
        counts = PreparedCorpus.load(other).card[part]
        (line,) = [line for line in captured.out.splitlines() if part in line]
        assert all(f" {counts[key]:,} " in line for key in ("documents", "characters", "blocks", "tokens"))
    assert "Tokenising" in captured.err, "progress goes to standard error"


def test_weights_repeats_and_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    other = source.with_name("other.txt")
    other.write_text("A short one.\n\nA short one.\n\nAnother.\n")
    options = [
        "--split-documents",
        "blank-line",
        "--vocab-size",
        "500",
        "--processes",
        "2",
        "--keep-duplicates",
    ]
    assert (
        run(
            monkeypatch,
            source,
            other,
            "--out",
            source.parent / "out",
            *options,
            "--weight",
            f"{other}=3",
            "--json",
        )
        == 0
    )
    card = json.loads(capsys.readouterr().out)
    assert [entry["weight"] for entry in card["sources"]] == [1.0, 3.0]
    assert card["sources"][1]["documents"] == 3 and card["settings"]["keep_duplicates"] is True
    for wrong in ("books", "books=many", "=2"):
        assert run(monkeypatch, source, "--out", source.parent / "not", "--weight", wrong) == 2
        assert "write a source and a number, such as books/=2.5" in capsys.readouterr().err


def test_a_mistake_is_one_line_and_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], source: Path
) -> None:
    out = source.parent / "out"
    before = sorted(source.parent.iterdir())
    for arguments, message in [
        (["missing.txt"], "metro-t0: missing.txt does not exist; "),
        ([source], "metro-t0: the corpus is one document, "),
        (
            [source, "--tokenizer", source.parent, "--cased"],
            "metro-t0: --cased is for training a tokenizer; ",
        ),
    ]:
        assert run(monkeypatch, *arguments, "--out", out) == 2
        (line,) = filter(None, capsys.readouterr().err.splitlines())
        assert line.startswith(message)
        assert sorted(source.parent.iterdir()) == before


def test_help_shows_examples(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "--help") == 0
    shown = capsys.readouterr().out
    assert "metro-t0 prepare pydocs --out prepared" in shown
    assert "--vocab-size" in shown and "hf:owner/name:subset@split" in shown


def test_the_command_line_starts_without_heavy_imports() -> None:
    heavy = {"torch", "datasets", "transformers", "pyarrow"}
    code = f"import sys, metro_t0.cli.main; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path) -> None:
    # A pipe that nobody closes keeps the command reading until it is interrupted.
    pipe = tmp_path / "pipe.txt"
    os.mkfifo(pipe)
    command = [
        sys.executable,
        "-m",
        "metro_t0.cli.main",
        "prepare",
        str(pipe),
        "--out",
        str(tmp_path / "out"),
    ]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    with suppress(BrokenPipeError), pipe.open("w") as writer:  # opened by the reader too, once it reads
        assert (tmp_path / ".out.work").is_dir()
        process.send_signal(signal.SIGINT)
        # An interrupt between two reads of a pipe is seen after the next one that Python asks for: 1 MB.
        while process.poll() is None:
            writer.write("some words\n" * 100_000)
    assert process.wait(timeout=30) != 0
    assert [path.name for path in tmp_path.iterdir()] == ["pipe.txt"]
