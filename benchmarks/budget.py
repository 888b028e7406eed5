"""How well a time budget is kept: whole pretraining commands, timed from outside, while another program comes and goes.

    python benchmarks/budget.py --seconds 60

Prints, for every load, the time asked for, when the final model was there, and when the command had ended; then the
steps planned at the start and made in the end, how often they were fitted, and the share of the peak learning rate that
the last update had. The other program multiplies matrices on every core; it is switched on or off in the middle of the
budget.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from pydoc_data.topics import topics

import yaml

from metro_t0.data.prepare import prepare

_BUSY = "import torch\ntorch.set_num_threads(1)\na = torch.ones(512, 512)\nwhile True:\n    a @ a"


@dataclass(frozen=True)
class Load:
    """When the other program runs, as shares of the budget; equal = never."""

    begins: float
    ends: float


LOADS = {
    "no other program": Load(0.0, 0.0),
    "comes half-way": Load(0.5, 10.0),
    "goes half-way": Load(0.0, 0.5),
}


def busy(load: Load, seconds: float, over: threading.Event) -> None:
    """Keep every core at work between the load's shares of the budget, or until the run is over."""
    if load.begins == load.ends or over.wait(load.begins * seconds):
        return
    others = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(os.cpu_count() or 1)]
    over.wait((load.ends - load.begins) * seconds)
    for other in others:
        other.kill()
        other.wait()


def timed_run(
    corpus: Path, run: Path, seconds: float, load: Load, settings: list[str]
) -> tuple[float, float]:
    """Seconds until the final model was there, and until the command had ended."""
    command = [
        sys.executable,
        "-m",
        "metro_t0.cli.main",
        "pretrain",
        "--preset",
        "tiny",
        "--data",
        str(corpus),
    ]
    over = threading.Event()
    other = threading.Thread(target=busy, args=(load, seconds, over))
    other.start()
    begun = time.time()
    try:
        subprocess.run(
            [*command, "--out", str(run), "--budget", f"{seconds:g}s", *settings],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        return (run / "model").stat().st_ctime - begun, time.time() - begun
    finally:
        over.set()
        other.join()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of each run")
    parser.add_argument(
        "settings", nargs="*", metavar="KEY=VALUE", help="of the runs, behind the preset tiny"
    )
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = "".join(json.dumps({"text": text}) + "\n" for text in topics.values())
        (folder / "topics.jsonl").write_text(lines, encoding="utf-8")
        prepare([folder / "topics.jsonl"], folder / "corpus", vocab_size=2000)
        names = ("asked s", "model s", "off", "ended s", "off", "planned", "steps", "fits", "last rate")
        print(f"{'load':<18}" + "".join(f"{name:>10}" for name in names))
        for number, (what, load) in enumerate(LOADS.items()):
            run = folder / f"run-{number}"
            model, ended = timed_run(folder / "corpus", run, arguments.seconds, load, arguments.settings)
            resolved = yaml.safe_load((run / "config.yaml").read_text(encoding="utf-8"))
            planned, peak = resolved["training"]["steps"], resolved["optimizer"]["learning_rate"]
            text = (run / "metrics.jsonl").read_text(encoding="utf-8")
            metrics = [json.loads(line) for line in text.splitlines()]
            fits = [line for line in metrics if line["kind"] == "schedule"]
            last = [line for line in metrics if line["kind"] == "train"][-1]
            asked, rate = arguments.seconds, last["learning_rate"] / peak
            times = f"{asked:>10.1f}{model:>10.1f}{model / asked - 1:>10.1%}{ended:>10.1f}{ended / asked - 1:>10.1%}"
            steps = f"{planned:>10}{last['step']:>10}{len(fits):>10}{rate:>10.1%}"
            print(f"{what:<18}{times}{steps}", flush=True)


if __name__ == "__main__":
    main()
