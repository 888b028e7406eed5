"""``metro-t0 plan``: the published counts and budgets, and one line for every mistake."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from metro_t0.cli.main import main
from metro_t0.config import load_preset, preset_names
from metro_t0.training.plan.devices import find_device
from metro_t0.training.plan.estimate import make_plan
from metro_t0.training.plan.networks import pieces_of

COUNTS = {
    "base": (225_618_432, 255_189_761),
    "base++": (249_604_608, 279_207_169),
    "large++": (773_644_288, 851_402_753),
}


@dataclass(frozen=True)
class Found:
    returncode: int
    stdout: str
    stderr: str


def run(*words: str) -> Found:
    """Run the command in this process."""
    before, out, err = sys.argv, io.StringIO(), io.StringIO()
    sys.argv = ["metro-t0", "plan", *words]
    code = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = int(end.code or 0)
    finally:
        sys.argv = before
    return Found(code, out.getvalue(), err.getvalue())


def plan(*words: str) -> dict[str, Any]:
    found = run(*words, "--json")
    assert found.returncode == 0, found.stderr
    values: dict[str, Any] = json.loads(found.stdout)
    return values


@pytest.mark.parametrize("preset", COUNTS)
def test_published_sizes_and_budgets(preset: str) -> None:
    found = plan("--preset", preset, "--gpus", "8", "--device", "a100-80gb")
    assert (found["parameters"]["main"], found["parameters"]["total"]) == COUNTS[preset]
    official, time = found["official"], found["time"]
    assert official["tokens"] == time["tokens"] == official["updates"] * 2**20
    assert official["gpus"] == {"base": 64, "base++": 128, "large++": 256}[preset]
    assert time["flops"] == pytest.approx(found["flops"]["training"] * time["tokens"])
    speed = 0.35 * 8 * 312e12 / found["flops"]["training"]
    assert time["tokens_per_second"] == pytest.approx(speed)
    assert time["days"] == pytest.approx(time["tokens"] / speed / 86400)
    assert found["memory"]["ddp"]["total"] > found["memory"]["fsdp"]["total"]
    assert found["largest_micro_batch_tokens"]["ddp"] < found["largest_micro_batch_tokens"]["fsdp"]


def test_recomputation_takes_time_and_gives_memory() -> None:
    plain = plan("--preset", "large++", "--device", "a100-80gb", "--mfu", "0.4")
    found = plan(
        "--preset",
        "large++",
        "--device",
        "a100-80gb",
        "--mfu",
        "0.4",
        "training.activation_checkpointing=true",
    )
    ratio = found["executed_flops_per_token"] / plain["executed_flops_per_token"]
    assert 1.30 < ratio < 1.34
    assert found["flops"] == plain["flops"]
    assert found["time"]["days"] == pytest.approx(ratio * plain["time"]["days"])
    assert found["time"]["utilisation"] == pytest.approx(0.4 / ratio)
    assert found["largest_micro_batch_tokens"]["ddp"] > 4 * plain["largest_micro_batch_tokens"]["ddp"]


def test_what_is_said_to_fit_fits_and_a_row_more_does_not() -> None:
    most = plan("--preset", "base", "--device", "rtx4090", "training.micro_batch_tokens=512")
    largest = most["largest_micro_batch_tokens"]["ddp"]
    assert largest % 512 == 0 and largest > 0
    assert plan("--preset", "base", "--device", "rtx4090", f"training.micro_batch_tokens={largest}")
    refused = run("--preset", "base", "--device", "rtx4090", f"training.micro_batch_tokens={largest + 512}")
    assert refused.returncode == 2
    assert f"set training.micro_batch_tokens to at most {largest}" in refused.stderr


@pytest.mark.parametrize(
    ("preset", "device", "utilisation"), [("small", "a100-40gb", "0.2"), ("base-day", "h100", "0.35")]
)
def test_one_gpu_and_a_day(preset: str, device: str, utilisation: str) -> None:
    found = plan("--preset", preset, "--device", device, "--mfu", utilisation)
    assert 0.9 < found["time"]["days"] <= 1.0


def test_slow_links_hold_up_small_updates() -> None:
    words = ["--preset", "large++", "--gpus", "256", "--device", "h100"]
    fast, slow = plan(*words, "--link-gb", "1000"), plan(*words, "--link-gb", "50")
    assert fast["step"]["seconds"] == fast["step"]["computing_seconds"]
    assert slow["step"]["seconds"] == slow["step"]["sending_seconds"] > fast["step"]["seconds"]
    assert slow["traffic_per_step"]["ddp"] == pytest.approx(2 * 255 / 256 * 4 * 851_402_753)
    assert slow["time"]["utilisation"] < 0.35 == pytest.approx(fast["time"]["utilisation"])


def test_failures() -> None:
    found = plan("--preset", "base", "--gpus", "64", "--failures-per-day", "4", "--save-seconds", "20")
    failing = found["failures"]
    # Young's square root, less a little.
    assert failing["interval_seconds"] == pytest.approx((2 * 20 * 86400 / 4) ** 0.5, rel=0.05)
    assert failing["interval_steps"] == round(failing["interval_seconds"] / found["step"]["seconds"])
    assert 0.9 < failing["goodput_simulated"] < 1.0
    assert failing["goodput_simulated"] == pytest.approx(failing["goodput_first_order"], abs=0.01)
    assert failing["days"] == pytest.approx(found["time"]["days"] / failing["goodput_simulated"])
    by_disk = plan("--preset", "base", "--failures-per-day", "4", "--disk-gb", "1")["failures"]
    assert by_disk["save_seconds"] == pytest.approx(12 * 255_189_761 / 1e9)


def test_every_preset_has_a_plan() -> None:
    network = load_preset("base").model  # type: ignore[union-attr]
    for name in preset_names():
        config = load_preset(name)
        start = network if config.kind == "finetune" else None
        found = make_plan(config, pieces_of(name), find_device("a100-80gb"), network=start)
        assert found.time.days > 0 and found.memory["ddp"].total < found.device.usable


def test_this_machine_measured(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("extends: tiny\ntraining: {steps: 10, precision: fp32}\n", encoding="utf-8")
    found = plan("--config", str(file), "--device", "here")
    assert found["device"]["peak_flops"] > 1e8 and found["device"]["memory"] > 2**28
    assert found["device"]["hardware"]["precision"] == "fp32"
    assert found["time"]["steps"] == 10 and found["official"] is None
    budget = plan("--preset", "tiny", "training.budget_seconds=60", "--device", "here")
    assert budget["time"]["days"] * 86400 == pytest.approx(60, rel=0.1)


def plain_lines(text: str) -> set[str]:
    """Lines of a table as a page quotes them: without rules, one space between words."""
    return {" ".join(line.replace("│", " ").split()) for line in text.splitlines()}


def test_the_page_quotes_the_command() -> None:
    page = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")
    printed: dict[str, set[str]] = {}
    quoted = 0
    command = ""
    for language, body in re.findall(r"```(bash|text)\n(.*?)```", page, flags=re.DOTALL):
        if language == "bash":
            command = body.strip()
            if "--device here" not in command:
                printed[command] = plain_lines(run(*shlex.split(command)[2:]).stdout)
            continue
        for line in body.splitlines():
            # A section on data or failures goes on about the first command.
            assert line in printed[command] or line in next(iter(printed.values())), f"{command}: {line}"
            quoted += 1
    assert quoted > 50


def test_tables() -> None:
    found = run("--preset", "large++", "--gpus", "256", "--failures-per-day", "2")
    assert found.returncode == 0
    for words in ("851,402,753", "256 GPUs", "sharded (FSDP)", "largest micro-batch", "goodput, simulated"):
        assert words in found.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--preset bsae", "there is no preset 'bsae'; the nearest is 'base'"),
        ("--preset base --device h10", "there is no device 'h10'; the nearest is 'h100'"),
        ("--preset base --gpus 0", "a run needs at least one device: --gpus 0 is less"),
        (
            "--preset base --gpus 4096",
            "gives each of 4096 devices less than one row of 512 tokens: use at most 2048",
        ),
        ("--preset base --mfu 35", "--mfu is a share of the peak, above 0 and at most 1, not 35"),
        ("--preset base trainig.steps=1", "there is no setting 'trainig'; the nearest is 'training'"),
        ("--preset base training.precision=fp32", "the rate of h100 is known in bf16 only"),
        ("--preset base --length 4096", "rows of 4096 tokens are longer than the network's 1024 positions"),
        ("--preset base --failures-per-day 0", "--failures-per-day must be above 0, not 0"),
        ("--preset base --failures-per-day 90000", "the run would never end"),
        ("--preset base --failures-per-day 1 --save-seconds 0", "a save must take some time"),
        ("--preset base --disk-gb 0", "--disk-gb must be above 0, not 0"),
        ("--preset large++ --device rtx3090 --length 1024 model.num_layers=90", "not even one row fits"),
        ("--preset finetune --network finetune", "is a finetune configuration"),
        ("", "say what to plan: --preset NAME or --config FILE"),
    ],
)
def test_a_mistake_is_one_line(words: str, said: str) -> None:
    found = run(*words.split())
    assert found.returncode == 2 and not found.stdout
    assert said in found.stderr and found.stderr.count("\n") == 1
