"""TensorBoard and W&B hold what ``metrics.jsonl`` holds, read back from their own files, after a kill -9 too."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from small_runs import SMALL_RUN, small_config

from metro_t0.config import load_pretrain_config
from metro_t0.training.run import pretrain
from metro_t0.training.trackers import RunMetrics, check_installed

TRACKED = ["training.steps=24", "training.save_every=10", "training.validate_every=8"]
KILLED_RUN = """
import os, signal, sys
from pathlib import Path
from metro_t0.config import load_pretrain_config
from metro_t0.training.trackers import RunMetrics
from metro_t0.training.run import pretrain

append = RunMetrics.append

def append_and_die(metrics, line):
    append(metrics, line)
    if line["step"] == 15:
        os.kill(os.getpid(), signal.SIGKILL)

RunMetrics.append = append_and_die
pretrain(load_pretrain_config("tiny", overrides=sys.argv[3:]), Path(sys.argv[1]), Path(sys.argv[2]))
"""


def written(run: Path) -> dict[str, dict[int, float]]:
    """Numbers of ``metrics.jsonl`` by ``kind/name`` and step."""
    found: dict[str, dict[int, float]] = {}
    for text in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines():
        line = json.loads(text)
        kind, step = line.pop("kind"), line.pop("step")
        for name, value in line.items():
            if value is not None:
                found.setdefault(f"{kind}/{name}", {})[step] = value
    return found


def offline_history(run: Path) -> list[dict[int, dict[str, Any]]]:
    """Of every offline W&B file of a run, oldest first: rows by step. The format is LevelDB's log of protobufs."""
    from wandb.proto import wandb_internal_pb2

    def records(path: Path) -> Iterator[Any]:
        data, position, whole = path.read_bytes(), 7, b""
        assert data[:4] == b":W&B"
        while position + 7 <= len(data):
            if (left := 32768 - position % 32768) < 7:
                position += left
                continue
            _, length, part = struct.unpack("<IHB", data[position : position + 7])
            whole += data[position + 7 : position + 7 + length]
            position += 7 + length
            if part in (1, 4):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(whole)
                whole = b""
                yield record

    histories = []
    for path in sorted(run.glob("wandb/offline-run-*/run-*.wandb")):
        rows = {}
        for record in records(path):
            if record.WhichOneof("record_type") == "history":
                items = {item.key or item.nested_key[0]: item.value_json for item in record.history.item}
                values = {name: json.loads(text) for name, text in items.items() if not name.startswith("_")}
                rows[json.loads(items["_step"])] = values
        histories.append(rows)
    return histories


def test_killed_and_resumed_they_show_what_the_file_says(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "run"
    names = "tensorboard,wandb" if find_spec("wandb") else "tensorboard"
    settings = [*TRACKED, f"training.trackers=[{names}]"]
    killed = subprocess.run(
        [sys.executable, "-c", KILLED_RUN, str(corpus), str(run), *SMALL_RUN, *settings],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # TensorBoard orders a folder's files by the second in their names; no command starts twice in one, this test would.
    time.sleep(1.1)
    pretrain(small_config(*settings), corpus, run, resume=True)
    assert len(list((run / "tensorboard").iterdir())) == 2
    events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    expected = written(run)
    assert {"train/loss", "train/mfu", "train/gradient_norm", "validation/lm_loss"} <= set(expected)
    assert set(events.Tags()["scalars"]) == set(expected)
    for tag, values in expected.items():
        points = [(event.step, event.value) for event in events.Scalars(tag)]
        assert [step for step, _ in points] == list(values), tag
        # TensorBoard keeps float32.
        assert [value for _, value in points] == pytest.approx(list(values.values()), rel=1e-6)
    if "wandb" in names:
        # W&B writes every second: how much of what it was given it had written is chance, but nothing is there twice.
        before, after = offline_history(run)
        assert list(before) == list(range(1, 16))[: len(before)] and list(after) == list(range(16, 25))


def test_interrupted_and_resumed_wandb_holds_every_step_once(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run, append = tmp_path / "run", RunMetrics.append
    config = small_config(*TRACKED, "training.trackers=[wandb]")

    def append_until_15(metrics: RunMetrics, line: Mapping[str, Any]) -> None:
        append(metrics, line)
        if line["step"] == 15:
            raise KeyboardInterrupt

    with monkeypatch.context() as context, pytest.raises(KeyboardInterrupt):
        context.setattr(RunMetrics, "append", append_until_15)
        pretrain(config, corpus, run)
    first = written(run)
    pretrain(config, corpus, run, resume=True)
    histories = offline_history(run)
    assert [list(rows) for rows in histories] == [list(range(1, 16)), list(range(16, 25))]
    assert len({path.name for path in run.glob("wandb/offline-run-*/run-*.wandb")}) == 1
    rows = {step: values for history in histories for step, values in history.items()}
    second = written(run)
    assert set(second) == {name for values in rows.values() for name in values}
    for name in second:
        # Steps 11 to 15 came again after the resume; W&B keeps what it got the first time.
        expected = second[name] | first.get(name, {})
        found = {step: values[name] for step, values in rows.items() if name in values}
        assert found == pytest.approx(expected, rel=1e-12), name


def test_what_is_not_installed_is_named_with_the_mend(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    # As W&B leaves one where it ran: it can be imported, and is no package.
    (tmp_path / "only_a_folder").mkdir()
    for name in ("a_tracker_that_nobody_has", "only_a_folder"):
        with pytest.raises(
            ValueError, match=rf"has {name}, which is not installed: pip install 'metro-t0\[{name}\]'$"
        ):
            check_installed([name])


@pytest.mark.parametrize("name", ["tensorboard", "wandb"])
def test_a_tracker_that_is_not_installed_is_refused_before_the_run(
    name: str, corpus: Path, tmp_path: Path
) -> None:
    if find_spec(name) is not None:
        pytest.skip(f"{name} is installed here")
    with pytest.raises(ValueError, match=rf"pip install 'metro-t0\[{name}\]'$"):
        pretrain(small_config(f"training.trackers=[{name}]"), corpus, tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_without_trackers_there_is_the_file_alone(tmp_path: Path) -> None:
    check_installed(load_pretrain_config("tiny").training.trackers)
    with RunMetrics(tmp_path) as metrics:
        metrics.append({"kind": "train", "step": 1, "loss": 2.0})
    assert [path.name for path in tmp_path.iterdir()] == ["metrics.jsonl"]
