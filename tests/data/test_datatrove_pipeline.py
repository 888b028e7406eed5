"""The preparation as datatrove pipelines: real executors, real tokenizer, and the output of ``prepare`` itself."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections import deque
from dataclasses import replace
from pathlib import Path
from pydoc_data.topics import topics

import pytest

pytest.importorskip("datatrove", reason="an extra: pip install 'metro-t0[corpora]'")

from datatrove.executor.local import LocalPipelineExecutor
from datatrove.executor.slurm import SlurmPipelineExecutor

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
    """Two processes."""
    return LocalPipelineExecutor(**stage.arguments(), workers=min(2, stage.tasks))


def here(stage: Stage) -> LocalPipelineExecutor:
    """One task after the other in this process, which is quicker."""
    return LocalPipelineExecutor(**stage.arguments(), workers=1)


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


def pieces(folder: Path) -> dict[str, int]:
    """Finished pieces of work with what tells a second one of the same name apart."""
    return {path.name: path.stat().st_ino for path in folder.iterdir() if not path.name.endswith(".part")}


def test_a_broken_file_stops_the_run_and_what_is_done_is_kept(reader: Path, tokenizer: Path) -> None:
    broken = reader / "more/9.txt"
    broken.write_bytes(b"\xff\xfe\xff")
    with pytest.raises(ValueError, match=r"9\.txt"):
        run_in_turn(stages(tokenizer, tasks=20), here)
    assert not (reader / "prepared").exists()
    done = pieces(reader / ".prepared.work/read")
    assert len(done) > 2
    broken.write_text("Mended.")
    read, *others = stages(tokenizer)
    run_in_turn([read], here)
    again = pieces(reader / ".prepared.work/read")
    assert again.items() > done.items(), "those that were there are the same folders"
    run_in_turn([read, *others], here)
    assert PreparedCorpus.load(reader / "prepared").card["sources"][1]["files"] == 7


def test_finished_tasks_and_shards_are_not_done_again(reader: Path, tokenizer: Path) -> None:
    run_in_turn(stages(tokenizer)[:3], here)
    (group,) = (reader / ".prepared.work").glob("blocks-*")
    before = pieces(group)
    finished = {
        log: log.stat().st_mtime_ns for log in (reader / ".prepared.work/logs").rglob("completions/*")
    }
    assert len(finished) == 3 + 1 + 3
    # Another number of tasks has a list of finished ones of its own, and yet the same shards.
    run_in_turn(stages(tokenizer, tasks=2)[:3], here)
    assert pieces(group) == before and len(before) > 3
    run_in_turn(stages(tokenizer), here)
    assert all(log.stat().st_mtime_ns == time for log, time in finished.items())
    shutil.rmtree(reader / "prepared")
    run_in_turn(stages(tokenizer), here)
    assert PreparedCorpus.load(reader / "prepared").card["documents"] > 0, "though all was marked as finished"


def test_prepare_goes_on_with_what_a_cluster_has_read(reader: Path, tokenizer: Path) -> None:
    run_in_turn(stages(tokenizer)[:1], here)
    source = reader / "topics.jsonl"
    facts = source.stat()
    # Lines of the same lengths, by which the file is cut into units.
    source.write_bytes(re.sub(rb"[^\n]", b"?", source.read_bytes()))
    os.utime(source, ns=(facts.st_atime_ns, facts.st_mtime_ns))
    corpus = prepare(["topics.jsonl", "more"], Path("prepared"), tokenizer=tokenizer, **vars(SETTINGS))
    assert corpus.card["sources"][0]["documents"] > 9, "which nobody could read any more"
    assert not (reader / ".prepared.work").exists()


def test_stages_out_of_turn_say_what_is_missing(reader: Path, tokenizer: Path) -> None:
    read, choose, encode, finish = stages(tokenizer)
    for early, message in (
        (choose, "units are not read; run the stage read first"),
        (encode, "not chosen yet; run the stage choose first"),
        (finish, "not chosen yet; run the stage choose first"),
    ):
        with pytest.raises(ValueError, match=message):
            deque(early.pipeline[0](None, 0, early.tasks))
    run_in_turn([read, choose], here)
    with pytest.raises(ValueError, match="shards are not written; run the stage encode first"):
        deque(finish.pipeline[0](None, 0, 1))
    shutil.rmtree(reader / ".prepared.work")
    with pytest.raises(ValueError, match="do all machines see the same"):
        deque(read.pipeline[0](None, 0, 3))


def test_impossible_arguments_are_refused_at_once(reader: Path, tokenizer: Path) -> None:
    with pytest.raises(ValueError, match="number of tasks must be at least 1, not 0"):
        stages(tokenizer, tasks=0)
    with pytest.raises(ValueError, match="validation fraction"):
        stages(tokenizer, replace(SETTINGS, validation_fraction=2.0))
    with pytest.raises(ValueError, match="more"):
        stages(reader / "more")
    (reader / "prepared").mkdir()
    (reader / "prepared/mine").touch()
    with pytest.raises(ValueError, match="already holds something"):
        stages(tokenizer)
    assert not (reader / ".prepared.work").exists()


# ---------------------------------------------------------------- the other executors


@pytest.mark.skipif(shutil.which("sbatch") is not None, reason="would queue jobs")
def test_slurm_gets_an_array_of_the_right_size_and_tasks_that_start_anywhere(
    reader: Path, tokenizer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, choose, *_ = stages(tokenizer)
    jobs = None
    for stage in (read, choose):
        jobs = SlurmPipelineExecutor(
            **stage.arguments(),
            job_name=f"prepare-{stage.name}",
            time="1:00:00",
            partition="cpu",
            depends=jobs,
        )
    # The first script is written, then handed to a command that is not here.
    with pytest.raises(FileNotFoundError, match="sbatch"):
        jobs.run()
    script = (read.logs / "launch_script.slurm").read_text()
    assert "#SBATCH --array=0-2\n" in script and "#SBATCH --job-name=prepare-read\n" in script
    assert f"launch_pickled_pipeline {read.logs}/executor.pik" in script
    monkeypatch.chdir("/")
    code = (
        "import dill, sys; job = dill.load(open(sys.argv[1], 'rb')); "
        "list(job.pipeline[0](None, int(sys.argv[2]), job.world_size))"
    )
    for rank in range(3):
        subprocess.run([sys.executable, "-c", code, str(read.logs / "executor.pik"), str(rank)], check=True)
    run_in_turn([choose], here)
    assert list((reader / ".prepared.work").glob("plan-*/*.pickle"))


@pytest.mark.slow
def test_ray_writes_what_prepare_writes_and_names_a_task_that_fails(reader: Path, tokenizer: Path) -> None:
    ray = pytest.importorskip("ray", reason="an extra: pip install 'metro-t0[ray]'")
    from datatrove.executor.ray import RayPipelineExecutor

    def executor(stage: Stage) -> RayPipelineExecutor:
        return RayPipelineExecutor(**stage.arguments(), mem_per_cpu_gb=0.5)

    broken = reader / "more/9.txt"
    broken.write_bytes(b"\xff\xfe\xff")
    ray.init(num_cpus=2)
    try:
        with pytest.raises(ValueError, match="1 of 3 tasks of the stage read did not finish") as caught:
            run_in_turn(stages(tokenizer), executor)
        log = Path(re.search(r"see (\S+\.log)", str(caught.value))[1])
        assert "9.txt" in log.read_text()
        broken.unlink()
        run_in_turn(stages(tokenizer), executor)
    finally:
        ray.shutdown()
    expected = prepare(["topics.jsonl", "more"], reader / "alone", tokenizer=tokenizer, **vars(SETTINGS))
    assert PreparedCorpus.load(reader / "prepared").card == expected.card


@pytest.mark.slow
@pytest.mark.parametrize("example", ["prepare-local.py", "prepare-ray.py"])
def test_examples_run(example: str, reader: Path, tokenizer: Path) -> None:
    if "ray" in example:
        pytest.importorskip("ray", reason="an extra: pip install 'metro-t0[ray]'")
    script = Path(__file__).parents[2] / "examples" / example
    command = [sys.executable, script, "topics.jsonl", "more", "--tokenizer", tokenizer, "--out", "prepared"]
    subprocess.run(command, check=True, capture_output=True)
    expected = prepare(["topics.jsonl", "more"], reader / "alone", tokenizer=tokenizer)
    assert PreparedCorpus.load(reader / "prepared").card == expected.card
