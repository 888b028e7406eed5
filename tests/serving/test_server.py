"""The server's process: where it listens, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("fastapi")

from running_server import running

from metro_t0.serving.server import address, listen


def test_sigterm_answers_what_runs_and_takes_no_more(model_folder: Path) -> None:
    slow = {"prompts": ["yes no maybe"] * 64, "max_new_tokens": 40, "beams": 4}
    with running(model_folder) as server, ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(server.post, "/generate", slow) for _ in range(4)]
        while json.loads(server.request("GET", "/healthz")[2])["waiting"] < 4:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGTERM)
        while True:
            try:
                socket.create_connection(("127.0.0.1", server.port)).close()
            except ConnectionRefusedError:
                break
        assert server.process.poll() is None
        for one in asked:
            status, answer = one.result(120)
            assert status == 200 and len(answer["answers"]) == 64
        assert server.process.wait(60) == 0
        assert "Traceback" not in server.log()


@pytest.mark.slow
def test_ctrl_c_ends_it_too_and_it_listens_at_loopback_only(model_folder: Path) -> None:
    with running(model_folder) as server:
        assert server.url == f"http://127.0.0.1:{server.port}/"
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 0
        assert server.log().count("\n") == 1


@pytest.mark.slow
def test_a_second_ctrl_c_does_not_wait(model_folder: Path) -> None:
    slow = {"prompts": ["yes no maybe"] * 64, "max_new_tokens": 120, "beams": 8}
    with running(model_folder) as server, ThreadPoolExecutor(4) as clients:
        asked = [clients.submit(server.post, "/generate", slow) for _ in range(4)]
        while json.loads(server.request("GET", "/healthz")[2])["waiting"] < 4:
            time.sleep(0.01)
        server.process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(60) == 130
        assert "Traceback" not in server.log()
        assert all(one.exception() for one in asked[1:])


def test_a_taken_port_is_one_line(model_folder: Path) -> None:
    with listen("127.0.0.1", 0) as taken:
        port = str(taken.getsockname()[1])
        done = subprocess.run(
            [sys.executable, "-m", "metro_t0.cli.main", "serve", str(model_folder), "--port", port],
            capture_output=True,
            text=True,
        )
    assert done.returncode == 2
    assert done.stderr.startswith(f"metro-t0: cannot listen at 127.0.0.1, port {port}: ")
    assert done.stderr.count("\n") == 1


def test_without_the_extra_one_line_names_it(model_folder: Path) -> None:
    hidden = "import sys; sys.modules['fastapi'] = None; from metro_t0.cli.main import main; main()"
    command = [sys.executable, "-c", hidden, "serve", str(model_folder)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == "metro-t0: serving needs FastAPI and uvicorn: pip install 'metro-t0[serve]'\n"


def test_addresses() -> None:
    with pytest.raises(ValueError, match=r"cannot listen at no\.such\.host\.invalid, port 8000"):
        listen("no.such.host.invalid", 8000)
    with listen("localhost", 0) as listener:
        assert address(listener).startswith("http://")
