"""``metro-t0 evaluate``: zero-shot accuracy on a suite of tasks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from metro_t0.cli.evaluate_lm_eval import evaluate_lm_eval


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, run directory or Hub name.")],
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Folder for results.json and examples.jsonl; made if need be.")
    ],
    suite: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Suite: a mixture file (YAML) whose tasks name 'evaluation' (or 'validation') rows.",
        ),
    ] = None,
    lm_eval: Annotated[
        str | None,
        typer.Option(metavar="TASKS", help="Tasks of lm-eval in place of a suite, with commas between them."),
    ] = None,
    include_path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="With --lm-eval: tasks of your own (YAML files) beside lm-eval's."),
    ] = None,
    published_rule: Annotated[
        bool,
        typer.Option(
            "--published-rule",
            help="With --lm-eval: score the end token too, and cut long prompts at their end, as suites do.",
        ),
    ] = False,
    templates: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Templates, in place of those the suite names.")
    ] = None,
    data_root: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Rows: DIR/<dataset>/<subset or default>/<split>.jsonl.gz."),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Only the first N rows of each task.")
    ] = None,
    max_input_length: Annotated[
        int,
        typer.Option(metavar="N", help="Tokens of a prompt that are read; longer ones are cut and counted."),
    ] = 512,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of the intervals' bootstrap and the examples drawn.")
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of a table.")] = False,
) -> None:
    """Rank the answers of every task of a suite under each of its templates, and score them.

    The table shows each task's mean accuracy over its templates with its 95 % interval, beside chance (what a uniform
    guess would score). Templates without answer choices cannot be ranked; they are listed, not scored.

    \b
      metro-t0 evaluate runs/finetune --suite suite.yaml --out results
      metro-t0 evaluate runs/finetune --suite suite.yaml --data-root data --limit 100 --out quick-look
      metro-t0 evaluate runs/finetune --lm-eval my_task --include-path my-tasks --out results
    Then look at it:
      metro-t0 report runs/pretrain runs/finetune --evaluation results
    """
    if (suite is None) == (lm_eval is None):
        raise ValueError("what is to be evaluated? give either --suite FILE or --lm-eval TASKS")
    if lm_eval is not None:
        evaluate_lm_eval(
            model,
            lm_eval,
            out,
            include_path=include_path,
            limit=limit,
            published_rule=published_rule,
            max_input_length=max_input_length,
            as_json=as_json,
        )
        return
    assert suite is not None
    from rich.console import Console

    from metro_t0.evaluation.suites import evaluate as evaluate_suite

    results = evaluate_suite(
        model,
        suite,
        out,
        templates=templates,
        data_root=data_root,
        limit=limit,
        max_input_length=max_input_length,
        seed=seed,
        console=Console(stderr=True),
    )
    if as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        _print_table(out, results)


def _print_table(out: Path, results: dict[str, Any]) -> None:
    from rich.box import SIMPLE
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"Suite {results['suite']}: accuracy in %"), box=SIMPLE)
    table.add_column("task", overflow="fold")
    for heading in ("rows", "templates", "mean", "95 % interval", "chance"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("against chance", no_wrap=True)
    for task in results["tasks"]:
        counts = (f"{task['rows']:,}", str(len(task["templates"])))
        table.add_row(Text(task["task"]), *counts, *_cells(task))
    if len(results["tasks"]) > 1:
        table.add_section()
        table.add_row("mean over tasks", "", "", *_cells(results["overall"]))
    console = Console()
    console.print(table)
    for skipped in results["skipped"]:
        console.print(
            f"not scored: {skipped['task']}, {skipped['template']}: {skipped['reason']}", markup=False
        )
    if results["truncated_prompts"]:
        console.print(
            f"{results['truncated_prompts']:,} of {results['prompts']:,} prompts were longer than "
            f"{results['max_input_length']} tokens and were cut."
        )
    console.print(
        f"{results['prompts']:,} prompts in {results['seconds']:.1f} s; written to {out}", markup=False
    )


def _cells(score: dict[str, Any]) -> tuple[str, str, str, str]:
    low, high = score["interval"]
    return (
        f"{100 * score['mean']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * score['chance']:.1f}",
        score["verdict"],
    )
