"""The launch files: their syntax, and that the command would understand what they say."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from metro_t0.cli.main import app
from metro_t0.config import load_pretrain_config
from metro_t0.study.study_file import load_study

FOLDER = Path(__file__).parent.parent / "examples"
LAUNCHED = [file for file in sorted(FOLDER.iterdir()) if file.suffix in (".sh", ".sbatch")]
STUDIES = [file for file in LAUNCHED if "metro-t0 ablate" in file.read_text(encoding="utf-8")]
EXAMPLES = [file for file in LAUNCHED if file not in STUDIES]


def commands(text: str) -> list[list[str]]:
    """Words of every ``metro-t0 pretrain`` in a launch file, its comments included."""
    joined = re.sub(r"\\\n#?\s*", " ", text)
    return [shlex.split(words) for words in re.findall(r"\bpretrain (--.*)", joined)]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_shell_and_the_command_understand_it(file: Path) -> None:
    checked = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    [words] = commands(file.read_text(encoding="utf-8"))
    overrides = [word for word in words if "=" in word]
    load_pretrain_config(words[words.index("--preset") + 1], overrides=overrides)
    options = {word for word in words if word.startswith("--")}
    # One command line for the first start and for those after it.
    assert options == {"--preset", "--data", "--out", "--resume"}


@pytest.mark.parametrize("file", STUDIES, ids=lambda file: file.name)
def test_the_shell_and_the_command_understand_a_study(file: Path) -> None:
    checked = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    [command] = re.findall(
        r"\bmetro-t0 ablate (--.*)", re.sub(r"\\\n\s*", " ", file.read_text(encoding="utf-8"))
    )
    words = shlex.split(command)
    load_study(words[words.index("--preset") + 1])
    known = {option for parameter in ablate_parameters() for option in parameter}
    assert {word for word in words if word.startswith("--")} <= known


def ablate_parameters() -> list[list[str]]:
    [verb] = [one for name, one in get_command(app).commands.items() if name == "ablate"]  # type: ignore[attr-defined]
    return [parameter.opts for parameter in verb.params]


@pytest.mark.parametrize(
    "file", [file for file in LAUNCHED if file.suffix == ".sbatch"], ids=lambda file: file.name
)
def test_the_job_is_told_before_its_time_is_up_and_queues_again(file: Path) -> None:
    job = file.read_text(encoding="utf-8")
    for line in ("#SBATCH --requeue", "#SBATCH --signal=TERM@120", 'if [ "$code" -eq 75 ]; then'):
        assert line in job.splitlines()
