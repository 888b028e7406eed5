"""What a launcher's environment says of a process."""

from __future__ import annotations

import os

import pytest

from metro_t0.launcher import LaunchedProcess


def test_alone_without_a_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert LaunchedProcess.from_environment() == LaunchedProcess(0, 1, 0, 1)
    assert LaunchedProcess().is_main


def test_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    process = LaunchedProcess.from_environment()
    assert process == LaunchedProcess(11, 16, 3, 8) and not process.is_main
    assert process.own_gpu(8) == 3
    with pytest.raises(
        ValueError, match=r"8 processes on a machine where torch sees 1 GPU: .*--nproc-per-node 1\)"
    ):
        process.own_gpu(1)


@pytest.mark.parametrize(("shown", "own"), [(None, "3"), ("4,5,6,7,0,1,2,3", "7"), ("6", "6")])
def test_a_process_of_several_works_alone(
    shown: str | None, own: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "11", "WORLD_SIZE": "16", "LOCAL_RANK": "3", "LOCAL_WORLD_SIZE": "8"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if shown is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    LaunchedProcess.from_environment().work_alone()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == own
    assert LaunchedProcess.from_environment() == LaunchedProcess()


def test_a_lone_process_keeps_its_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    LaunchedProcess().work_alone()
    assert os.environ["CUDA_VISIBLE_DEVICES"] == "0,1"
