"""The preparation as datatrove pipelines: real executors, real tokenizer, and the output of ``prepare`` itself."""

from __future__ import annotations

import json
from pathlib import Path
from pydoc_data.topics import topics

import pytest

pytest.importorskip("datatrove", reason="an extra: pip install 'metro-t0[corpora]'")

from datatrove.executor.local import LocalPipelineExecutor

from metro_t0.data.cleaning import Cleaning
from metro_t0.data.datatrove_pipeline import Stage, cluster_stages, run_in_turn
from metro_t0.data.preparation import Settings
from metro_t0.data.prepare import PreparedCorpus, prepare
from metro_t0.tokenization.training import train_tokenizer

DOCUMENTS = [topics[name].strip() for name in sorted(topics)]
SETTINGS = Settings(
    validation_fraction=0.1,
    max_length=128,
    seed=3,
    weights={"more": 1.5},
    cleaning=Cleaning(quality=("gopher-repetition",)),
    near_duplicates=True,
    shard_characters=60_000,
)


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vocabulary") / "tokenizer"
    train_tokenizer(iter(DOCUMENTS), out=folder, vocab_size=1000)
    return folder


@pytest.fixture
def reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with two sources, which the process is in: a large file and a folder that repeats some of it."""
    (tmp_path / "topics.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in DOCUMENTS))
    (tmp_path / "more").mkdir()
    for number, text in enumerate(DOCUMENTS[:6]):
        (tmp_path / f"more/{number}.txt").write_text(f"{text}\nOne more line, {number}.\n" + "x" * 9)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def local(stage: Stage) -> LocalPipelineExecutor:
    return LocalPipelineExecutor(**stage.arguments(), workers=min(2, stage.tasks))


def stages(tokenizer: Path, settings: Settings = SETTINGS, tasks: int | None = 3) -> list[Stage]:
    return cluster_stages(
        ["topics.jsonl", "more"], Path("prepared"), tokenizer=tokenizer, settings=settings, tasks=tasks
    )


def test_two_local_workers_write_what_prepare_writes(reader: Path, tokenizer: Path) -> None:
    run_in_turn(stages(tokenizer), local)
    corpus = PreparedCorpus.load(reader / "prepared")
    expected = prepare(["topics.jsonl", "more"], reader / "alone", tokenizer=tokenizer, **vars(SETTINGS))
    assert corpus.card == expected.card
    assert corpus.card["dropped"]["near_duplicate_documents"] > 0
    assert len(corpus.train.cache_files) > 3, "several shards"
    for part in ("train", "validation"):
        assert list(getattr(corpus, part)) == list(getattr(expected, part))
    assert [path.name for path in (reader / ".prepared.work").iterdir()] == ["logs"]


def test_a_broken_file_stops_the_run_and_what_is_done_is_not_done_again(
    reader: Path, tokenizer: Path
) -> None:
    whole = (reader / "topics.jsonl").read_bytes()
    (reader / "topics.jsonl").write_bytes(whole + b'{"text": "cut sho')
    (reader / "more").joinpath("6.txt").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"6\.txt"):
        run_in_turn(stages(tokenizer)[:1], local)
    assert not (reader / "prepared").exists()
    done = {path.name: path.stat().st_ino for path in (reader / ".prepared.work/read").glob("*-*")}
