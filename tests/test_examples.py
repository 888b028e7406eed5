"""The launch files: their syntax, and that the command would understand what they say."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from metro_t0.config import load_pretrain_config
from metro_t0.study.plan import arms
from metro_t0.study.study_file import load_study, with_overrides

FOLDER = Path(__file__).parent.parent / "examples"
EXAMPLES = [file for file in sorted(FOLDER.iterdir()) if file.suffix in (".sh", ".sbatch")]


def commands(text: str) -> list[list[str]]:
    """Words of every ``metro-t0 pretrain`` or ``ablate`` in a launch file, its comments included; the verb first."""
    joined = re.sub(r"\\\n#?\s*", " ", text)
    return [[verb, *shlex.split(words)] for verb, words in re.findall(r"\b(pretrain|ablate) (--.*)", joined)]


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.name)
def test_the_shell_and_the_command_understand_it(file: Path) -> None:
    checked = subprocess.run(["bash", "-n", file], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stderr
    [(verb, *words)] = commands(file.read_text(encoding="utf-8"))
    overrides = [word for word in words if "=" in word]
    preset = words[words.index("--preset") + 1]
    options = {word for word in words if word.startswith("--")}
    # One command line for the first start and for those after it.
    if verb == "ablate":
        assert arms(with_overrides(load_study(preset), overrides))
        assert options == {"--preset", "--data", "--data-root", "--templates", "--out"}
    else:
        load_pretrain_config(preset, overrides=overrides)
        assert options == {"--preset", "--data", "--out", "--resume"}


@pytest.mark.parametrize("name", ["slurm.sbatch", "ablate-array.sbatch"])
def test_the_job_is_told_before_its_time_is_up_and_queues_again(name: str) -> None:
    job = (FOLDER / name).read_text(encoding="utf-8")
    for line in ("#SBATCH --requeue", "#SBATCH --signal=TERM@120", 'if [ "$code" -eq 75 ]; then'):
        assert line in job.splitlines()
