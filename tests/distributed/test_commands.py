"""The commands under torchrun: one run on any number of processes, which survives the death of one of them."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from launch import HERE, metro_t0, said_by_command, torchrun
from small_runs import SMALL_RUN, losses, small_config

from metro_t0.config import load_finetune_config, read_config
from metro_t0.modeling.pretraining import MetroT0ForPreTraining
from metro_t0.training.checkpoint import steps_saved
from metro_t0.training.run import finetune, pretrain

EXAMPLES = HERE.parent.parent / "examples"
EIGHT = [
    "training.steps=8",
    "training.validate_every=4",
    "training.save_every=4",
    "training.batch_tokens=600",
    "training.micro_batch_tokens=200",
]
FINETUNE = [
    "training.steps=6",
    "training.precision=fp32",
    "training.threads=1",
    "training.batch_tokens=256",
    "training.micro_batch_tokens=100",
    "training.log_every=1",
    "max_input_length=48",
    "max_target_length=16",
    "dropout_rate=0.0",
]
PRETRAIN = ["pretrain", "--preset", "tiny", *SMALL_RUN, *EIGHT]


@pytest.fixture(scope="module")
def alone(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run on one process."""
    return pretrain(small_config(*EIGHT), corpus, tmp_path_factory.mktemp("alone") / "run")


def check_same_losses(run: Path, reference: Path) -> None:
    for kind in ("train", "validation"):
        found, wanted = losses(run, kind), losses(reference, kind)
        assert list(found) == list(wanted)
        for step, line in found.items():
            assert list(line) == list(wanted[step])
            for name, value in line.items():
                if name == "padding_share":  # of a process's own share, whose rows are padded to its longest
                    continue
                # Not every metric is a number: one over no tokens at all has no value.
                near = isinstance(value, float)
                # What a row shorter than its batch reads one token longer: see training/activation_shares.py.
                within = 5e-3 if name.startswith("activation_share_decoder") else 1e-5
                assert value == (
                    pytest.approx(wanted[step][name], rel=within) if near else wanted[step][name]
                )


def files_of(run: Path) -> set[str]:
    """A run's files, without those of which each process may have one."""
    return {str(path.relative_to(run)) for path in run.rglob("*") if path.parent.name != "optimizer"}


def test_a_run_on_two_processes_is_the_run_on_one(alone: Path, corpus: Path, tmp_path: Path) -> None:
    finished = metro_t0(2, *PRETRAIN, "--data", corpus, "--out", tmp_path / "run")
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.strip() == str(tmp_path / "run")
    check_same_losses(tmp_path / "run", alone)
    assert files_of(tmp_path / "run") == files_of(alone)
    one, other = (
        MetroT0ForPreTraining.from_pretrained(run / "model").state_dict() for run in (alone, tmp_path / "run")
    )
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_finetuning_on_two_processes_is_that_on_one(alone: Path, mixture: Path, tmp_path: Path) -> None:
    config = load_finetune_config("finetune-tiny", overrides=FINETUNE)
    reference = finetune(config, alone, mixture, tmp_path / "one")
    command = ["finetune", alone, "--mixture", mixture, "--preset", "finetune-tiny", *FINETUNE]
    finished = metro_t0(2, *command, "--out", tmp_path / "two")
    assert finished.returncode == 0, finished.stderr
    check_same_losses(tmp_path / "two", reference)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


@pytest.mark.slow
def test_a_process_that_dies_ends_the_run_which_goes_on_with_fewer_or_more(
    alone: Path, corpus: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    finished = torchrun(2, HERE / "dying.py", *PRETRAIN, "--data", corpus, "--out", run)
    assert finished.returncode != 0
    assert "rank      : 1" in finished.stderr and "Signal 9 (SIGKILL)" in finished.stderr
    assert set(steps_saved(run / "checkpoints")) <= {4} and not (run / "model").exists()
    shutil.copytree(run, tmp_path / "on one")
    pretrain(read_config(run / "config.yaml"), corpus, tmp_path / "on one", resume=True)
    check_same_losses(tmp_path / "on one", alone)
    resumed = metro_t0(3, "pretrain", "--resume", "--data", corpus, "--out", run)
    assert resumed.returncode == 0, resumed.stderr
    check_same_losses(run, alone)


@pytest.mark.slow
def test_torchrun_brings_a_run_back_after_a_death(alone: Path, corpus: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [*PRETRAIN, "--data", corpus, "--out", run, "--resume"]
    finished = torchrun(2, HERE / "dying.py", *command, restarts=2)
    assert finished.returncode == 0, finished.stderr
    assert "There is no run in" in finished.stderr and "Signal 9" not in finished.stdout
    check_same_losses(run, alone)
    assert (run / "model").is_dir()


@pytest.mark.slow
def test_a_mistake_is_one_line_from_one_process(alone: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    few_rows = metro_t0(4, *PRETRAIN, "training.batch_tokens=100", "--data", corpus, "--out", out)
    assert few_rows.returncode != 0
    [line] = said_by_command(few_rows)
    assert "training.batch_tokens 100 is about 1 row a step, too few for 4 processes" in line
    taken = metro_t0(2, *PRETRAIN, "--data", corpus, "--out", alone)
    assert taken.returncode != 0
    [line] = said_by_command(taken)
    assert "already holds a run: continue it with --resume" in line
    for finished in (few_rows, taken):
        assert (
            "exitcode  : 2" in finished.stderr and "Traceback" not in finished.stderr.split("metro-t0: ")[0]
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_the_launch_file_for_several_machines_runs(alone: Path, corpus: Path, tmp_path: Path) -> None:
    """Two machines of one process each, both of them this one."""
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        # The launch file calls torchrun by name, as a user's active environment has it.
        "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]),
        "NODES": "2",
        "PROCESSES": "1",
        "ENDPOINT": f"localhost:{port}",
        "OMP_NUM_THREADS": "1",
    }
    command = [EXAMPLES / "multi-node.sh", *PRETRAIN, "--data", corpus, "--out", tmp_path / "run", "--resume"]
    machines = [
        subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) for _ in range(2)
    ]
    errors = [machine.communicate(timeout=300)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], errors
    check_same_losses(tmp_path / "run", alone)
