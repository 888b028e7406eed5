"""A user's mistake is one line that names the thing and the mend, exit code 2, and nothing half-written."""

from __future__ import annotations

import json
import pydoc_data.topics
import shutil
from pathlib import Path

import pytest

from run_command import command

TINY = [
    "model.d_model=16",
    "model.d_kv=8",
    "model.d_ff=32",
    "model.num_heads=2",
    "model.num_layers=1",
    "model.num_decoder_layers=1",
    "model.num_auxiliary_layers=1",
]
SHORT = [
    "training.steps=2",
    "training.batch_tokens=256",
    "training.micro_batch_tokens=256",
    "training.validation_rows=2",
    "training.precision=fp32",
    "training.threads=1",
]
TEMPLATE = """
dataset: reviews
templates:
  one: !Template
    name: like
    jinja: "{jinja}"
    answer_choices: "No ||| Yes"
"""
GOOD_JINJA = "{{ text }} Good? ||| {{ answer_choices[label] }}"


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a corpus, a run, tasks, and several things that are wrong."""
    folder = tmp_path_factory.mktemp("mistakes")
    topics = list(pydoc_data.topics.topics.values())[:12]
    texts = folder / "texts"
    texts.mkdir()
    for number, topic in enumerate(topics):
        (texts / f"{number}.txt").write_text(topic, encoding="utf-8")
    (folder / "nothing").mkdir()
    (folder / "blank.txt").write_text("\n\n")
    (folder / "latin.txt").write_bytes("caf\xe9".encode("latin-1"))
    (folder / "broken.jsonl").write_text('{"text": "fine"}\n{"text": \n')
    (folder / "column.jsonl").write_text('{"body": "fine"}\n')
    rows = [{"text": f"Bought {n}.", "label": n % 2} for n in range(20)]
    (folder / "reviews.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name, jinja in {
        "good": GOOD_JINJA,
        "untargeted": "{{ text }} Good?",
        "foreign": "{{ text }} Good? ||| Maybe",
    }.items():
        (folder / f"{name}-template.yaml").write_text(TEMPLATE.format(jinja=jinja))
        (folder / f"{name}.yaml").write_text(
            "tasks:\n  - dataset: reviews\n    train: reviews.jsonl\n    evaluation: reviews.jsonl\n"
            f"    templates: {name}-template.yaml\n"
        )
    (folder / "misspelt.yaml").write_text("tasks:\n  - dataset: reviews\n    trian: reviews.jsonl\n")
    assert command("prepare", texts, "--out", folder / "corpus", "--vocab-size", "300") == 0
    assert command("prepare", texts, "--out", folder / "other", "--vocab-size", "320") == 0
    pretrain = ["pretrain", "--preset", "tiny", "--data", folder / "corpus", "--out", folder / "run"]
    assert command(*pretrain, *TINY, *SHORT) == 0
    return folder


PRETRAIN = ["pretrain", "--preset", "tiny", "--data", "corpus", "--out", "new"]
FINETUNE = ["finetune", "run", "--preset", "finetune-tiny", "--out", "new", *SHORT, "--mixture"]
MISTAKES = {
    "missing corpus": (["prepare", "gone.txt", "--out", "new"], ["gone.txt"]),
    "empty corpus": (["prepare", "blank.txt", "--out", "new"], ["blank.txt"]),
    "empty folder": (["prepare", "nothing", "--out", "new"], ["nothing"]),
    "not UTF-8": (["prepare", "latin.txt", "--out", "new"], ["latin.txt", "UTF-8"]),
    "broken line": (["prepare", "broken.jsonl", "--out", "new"], ["broken.jsonl:2"]),
    "no such column": (["prepare", "column.jsonl", "--out", "new"], ["'text'", "body"]),
    "corpus folder in use": (["prepare", "texts", "--out", "run"], ["run"]),
    "unknown preset": (
        ["pretrain", "--preset", "tinny", "--data", "corpus", "--out", "new"],
        ["tinny", "tiny"],
    ),
    "unknown key": ([*PRETRAIN, "optimizer.learning_rat=1"], ["learning_rat", "learning_rate"]),
    "not a corpus": (["pretrain", "--preset", "tiny", "--data", "texts", "--out", "new"], ["texts"]),
    "run in the way": (
        ["pretrain", "--preset", "tiny", "--data", "corpus", "--out", "run"],
        ["run", "--resume"],
    ),
    "nothing to resume": (["pretrain", "--resume", "--data", "corpus", "--out", "new"], ["new"]),
    "weights of another shape": ([*PRETRAIN, "--init-from", "run", *SHORT], ["d_model", "16", "128"]),
    "weights of another vocabulary": (
        [
            "pretrain",
            "--preset",
            "tiny",
            "--data",
            "other",
            "--out",
            "new",
            "--init-from",
            "run",
            *TINY,
            *SHORT,
        ],
        ["vocabulary"],
    ),
    "no target": ([*FINETUNE, "untargeted.yaml"], ["like", "target"]),
    "target not a choice": ([*FINETUNE, "foreign.yaml"], ["like", "Maybe"]),
    "misspelt mixture": ([*FINETUNE, "misspelt.yaml"], ["trian", "train"]),
    "no such model": (["evaluate", "gone", "--suite", "good.yaml", "--out", "new"], ["gone"]),
    "suite without a target": (["evaluate", "run", "--suite", "untargeted.yaml", "--out", "new"], ["like"]),
    "broken question": (["rank", "run", "broken.jsonl"], ["broken.jsonl"]),
    "report of nothing": (["report", "nothing", "--out", "new"], ["nothing"]),
    "hasty demo": (["demo", "--out", "new", "--budget", "1s"], ["1"]),
    "demo in the way": (["demo", "--out", "run"], ["run"]),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_one_line_and_nothing_left(
    mistake: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(place)
    arguments, named = MISTAKES[mistake]
    before = sorted(path.relative_to(place) for path in place.rglob("*"))
    capsys.readouterr()
    assert command(*arguments) == 2
    shown = capsys.readouterr().err
    line = shown.strip().splitlines()[-1]
    assert line.startswith("metro-t0: ") and shown.count("metro-t0: ") == 1 and "Traceback" not in shown
    for name in named:
        assert name in line
    assert sorted(path.relative_to(place) for path in place.rglob("*")) == before


def test_a_checkpoint_of_another_shape_is_not_resumed(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "run", run)
    resume = ["pretrain", "--resume", "--data", place / "corpus", "--out", run, "model.d_ff=64"]
    assert command(*resume) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert "d_ff" in line


def test_a_prompt_longer_than_the_model_is_cut_counted_and_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(json.dumps({"input": "word " * 2000, "choices": ["Yes", "No"]}) + "\n")
    assert command("rank", place / "run", questions) == 0
    assert "1 prompt" in capsys.readouterr().err
