"""The demo: from this Python installation's documentation to zero-shot answers and a page that shows them.

    report = run_demo(Path("metro-t0-demo"), console=Console(stderr=True))

Six phases, each a call of the library: read the docstrings, prepare them (an 8k tokenizer and token blocks), pretrain
the ``tiny`` METRO model, finetune it on prompts (``demo/tasks.py``), rank answers to questions that finetuning
held out, write the report. The two training phases share what the budget leaves to them, so that the whole takes the
time it was given on any machine; how many updates that makes is in each run's ``config.yaml``.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from metro_t0.data.output import check_vacant
from metro_t0.data.pydocs import MAX_CHARACTERS_PER_LIBRARY, PydocEntry, iterate_pydocs
from metro_t0.demo.tasks import write_tasks

if TYPE_CHECKING:
    from rich.console import Console

DEFAULT_BUDGET_SECONDS = 400.0
MIN_BUDGET_SECONDS = 20.0
VOCAB_SIZE = 8192
_ROWS = 2500
_EVALUATION_ROWS = 200
# Shares of the time: what the phases after a training phase need, and what pretraining gets of all training.
_FINETUNE_OVERHEAD = 0.06
_EVALUATION_SHARE = 0.1
_PRETRAIN_SHARE = 0.5
_SHORTEST_TRAINING = 3.0
_PHASES = 6


@dataclass(frozen=True)
class DemoPlan:
    """How much of everything a budget allows.

    Attributes:
        budget_seconds: for all phases together.
        characters_per_library: of the corpus.
        rows, evaluation_rows: the most of a task family to train and to evaluate on.
    """

    budget_seconds: float
    characters_per_library: int
    rows: int
    evaluation_rows: int


def plan_demo(budget_seconds: float | None = None) -> DemoPlan:
    """The plan for a budget; everything is used from ``DEFAULT_BUDGET_SECONDS`` on.

    Raises:
        ValueError: the budget is below ``MIN_BUDGET_SECONDS``.
    """
    budget = DEFAULT_BUDGET_SECONDS if budget_seconds is None else budget_seconds
    if not budget >= MIN_BUDGET_SECONDS:
        raise ValueError(
            f"a budget of {budget:g} seconds is too short for the demo: give at least {MIN_BUDGET_SECONDS:g}"
        )
    share = min(1.0, budget / DEFAULT_BUDGET_SECONDS)
    return DemoPlan(
        budget_seconds=budget,
        # Reading, the tokenizer and the blocks take time in proportion to the text.
        characters_per_library=max(50_000, int(MAX_CHARACTERS_PER_LIBRARY * share**2)),
        rows=max(96, int(_ROWS * share)),
        evaluation_rows=max(24, int(_EVALUATION_ROWS * share)),
    )


def run_demo(out: Path, *, budget_seconds: float | None = None, console: Console | None = None) -> Path:
    """Run the whole recipe on the documentation of this Python installation.

    Args:
        out: folder to make. It gets ``pydocs.jsonl``, ``corpus/``, ``tasks/``, the runs ``pretrain/`` and
            ``finetune/``, ``evaluation/`` and ``report.html``.
        budget_seconds: about how long all of it may take; by default under eight minutes on two CPU cores. A
            shorter one makes the corpus, the tasks and the training smaller.
        console: for a line a phase and progress bars; None = silent.

    Returns:
        The report's path.

    Raises:
        ValueError: ``out`` holds something already, or the budget is too short.
    """
    plan = plan_demo(budget_seconds)
    check_vacant(out)

    from metro_t0.config import load_finetune_config, load_pretrain_config
    from metro_t0.data.prepare import prepare
    from metro_t0.evaluation.report.page import write_report
    from metro_t0.evaluation.suites import evaluate
    from metro_t0.training.run import finetune, pretrain

    clock = _Clock(plan.budget_seconds, console)
    out.mkdir(parents=True, exist_ok=True)

    clock.phase("Reading the documentation of this Python installation")
    entries = list(iterate_pydocs(characters_per_library=plan.characters_per_library))
    _write_corpus(entries, out / "pydocs.jsonl")
    tasks = write_tasks(entries, out / "tasks", rows=plan.rows, evaluation_rows=plan.evaluation_rows)
    characters = sum(len(entry.text) for entry in entries)
    clock.say(f"{len(entries):,} docstrings and topics, {characters / 1e6:.1f} million characters")

    clock.phase(f"Preparing the corpus: a tokenizer of {VOCAB_SIZE:,} pieces and token blocks")
    prepare([out / "pydocs.jsonl"], out / "corpus", vocab_size=VOCAB_SIZE, console=console)

    training = clock.left() * (1 - _FINETUNE_OVERHEAD - _EVALUATION_SHARE)
    seconds = max(_SHORTEST_TRAINING, training * _PRETRAIN_SHARE)
    clock.phase(f"Pretraining the tiny METRO model for about {seconds:.0f} s")
    budget = f"training.budget_seconds={seconds:.1f}"
    pretrain_config = load_pretrain_config("tiny", overrides=[budget])
    pretrain(pretrain_config, out / "corpus", out / "pretrain", console=console)

    seconds = max(
        _SHORTEST_TRAINING, clock.left() - (_FINETUNE_OVERHEAD + _EVALUATION_SHARE) * plan.budget_seconds
    )
    clock.phase(f"Finetuning it on prompts for about {seconds:.0f} s")
    budget = f"training.budget_seconds={seconds:.1f}"
    finetune_config = load_finetune_config("finetune-tiny", overrides=[budget])
    finetune(finetune_config, out / "pretrain", tasks.mixture, out / "finetune", console=console)

    clock.phase("Ranking answers to questions that finetuning never asked")
    evaluate(out / "finetune", tasks.suite, out / "evaluation", console=console)

    clock.phase("Writing the report")
    report = write_report(
        [out / "pretrain", out / "finetune"],
        out / "report.html",
        evaluation=out / "evaluation",
        title="METRO-T0 on the documentation of a Python installation",
    )
    clock.say(f"done in {clock.elapsed():.0f} s")
    return report


class _Clock:
    """Announces the phases and knows how much of the budget is left."""

    def __init__(self, budget_seconds: float, console: Console | None) -> None:
        self._start = time.perf_counter()
        self._budget = budget_seconds
        self._console = console
        self._phases = 0

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def left(self) -> float:
        return self._budget - self.elapsed()

    def phase(self, what: str) -> None:
        self._phases += 1
        self.say(f"[{self._phases}/{_PHASES}, {self.elapsed():.0f} s] {what}")

    def say(self, line: str) -> None:
        if self._console is not None:
            self._console.print(line, highlight=False, markup=False)


def _write_corpus(entries: Iterable[PydocEntry], path: Path) -> None:
    """The entries as JSON lines that ``metro-t0 prepare`` reads."""
    with path.open("w", encoding="utf-8") as file:
        for entry in entries:
            record = {
                "text": entry.text,
                "library": entry.library,
                "module": entry.module,
                "name": entry.qualified_name,
                "kind": entry.kind,
            }
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
