"""``metro-t0 evaluate``: zero-shot accuracy on a suite of tasks."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from metro_t0.cli.evaluate_lm_eval import evaluate_lm_eval
from metro_t0.cli.precision import Precision
from metro_t0.cli.task_options import DataRootOption, TemplatesOption


class Scoring(StrEnum):
    """Ways of scoring an answer beside the official one."""

    LENGTH_NORMALISED = "length-normalised"
    CALIBRATED = "calibrated"


def evaluate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, run directory or Hub name.")],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR", help="Folder for the results; an interrupted evaluation in it is gone on with."
        ),
    ],
    suite: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE",
            help="t0, mmlu, or a file (YAML) in the format of mixtures whose tasks name rows to evaluate.",
        ),
    ] = None,
    templates: TemplatesOption = None,
    data_root: DataRootOption = None,
    story_cloze: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="StoryCloze 2016, validation (CSV), which its authors give out on request: "
            "https://cs.rochester.edu/nlp/rocstories/",
        ),
    ] = None,
    limit: Annotated[
        int | None, typer.Option(metavar="N", help="Only the first N rows of each task.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(metavar="NAME", help="Instead of the splits that the suite names.")
    ] = None,
    shots: Annotated[
        int, typer.Option(metavar="K", help="Solved examples before each question (mmlu: of the dev split).")
    ] = 0,
    also: Annotated[
        list[Scoring] | None,
        typer.Option(
            help="A way of scoring to show beside the official one: divided by the answer's tokens, or less the "
            "answer's score after an empty prompt. May be given twice."
        ),
    ] = None,
    generate: Annotated[
        bool,
        typer.Option(
            "--generate",
            help="Answer templates without answer choices freely; exact match, F1 and ROUGE-L score them.",
        ),
    ] = False,
    max_input_length: Annotated[
        int,
        typer.Option(metavar="N", help="Tokens of a prompt that are read; longer ones are cut and counted."),
    ] = 512,
    precision: Annotated[
        Precision, typer.Option(help="bf16 and int8 are said with the share of predictions that they change.")
    ] = Precision.FP32,
    batch_tokens: Annotated[
        int | None,
        typer.Option(metavar="N", help="Tokens computed at once; by default what suits the device."),
    ] = None,
    seed: Annotated[
        int, typer.Option(metavar="N", help="Of the intervals' bootstrap and of what templates draw.")
    ] = 0,
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
    as_json: Annotated[bool, typer.Option("--json", help="Print results.json instead of a table.")] = False,
) -> None:
    """Rank the answers of every task of a suite under each of its templates, and score them.

    The table shows each task's mean accuracy over its templates with its 95 % interval, beside chance (what a uniform
    guess would score). A task whose data is not there is shown as missing and is in no mean. A task that fails is
    named, the others go on, and the exit code is 1; the same command then tries it again, as it goes on after a kill.

    \b
      metro-t0 evaluate runs/finetune --suite t0 --data-root data --out results
      metro-t0 evaluate runs/finetune --suite mmlu --shots 5 --out results-mmlu
      metro-t0 evaluate google/flan-t5-base --suite suite.yaml --limit 100 --out quick-look
      metro-t0 evaluate runs/finetune --lm-eval my_task --include-path my-tasks --out results
      torchrun --nproc-per-node 8 -m metro_t0.cli.main evaluate runs/finetune --suite t0 --out results
    Then look at results/report.html, or compare two:
      metro-t0 report results other-results
    """
    if (suite is None) == (lm_eval is None):
        raise ValueError("what is to be evaluated? give either --suite NAME or --lm-eval TASKS")
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

    from metro_t0.evaluation.ranking.processes import Processes
    from metro_t0.evaluation.suites import EvaluationSettings
    from metro_t0.evaluation.suites import evaluate as evaluate_suite

    results = evaluate_suite(
        model,
        suite,
        out,
        EvaluationSettings(
            limit=limit,
            split=split,
            shots=shots,
            max_input_length=max_input_length,
            scoring=tuple(dict.fromkeys(scoring.value for scoring in also or [])),
            precision=precision.value,
            generate=generate,
            seed=seed,
        ),
        templates=templates,
        data_root=data_root,
        story_cloze=story_cloze,
        batch_tokens=batch_tokens,
        console=Console(stderr=True),
    )
    if not Processes.from_environment().is_main:
        pass
    elif as_json:
        print(json.dumps(results, indent=2, ensure_ascii=False))
    else:
        _print_results(out, results)
    if results["failures"]:
        raise typer.Exit(1)


def _print_results(out: Path, results: dict[str, Any]) -> None:
    from rich.console import Console

    console = Console()
    console.print(_table(results))

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False)

    for missing in results["missing"]:
        say(f"missing: {missing['task']}: {missing['reason']}")
    for skipped in results["skipped"]:
        say(f"not scored: {skipped['task']}, {skipped['template']}: {skipped['reason']}")
    if any(task["supervised"] for task in results["tasks"]):
        say("(s): the model was finetuned on this dataset, so this is no zero-shot score")
    if results["truncated_prompts"]:
        say(
            f"{results['truncated_prompts']:,} of {results['prompts']:,} prompts were longer than "
            f"{results['max_input_length']} tokens and were cut."
        )
    if results["groups"] and results["overall"]:
        say(f"counting each question once: {100 * results['overall']['micro']:.1f} %")
    for failure in results["failures"]:
        say(f"failed: {failure['task']}: {failure['reason']}")
    say(f"{results['prompts']:,} prompts in {results['seconds']:.1f} s; written to {out}")


def _table(results: dict[str, Any]) -> Any:
    from rich.box import SIMPLE
    from rich.table import Table
    from rich.text import Text

    title = Text(f"Suite {results['suite']}: accuracy in %, 95 % intervals")
    table = Table(title=title, box=SIMPLE, collapse_padding=True, pad_edge=False)
    table.add_column("task", overflow="fold", min_width=10)
    others = [name.replace("-", "-\n") for name in results["scoring"][1:]]
    for heading in ("rows", "mean", "interval", "chance", *others):
        table.add_column(heading, justify="right", no_wrap=True)
    if not others:  # there is room for it in 80 columns
        table.add_column("against chance", no_wrap=True)
    # Dozens of tasks are not read in a terminal: results.md and the page have them.
    for group in results["groups"]:
        table.add_row(group["group"], f"{group['tasks']} tasks", *_cells(group))
    for task in () if results["groups"] else results["tasks"]:
        rows, expected = task["rows"], task["expected_rows"]
        of = f"{rows:,}" + (f" of {expected:,}" if expected is not None and expected != rows else "")
        name = Text(task["task"] + (" (s)" if task["supervised"] else ""))
        table.add_row(name, of, *_cells(task))
    for missing in results["missing"]:
        table.add_row(Text(missing["task"]), "missing")
    for failure in results["failures"]:
        table.add_row(Text(failure["task"]), "failed")
    overall = results["overall"]
    if overall and overall["expected_tasks"] > 1:
        scored, expected = overall["tasks"], overall["expected_tasks"]
        table.add_section()
        table.add_row(f"mean over {scored} of {expected} tasks", "", *_cells(overall))
    return table


def _cells(score: dict[str, Any]) -> tuple[str, ...]:
    low, high = score["interval"]
    return (
        f"{100 * score['mean']:.1f}",
        f"{100 * low:.1f} to {100 * high:.1f}",
        f"{100 * score['chance']:.1f}",
        *([f"{100 * value:.1f}" for value in score["other_scores"].values()] or [score["verdict"]]),
    )
