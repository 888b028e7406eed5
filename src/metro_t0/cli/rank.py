"""``metro-t0 rank``: which of the given answers is likeliest."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from metro_t0.cli.precision import Precision

if TYPE_CHECKING:
    from metro_t0.evaluation.ranking.rank import RankResult


def rank(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Folder of any encoder-decoder, run directory or Hub name.",
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE", help='JSON lines, each with "input" and "choices"; - reads standard input.'
        ),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write here instead of to standard output.")
    ] = None,
    max_input_length: Annotated[
        int,
        typer.Option(metavar="N", help="Tokens of a prompt that are read; longer ones are cut and counted."),
    ] = 512,
    precision: Annotated[
        Precision,
        typer.Option(help="Of the weights; auto is bf16 where the processor multiplies it, else fp32."),
    ] = Precision.FP32,
    batch_tokens: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Tokens computed at once; by default what fits in memory, and half as many where they do not.",
        ),
    ] = None,
) -> None:
    """Rank the answers of each line by their likelihood after the prompt.

    Every line comes back with two more keys: "log_likelihood", a list with the summed log-probability of each choice
    (its tokens and the end token, not divided by its length), and "prediction", the index of the likeliest choice.

    \b
      echo '{"input": "Is the sky blue?", "choices": ["yes", "no"]}' | metro-t0 rank runs/finetune -
      metro-t0 rank runs/finetune questions.jsonl --out answers.jsonl
      torchrun --nproc-per-node 4 -m metro_t0.cli.main rank runs/finetune questions.jsonl --out answers.jsonl
    """
    from rich.console import Console

    from metro_t0.evaluation.ranking.processes import Processes, rank_together
    from metro_t0.evaluation.records import read_questions

    name = "standard input" if str(file) == "-" else str(file)
    errors = Console(stderr=True)
    with Processes.from_environment() as processes:
        with processes.together():
            questions = []
            if processes.is_main:  # standard input comes to one process alone
                questions = read_questions(sys.stdin.buffer.read() if str(file) == "-" else file, name)
                if out is not None:  # said now, not after the work
                    _writing(out, lambda: out.parent.mkdir(parents=True, exist_ok=True))
        questions = processes.broadcast(questions)

        from metro_t0.evaluation.loading import load_model
        from metro_t0.evaluation.ranking.rank import progress_bar

        with processes.together():
            device = "cpu" if precision is Precision.INT8 else processes.device
            network, tokenizer = load_model(model, precision.value, device)
        shown_on = errors if processes.is_main else None
        with progress_bar(shown_on, len(questions), "Ranking answers") as advance:
            results = rank_together(
                processes,
                network,
                tokenizer,
                [question["input"] for question in questions],
                [question["choices"] for question in questions],
                max_input_length=max_input_length,
                batch_tokens=batch_tokens,
                advance=advance,
                say=errors.print,
            )
        if processes.is_main:
            _write(questions, results, out)
            cut = sum(result.prompt_truncated for result in results)
            if cut:
                errors.print(
                    f"{cut} of {len(results)} prompts were longer than {max_input_length} tokens and were cut."
                )


def _write(questions: list[dict[str, Any]], results: list[RankResult], out: Path | None) -> None:
    """The questions with what was found, to the file or to standard output."""
    from metro_t0.evaluation.records import write_text

    lines = (
        json.dumps(
            {**question, "log_likelihood": result.log_likelihoods, "prediction": result.prediction},
            ensure_ascii=False,
        )
        + "\n"
        for question, result in zip(questions, results, strict=True)
    )
    if out is None:
        sys.stdout.writelines(lines)
    else:
        _writing(out, lambda: write_text(out, "".join(lines)))


def _writing(out: Path, write: Callable[[], object]) -> None:
    """Writes, or says in one line why not."""
    try:
        write()
    except OSError as error:
        raise ValueError(f"cannot write {out}: {error.strerror}") from error
