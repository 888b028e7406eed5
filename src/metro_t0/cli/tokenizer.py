"""``metro-t0 tokenizer``: train a vocabulary, look into one, export one to `tokenizers`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from rich.progress import Progress

# Characters of an example line in the terminal; JSON has all of them.
_SHOWN = 150

app = typer.Typer(
    no_args_is_help=True,
    help="Vocabularies: train one on a corpus, inspect what one does with a corpus, export one to the Rust "
    "library tokenizers. metro-t0 prepare trains one too, on the corpus that it prepares; one made here can serve "
    "several corpora.",
)

Sources = Annotated[
    list[str],
    typer.Argument(
        metavar="SOURCE",
        help="What metro-t0 prepare reads: files, folders, quoted patterns, hf:owner/name, pydocs.",
    ),
]
Column = Annotated[str, typer.Option(metavar="NAME", help="Column that holds the text.")]
Seed = Annotated[int, typer.Option(metavar="N", help="Decides which lines are drawn.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
Tokenizer = Annotated[Path, typer.Argument(metavar="DIR", help="Folder of the tokenizer.")]


class NormalizerChoice(StrEnum):
    """What runs before SentencePiece."""

    english = "english"
    neutral = "neutral"


@app.command()
def train(
    sources: Sources,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; must not hold anything yet.")],
    vocab_size: Annotated[
        int, typer.Option(metavar="N", help="Pieces to train (the paper: 32768 and 64000).")
    ],
    cased: Annotated[bool, typer.Option("--cased", help="Keep upper case; neutral always does.")] = False,
    normalizer: Annotated[
        NormalizerChoice,
        typer.Option(help="english, as published; neutral for any language, also without spaces."),
    ] = NormalizerChoice.english,
    sample_characters: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            help="Learn from a random share of at most so many (500 million; neutral 30 million).",
        ),
    ] = None,
    text_column: Column = "text",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Train a vocabulary with the published settings on a corpus of any size.

    \b
    As the published small one, 32768 uncased pieces:
      metro-t0 tokenizer train books/ 'news-*.jsonl.xz' --out vocabulary --vocab-size 32768
    For a corpus in any language; nothing of it is unknown, and decoding gives it back:
      metro-t0 tokenizer train thai.txt --normalizer neutral --out vocabulary --vocab-size 32768
    """
    from metro_t0.tokenization.training import train_tokenizer

    read = {"documents": 0, "characters": 0}
    with _progress() as progress:
        reading = progress.add_task("Reading, million characters", total=None)

        def texts() -> Iterator[str]:
            for text in _texts(sources, text_column):
                read["documents"] += 1
                read["characters"] += len(text)
                progress.advance(reading, len(text) / 1e6)
                yield text
            progress.update(reading, total=read["characters"] / 1e6)
            progress.add_task(f"Training {vocab_size} pieces", total=None)

        if sample_characters is None and normalizer == NormalizerChoice.english:
            sample_characters = 500_000_000
        made = train_tokenizer(
            texts(),
            vocab_size,
            out,
            lower=not cased,
            normalizer=normalizer.value,
            sample_characters=sample_characters,
            seed=seed,
        )
    facts = {
        "path": str(out),
        "size": len(made),
        "pieces": made.mask_id,
        "sentinels": made.num_sentinel_tokens,
        "lower": made.lower,
        "normalizer": made.text_normalizer,
        "sha256": _checksum(made),
        **read,
    }
    if as_json:
        print(json.dumps(facts, indent=2, ensure_ascii=False))
    else:
        _print_table(f"Tokenizer {out}", facts)


@app.command()
def inspect(
    tokenizer: Tokenizer,
    sources: Sources,
    lines: Annotated[int, typer.Option(metavar="N", help="Draw so many lines of the sources.")] = 10_000,
    examples: Annotated[int, typer.Option(metavar="N", help="Show the pieces of so many.")] = 5,
    text_column: Column = "text",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Show what a vocabulary does with random lines of a corpus: token lengths, unknowns, examples.

    \b
    A tokenizer on the text that it is to serve:
      metro-t0 tokenizer inspect prepared/tokenizer news.jsonl --lines 20000
    """
    from metro_t0.tokenization.inspection import inspect_tokenizer, open_tokenizer

    given = open_tokenizer(tokenizer)
    with _progress() as progress:
        drawn = _draw(sources, text_column, lines, seed, progress)
        task = progress.add_task("Tokenising lines", total=len(drawn))
        found = inspect_tokenizer(
            given, drawn, examples=examples, on_lines=lambda count: progress.advance(task, count)
        )
    found["vocabulary"]["sha256"] = _checksum(given)
    if as_json:
        print(json.dumps({"path": str(tokenizer), **found}, indent=2, ensure_ascii=False))
    else:
        _print_inspection(tokenizer, found)


@app.command()
def export(
    tokenizer: Tokenizer,
    sources: Sources,
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; must not hold anything yet.")],
    lines: Annotated[
        int, typer.Option(metavar="N", help="Compare so many random lines of the sources.")
    ] = 100_000,
    tolerate: Annotated[
        int, typer.Option(metavar="N", help="Lines that may have other ids than SentencePiece's.")
    ] = 0,
    text_column: Column = "text",
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Export a tokenizer to the Rust library tokenizers, if its ids are SentencePiece's on every line.

    The folder is read by AutoTokenizer and PreTrainedTokenizerFast. Where ids differ, the command refuses and
    names the first line and the pieces of both.

    \b
    Compared on 100,000 random lines of a corpus:
      metro-t0 tokenizer export prepared/tokenizer news.jsonl --out fast
    """
    from metro_t0.data.output import new_directory
    from metro_t0.tokenization.fast import export_fast
    from metro_t0.tokenization.inspection import open_tokenizer

    if tolerate < 0:
        raise ValueError(f"--tolerate is a number of lines, 0 or more, not {tolerate}")
    given = open_tokenizer(tokenizer)
    with new_directory(out) as folder, _progress() as progress:
        drawn = _draw(sources, text_column, lines, seed, progress)
        task = progress.add_task("Comparing lines", total=len(drawn))
        differences = export_fast(
            given,
            folder,
            drawn,
            tolerated=tolerate,
            on_lines=lambda count: progress.advance(task, count),
        )
    facts = {"path": str(out), "lines_compared": len(drawn), "lines_that_differ": len(differences)}
    if as_json:
        shown = [
            {"line": each.line, "sentencepiece": each.sentencepiece, "fast": each.fast}
            for each in differences
        ]
        print(json.dumps({**facts, "differences": shown}, indent=2, ensure_ascii=False))
    else:
        _print_table(f"Exported {tokenizer}", facts)


# ---------------------------------------------------------------- reading


def _texts(sources: list[str], text_column: str) -> Iterable[str]:
    from metro_t0.data.corpora import read_documents

    return (document.text for document in read_documents(sources, text_column=text_column))


def _draw(sources: list[str], text_column: str, count: int, seed: int, progress: Progress) -> list[str]:
    from metro_t0.tokenization.sampling import random_lines

    task = progress.add_task("Reading documents", total=None)

    def watched() -> Iterator[str]:
        for text in _texts(sources, text_column):
            progress.advance(task)
            yield text

    drawn = random_lines(watched(), count, seed)
    progress.update(task, total=progress.tasks[task].completed)
    return drawn


def _checksum(tokenizer: Any) -> str:
    from metro_t0.data.prepare import vocabulary_checksum

    return vocabulary_checksum(tokenizer)


# ---------------------------------------------------------------- printing


def _progress() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    return Progress(*columns, console=Console(stderr=True))


def _print_table(title: str, facts: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    for name, value in facts.items():
        shown = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
        table.add_row(name.replace("_", " "), shown)
    Console().print(table, markup=False)


def _print_inspection(path: Path, found: dict[str, Any]) -> None:
    facts = {**found["vocabulary"]}
    for name in ("lines", "characters", "words", "tokens"):
        facts[name] = found[name]
    facts["tokens_per_word"] = f"{found['tokens_per_word']:.3f}"
    facts["characters_per_token"] = f"{found['characters_per_token']:.3f}"
    for name in ("unknown_rate", "byte_rate", "single_character_rate"):
        facts[name] = f"{found[name]:.4%}"
    unknown = found["unknown_characters"]
    facts["unknown_characters"] = "  ".join(f"{each} {count:,}" for each, count in unknown) or "none"
    _print_table(f"Tokenizer {path}", facts)
    for example in found["examples"]:
        line, pieces = example["line"], " ".join(example["pieces"])
        print(f"\n{line[:_SHOWN]}{'…' * (len(line) > _SHOWN)}")
        print(f"  {pieces[: 2 * _SHOWN]}{'…' * (len(pieces) > 2 * _SHOWN)}")
