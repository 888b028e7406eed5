"""``metro-t0 evaluate --lm-eval``: tasks of lm-eval instead of a suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def evaluate_lm_eval(
    model: str,
    tasks: str,
    out: Path,
    *,
    include_path: Path | None,
    limit: int | None,
    published_rule: bool,
    max_input_length: int,
    as_json: bool,
) -> None:
    """Runs the tasks, writes ``lm-eval.json`` and prints a table, or the JSON.

    Args:
        model: a model folder, a run directory or a Hub name.
        tasks: names with commas between them.
        out: folder for the results.
        include_path: folder of further tasks.
        limit: only the first documents of each task.
        published_rule: score as METRO-T0's authors do, not as lm-eval's own path does.
        max_input_length: tokens of a prompt that are read.
        as_json: print what was written.

    Raises:
        ValueError: a user's mistake.
    """
    names = [name.strip() for name in tasks.split(",") if name.strip()]
    if not names:
        raise ValueError("--lm-eval names no task; give one or more, with commas between them")
    from metro_t0.evaluation import lm_eval_adapter

    results = lm_eval_adapter.evaluate_lm_eval(
        model,
        names,
        out,
        include_path=include_path,
        limit=limit,
        official=published_rule,
        max_length=max_input_length,
    )
    if as_json:
        print((out / "lm-eval.json").read_text(encoding="utf-8"), end="")
    else:
        _print_table(results)
        print(f"written to {out / 'lm-eval.json'}")


def _print_table(results: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title="Tasks of lm-eval", box=SIMPLE)
    for heading in ("task", "metric"):
        table.add_column(heading, overflow="fold")
    for heading in ("documents", "value", "standard error"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, task in results["results"].items():
        documents = str(results.get("n-samples", {}).get(name, {}).get("effective", ""))
        for key, value in task.items():
            metric, _, filtered = key.partition(",")
            if not filtered or metric.endswith("_stderr"):
                continue
            label = metric if filtered == "none" else f"{metric} ({filtered})"
            cells = (documents, _figure(value), _figure(task.get(f"{metric}_stderr,{filtered}")))
            table.add_row(Text(str(task.get("alias", name))), Text(label), *cells)
    Console().print(table)


def _figure(value: Any) -> str:
    return f"{value:.4f}" if isinstance(value, int | float) else "" if value in (None, "N/A") else str(value)
