"""``metro-t0 serve``: the model behind an HTTP API, and a page to try it."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from metro_t0.cli.precision import Precision


def serve(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="Model folder, run directory or Hub name.")],
    host: Annotated[
        str, typer.Option(metavar="HOST", help="Address to listen at; 0.0.0.0 lets other machines in.")
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")
    ] = 8000,
    precision: Annotated[
        Precision,
        typer.Option(help="Of the weights; auto is bf16 where the processor multiplies it, else fp32."),
    ] = Precision.FP32,
    max_input_length: Annotated[
        int, typer.Option(metavar="N", help="Tokens of a prompt that are read; longer ones are refused.")
    ] = 512,
    timeout: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, help="Longest time that a request waits for its answer.")
    ] = 120,
    queue: Annotated[
        int, typer.Option(metavar="N", min=1, help="Requests that may wait; more are told to come back.")
    ] = 512,
) -> None:
    """Serve a page where you type a prompt and see its choices ranked, and the HTTP API behind it.

    Only this machine can reach it unless --host says otherwise; there are no accounts and no encryption. SIGTERM or
    Ctrl-C ends it when running requests are answered, with exit code 0; a second Ctrl-C at once.

    \b
      metro-t0 serve runs/finetune
      curl http://127.0.0.1:8000/rank --json '{"prompt": "Is the sky blue?", "choices": ["Yes", "No"]}'
      curl http://127.0.0.1:8000/generate --json '{"prompt": "Is the sky blue?", "max_new_tokens": 8}'
    """
    try:
        import fastapi  # noqa: F401

        from metro_t0.serving.server import address, listen
        from metro_t0.serving.server import serve as run
    except ModuleNotFoundError as error:
        if error.name not in ("fastapi", "uvicorn"):
            raise
        raise ValueError("serving needs FastAPI and uvicorn: pip install 'metro-t0[serve]'") from error
    with listen(host, port) as listener:
        from metro_t0.evaluation.loading import load_model
        from metro_t0.serving.app import Patience, create_app
        from metro_t0.serving.engine import Engine

        network, tokenizer = load_model(model, precision=precision.value)
        engine = Engine(network, tokenizer, max_input_length=max_input_length)
        app = create_app(engine, name=model, patience=Patience(answer_seconds=timeout, most_waiting=queue))
        print(f"{model} answers at {address(listener)} (Ctrl-C stops)", file=sys.stderr, flush=True)
        # A little more than any request may take, so that each hears of its end.
        run(app, listener, stop_seconds=timeout + 5)
