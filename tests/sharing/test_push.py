"""``metro-t0 convert --push``, against a real server: what arrives, and what is said when nothing can."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_hub import SmallHub
from small_sources import convert, save_pretraining_source

TOKEN = "hf_good"


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pushed") / "source"
    save_pretraining_source(folder)
    return folder


@pytest.fixture
def hub() -> Iterator[SmallHub]:
    with SmallHub(TOKEN) as running:
        yield running


def surroundings(folder: Path, address: str, token: str | None) -> dict[str, str]:
    """Environment variables for the Hub's client, with no token of whoever runs the tests."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    given = {} if token is None else {"HF_TOKEN": token}
    return {
        **own,
        "HF_HOME": str(folder / "home"),
        "HF_ENDPOINT": address,
        "HF_HUB_DISABLE_XET": "1",
        **given,
    }


def content(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


UPLOAD = """
import sys
from pathlib import Path
from metro_t0.sharing.push import push_folder
try:
    print(push_folder(Path(sys.argv[1]), sys.argv[2]))
except ValueError as error:
    sys.exit(str(error))
"""


def push(folder: Path, name: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """The upload alone, in a process of its own: the Hub's client reads the Hub's address when it is imported."""
    return subprocess.run(
        [sys.executable, "-c", UPLOAD, str(folder), name], capture_output=True, text=True, env=environment
    )


def test_the_whole_folder_arrives(source: Path, hub: SmallHub, tmp_path: Path) -> None:
    environment = surroundings(tmp_path, hub.address, TOKEN)
    done = convert(
        source, "--out", tmp_path / "out", "--push", "me/model", "--private", environment=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [f"{hub.address}/me/model", str(tmp_path / "out")]
    assert hub.files["me/model"] == content(tmp_path / "out")
    assert hub.private["me/model"]
    assert "pretraining/model.safetensors" in hub.files["me/model"]
    assert b"# me/model" in hub.files["me/model"]["README.md"]

    (tmp_path / "out" / "README.md").write_text("# Another card\n")
    again = push(tmp_path / "out", "me/model", environment)
    assert again.returncode == 0, again.stderr
    assert hub.files["me/model"] == content(tmp_path / "out")


@pytest.mark.parametrize(
    ("token", "name", "message"),
    [
        ("hf_bad", "me/model", "the Hub does not know this token"),
        (TOKEN, "others/model", "this token may not write to others/model"),
        (TOKEN, "me/full", "the Hub answers 507"),
    ],
)
def test_who_may_not_write_hears_why(
    hub: SmallHub, tmp_path: Path, token: str, name: str, message: str
) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "README.md").write_text("# A card\n")
    done = push(folder, name, surroundings(tmp_path, hub.address, token))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert message in done.stderr and f"hf upload {name} {folder}" in done.stderr
    assert token not in done.stderr and not hub.files


@pytest.mark.slow
def test_without_a_network_the_folder_stays(source: Path, tmp_path: Path) -> None:
    with socket.socket() as taken:
        # Bound and not listening: whoever comes is refused.
        taken.bind(("127.0.0.1", 0))
        environment = surroundings(tmp_path, f"http://127.0.0.1:{taken.getsockname()[1]}", TOKEN)
        done = convert(source, "--out", tmp_path / "out", "--push", "me/model", environment=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "the Hub cannot be reached" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize(
    ("name", "token", "message"),
    [
        ("me/model", None, "there is no token for the Hub"),
        ("model", TOKEN, "'model' is no name for a repository"),
        ("me/my model", TOKEN, "'me/my model' is no name for a repository"),
    ],
)
def test_what_cannot_be_pushed_is_refused_before_anything_is_made(
    source: Path, hub: SmallHub, tmp_path: Path, name: str, token: str | None, message: str
) -> None:
    environment = surroundings(tmp_path, hub.address, token)
    done = convert(source, "--out", tmp_path / "out", "--push", name, environment=environment)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and message in done.stderr
    assert not (tmp_path / "out").exists() and not hub.files
