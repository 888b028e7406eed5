"""``metro-t0 serve`` as a process on a free port, and a client of it.

with running(folder, "--timeout", "5") as server:
    status, answer = server.post("/rank", {"prompt": "...", "choices": ["yes", "no"]})
"""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

_PATIENCE_SECONDS = 120.0


class Server:
    """A server's process and address."""

    def __init__(self, process: subprocess.Popen[bytes], log: IO[bytes]) -> None:
        self.process = process
        self._log = log
        self.url = self._address()
        self.port = int(self.url.rstrip("/").rpartition(":")[2])

    def log(self) -> str:
        """What the server wrote to standard output and error."""
        return Path(self._log.name).read_text(encoding="utf-8")

    def _address(self) -> str:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while time.monotonic() < deadline:
            if found := re.search(r"answers at (http://\S+)", self.log()):
                return found[1]
            assert self.process.poll() is None, self.log()
            time.sleep(0.05)
        raise AssertionError(f"the server does not start: {self.log()}")

    def request(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers in lower case, and body of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=_PATIENCE_SECONDS)
        try:
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return (
                answer.status,
                {name.lower(): value for name, value in answer.getheaders()},
                answer.read(),
            )
        finally:
            connection.close()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """Status and content of the answer to a JSON body; bytes are sent as they are."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        status, _, content = self.request("POST", path, data, {"Content-Type": "application/json"})
        return status, json.loads(content)

    def stop(self) -> int:
        """The exit code after SIGTERM."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=_PATIENCE_SECONDS)


@contextmanager
def running(model: Path, *options: str) -> Iterator[Server]:
    """A server for the time of a ``with`` block; whatever is left of it then is killed."""
    with tempfile.NamedTemporaryFile(prefix="serve-", suffix=".log") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "metro_t0.cli.main", "serve", str(model), "--port", "0", *options],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )
        try:
            yield Server(process, log)
        finally:
            process.kill()
            process.wait()
