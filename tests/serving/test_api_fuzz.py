"""schemathesis asks a real server whatever its own OpenAPI document allows and forbids."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from running_server import Server

pytest.importorskip("schemathesis")

HERE = Path(__file__).parent


@pytest.mark.slow
def test_the_server_keeps_its_word(server: Server, tmp_path: Path) -> None:
    """No 5xx, no answer or refusal that the document does not promise; the server's own end looks at its log."""
    program = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    options = ["--max-examples", "150", "--seed", "1", "--workers", "2"]
    config = ["--config-file", str(HERE / "schemathesis.toml")]
    done = subprocess.run(
        [*program, *config, "run", f"{server.url}openapi.json", *options],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr
    assert "Tested: 3" in done.stdout
    assert server.post("/rank", {"prompt": "a", "choices": ["yes"]})[0] == 200
