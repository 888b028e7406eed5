"""``metro-t0 generate``: a free answer to a prompt."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any

import typer

from metro_t0.cli.precision import Precision
from metro_t0.cli.standard_input import windows as windows_of_lines
from metro_t0.cli.stopping import quiet_end

# Enough for batches of like length; few enough that the first answer comes soon.
_WINDOW = 256


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
    batch_size: Annotated[
        int, typer.Option(metavar="N", help="Prompts answered at once, of like length.")
    ] = 16,
    precision: Annotated[
        Precision,
        typer.Option(help="Of the weights; auto is bf16 where the processor multiplies it, else fp32."),
    ] = Precision.FP32,
    as_json: Annotated[
        bool, typer.Option("--json", help='Print a JSON object a line, with "input" and "output".')
    ] = False,
) -> None:
    """Let the model answer each prompt in its own words, one line of output a prompt.

    \b
      metro-t0 generate runs/finetune "Summarise in one line: ..."
      metro-t0 generate runs/finetune --beams 4 < prompts.txt
      tail -f questions.txt | metro-t0 generate runs/finetune --precision int8

    Lines of standard input are answered as they come, in their order: of a file, batches of like length within 256
    lines; of a pipe, whatever has come. Blank lines are left out.
    """
    windows: Iterable[Sequence[str]] = [texts] if texts else _standard_input()
    with quiet_end():
        cut, answered = _answer(
            model,
            windows,
            precision,
            as_json,
            max_new_tokens=max_new_tokens,
            beams=beams,
            temperature=temperature,
            seed=seed,
            max_input_length=max_input_length,
            batch_size=batch_size,
        )
    if not answered:
        raise ValueError("no prompt: standard input is empty")
    if cut:
        print(
            f"{cut} of {answered} prompts were longer than {max_input_length} tokens and were cut.",
            file=sys.stderr,
        )


def _answer(
    model: str, windows: Iterable[Sequence[str]], precision: Precision, as_json: bool, **settings: Any
) -> tuple[int, int]:
    """Prints each answer when it is there; how many prompts were cut, and how many there were."""
    from metro_t0.evaluation.generation import stream_texts
    from metro_t0.evaluation.loading import load_model

    network, tokenizer = load_model(model, precision.value)
    cut = answered = 0
    for answer in stream_texts(network, tokenizer, windows, **settings):
        if as_json:
            line = json.dumps({"input": answer.input, "output": answer.output}, ensure_ascii=False)
        else:
            line = " ".join(answer.output.split())
        print(line, flush=True)
        cut += answer.prompt_truncated
        answered += 1
    return cut, answered


def _standard_input() -> Iterator[list[str]]:
    if sys.stdin.isatty():
        raise ValueError("no prompt: give one as TEXT, or prompts on standard input, one a line")
    return windows_of_lines(sys.stdin.buffer, _WINDOW)
