"""``metro-t0 generate``: a free answer to a prompt."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def generate(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, run directory or Hub name.")],
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="[TEXT]...", help="Prompts; without any, each line of standard input is one."),
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="N", help="Longest answer, in tokens.")] = 64,
    beams: Annotated[int, typer.Option(metavar="N", help="Width of the beam search; 1 is greedy.")] = 1,
    temperature: Annotated[
        float | None,
        typer.Option(metavar="T", help="Sample at this temperature instead of taking the likeliest."),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="Of the sampling.")] = 0,
    max_input_length: Annotated[
        int,
        typer.Option(metavar="N", help="Tokens of a prompt that are read; longer ones are cut and counted."),
    ] = 512,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print a JSON object a line, with "input" and "output".')
    ] = False,
) -> None:
    """Let the model answer each prompt in its own words, one line of output a prompt.

    \b
      metro-t0 generate runs/finetune "Summarise in one line: ..."
      metro-t0 generate runs/finetune --beams 4 < prompts.txt
    """
    prompts = texts or _standard_input()
    from rich.console import Console

    from metro_t0.evaluation.generation import generate_texts
    from metro_t0.evaluation.loading import load_model

    errors = Console(stderr=True)
    network, tokenizer = load_model(model)
    answers = generate_texts(
        network,
        tokenizer,
        prompts,
        max_new_tokens=max_new_tokens,
        beams=beams,
        temperature=temperature,
        seed=seed,
        max_input_length=max_input_length,
        console=errors,
    )
    for answer in answers:
        if as_json:
            print(json.dumps({"input": answer.input, "output": answer.output}, ensure_ascii=False))
        else:
            print(" ".join(answer.output.split()))
    cut = sum(answer.prompt_truncated for answer in answers)
    if cut:
        errors.print(
            f"{cut} of {len(answers)} prompts were longer than {max_input_length} tokens and were cut."
        )


def _standard_input() -> list[str]:
    if sys.stdin.isatty():
        raise ValueError("no prompt: give one as TEXT, or prompts on standard input, one a line")
    try:
        text = sys.stdin.buffer.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"standard input is not UTF-8: {error}") from error
    prompts = [line for line in text.splitlines() if line.strip()]
    if not prompts:
        raise ValueError("no prompt: standard input is empty")
    return prompts
