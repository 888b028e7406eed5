"""``metro-t0 generate`` in a pipe: real processes, real pipes, real signals."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from small_models import make_model, make_tokenizer

from metro_t0.evaluation.generation import generate_texts
from metro_t0.evaluation.loading import load_model

PROMPTS = ["which lawyer repaired the old clock", "yes", "does it follow that her brother sold a river", "no"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = make_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    make_model(tokenizer, seed=5).save_pretrained(folder)
    return folder


@contextmanager
def generating(folder: Path, *options: str) -> Iterator[subprocess.Popen[str]]:
    """The command with pipes on all sides; gone at the end whatever happens."""
    command = [sys.executable, "-m", "metro_t0.cli.main", "generate", str(folder), "--max-new-tokens", "6"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *options], stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def ask(process: subprocess.Popen[str], prompt: str) -> str:
    """Writes one line and waits for its answer; what was written before has been answered."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write(prompt + "\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_each_line_is_answered_before_the_next_is_written_and_ctrl_c_is_quiet(folder: Path) -> None:
    with generating(folder) as process:
        assert process.stderr is not None
        answers = [ask(process, prompt) for prompt in PROMPTS]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
        assert process.stderr.read() == ""
    model, tokenizer = load_model(folder)
    expected = generate_texts(model, tokenizer, PROMPTS, max_new_tokens=6, batch_size=1)
    assert answers == [" ".join(answer.output.split()) + "\n" for answer in expected]


def test_when_nobody_reads_any_more(folder: Path) -> None:
    with generating(folder, "--precision", "int8") as process:
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        assert ask(process, PROMPTS[0])
        process.stdout.close()
        process.stdin.write("yes\nno\n")
        process.stdin.flush()
        assert process.wait(timeout=60) == 141
        assert process.stderr.read() == ""
