"""Goodput of a run that is really killed, beside the simulation that ``metro-t0 plan --failures-per-day`` makes.

    python benchmarks/goodput.py --work goodput --steps 4000 --save-every 100 --mean-seconds 30

Trains a tiny network on the language reference of this Python: once undisturbed, which gives the seconds of a step, a
save and a start; then with SIGKILL at exponential times, resumed after each. Prints one JSON object. Both runs
need the machine to themselves: the simulation goes by the seconds of the first.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from pydoc_data.topics import topics
from statistics import mean, median

import numpy as np

from metro_t0.training.checkpoint import steps_saved
from metro_t0.training.plan.failures import Failures, exact_goodput, simulate

NETWORK = (
    "model.d_model=32 model.d_kv=16 model.d_ff=64 model.num_heads=2 model.num_layers=1 model.num_decoder_layers=1 "
    "model.num_auxiliary_layers=1"
)
SETTINGS = (
    "training.batch_tokens=512 training.micro_batch_tokens=512 training.precision=fp32 training.threads=1 "
    "training.log_every=1 training.validation_rows=0"
)
SIMULATIONS = 200


@dataclass(frozen=True)
class Launch:
    """One process: after which step it began, which it logged and saved last, whether it was killed."""

    began: int
    logged: int
    saved: int
    killed: bool

    @property
    def lost(self) -> int:
        """Steps that the next launch has to do again."""
        return self.logged - self.saved if self.killed else 0


@dataclass
class Record:
    """All launches of a run, and their wall-clock time."""

    launches: list[Launch] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """How many launches were killed."""
        return sum(launch.killed for launch in self.launches)

    @property
    def lost_steps(self) -> int:
        """Steps done more than once."""
        return sum(launch.lost for launch in self.launches)


def prepare(folder: Path) -> Path:
    """A corpus of the language reference, made once."""
    corpus = folder / "corpus"
    if not corpus.exists():
        folder.mkdir(parents=True, exist_ok=True)
        source = folder / "topics.jsonl"
        lines = [json.dumps({"text": topics[name]}) + "\n" for name in sorted(topics)]
        source.write_text("".join(lines), encoding="utf-8")
        _run("prepare", str(source), "--out", str(corpus), "--vocab-size", "600").wait()
    return corpus


def logged_steps(run: Path) -> list[dict[str, float]]:
    """The lines of training in ``metrics.jsonl``; one that a kill cut short is left out."""
    file = run / "metrics.jsonl"
    found = []
    for text in file.read_text(encoding="utf-8").splitlines() if file.exists() else []:
        try:
            line = json.loads(text)
        except json.JSONDecodeError:
            continue
        if line["kind"] == "train":
            found.append(line)
    return found


def train(
    corpus: Path,
    out: Path,
    steps: int,
    save_every: int,
    *,
    mean_seconds: float | None = None,
    most_kills: int | None = None,
    seed: int = 1,
) -> Record:
    """Train to the end, killed at exponential times where ``mean_seconds`` says so, and resumed each time."""
    rng = np.random.default_rng(seed)
    record = Record()
    begun = time.monotonic()
    while True:
        began = _last_saved(out)
        disturbed = mean_seconds is not None and (most_kills is None or record.kills < most_kills)
        timeout = rng.exponential(mean_seconds) if disturbed else None
        start = ["--resume"] if (out / "config.yaml").exists() else ["--preset", "tiny"]
        settings = [f"training.steps={steps}", f"training.save_every={save_every}"]
        words = [*NETWORK.split(), *SETTINGS.split(), *settings] if start[0] != "--resume" else []
        process = _run("pretrain", *start, "--data", str(corpus), "--out", str(out), *words)
        try:
            code, killed = process.wait(timeout), False
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code, killed = 0, True
        if code != 0:
            raise RuntimeError(f"training ended with exit code {code}; run it by hand to see why")
        logged = max([began, *(int(line["step"]) for line in logged_steps(out))])
        record.launches.append(Launch(began, logged, _last_saved(out), killed))
        if not killed:
            record.seconds = time.monotonic() - begun
            return record


def report(corpus: Path, folder: Path, arguments: argparse.Namespace) -> dict[str, object]:
    """Both runs, and what the simulation makes of the first one's seconds."""
    steps, save_every = arguments.steps, arguments.save_every
    whole = train(corpus, folder / "whole", steps, save_every)
    lines = logged_steps(folder / "whole")
    step_seconds = median(512 / line["tokens_per_second"] for line in lines)
    trained = lines[-1]["seconds"]
    saves = max(1, steps // save_every)
    save_seconds = max(1e-3, (trained - steps * step_seconds) / saves)
    start_seconds = whole.seconds - trained
    failures = Failures(arguments.mean_seconds, save_seconds, start_seconds)
    interval, work = save_every * step_seconds, steps * step_seconds
    runs = [simulate(failures, interval, work, seed) for seed in range(SIMULATIONS)]
    # The undisturbed start belongs to the run too.
    simulated = [work / (run.seconds + start_seconds) for run in runs]
    killed = train(
        corpus, folder / "killed", steps, save_every, mean_seconds=arguments.mean_seconds, seed=arguments.seed
    )
    return {
        "step_seconds": step_seconds,
        "save_seconds": save_seconds,
        "start_seconds": start_seconds,
        "failures": asdict(failures),
        "measured": {
            "goodput": work / killed.seconds,
            "seconds": killed.seconds,
            "kills": killed.kills,
            "lost_steps": killed.lost_steps,
        },
        "simulated": {
            "goodput": mean(simulated),
            "goodput_5_to_95_percent": np.quantile(simulated, [0.05, 0.95]).tolist(),
            "kills": mean(run.failures for run in runs),
            "lost_steps": mean(run.lost_seconds for run in runs) / step_seconds,
        },
        "expected_without_end": exact_goodput(failures, interval),
    }


def _last_saved(run: Path) -> int:
    return max(steps_saved(run / "checkpoints"), default=0) if (run / "checkpoints").is_dir() else 0


def _run(*words: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "metro_t0.cli.main", *words]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for the corpus and both runs")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--save-every", type=int, default=100)
    parser.add_argument("--mean-seconds", type=float, default=30.0, help="between two kills")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    print(json.dumps(report(prepare(arguments.work), arguments.work, arguments), indent=2))


if __name__ == "__main__":
    main()
