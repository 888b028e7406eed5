"""``metro-t0 prepare``: raw text to a tokenizer and token blocks."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from metro_t0.cli.tokenizer import NormalizerChoice


class SplitDocumentsChoice(StrEnum):
    """What ends a document of a text file."""

    file = "file"
    blank_line = "blank-line"


def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="Text (.txt .text .md .rst), JSON lines (.jsonl .ndjson .json) or Parquet files, plain or .gz "
            ".xz .zst; folders; quoted patterns; Hub datasets (hf:owner/name, hf:owner/name:subset@split); pydocs.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder to make; must not hold anything yet.")],
    tokenizer: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Take this tokenizer instead of training one.")
    ] = None,
    vocab_size: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Pieces of the tokenizer to train (8192; the paper: 32768 and 64000)."
        ),
    ] = None,
    cased: Annotated[bool, typer.Option("--cased", help="Train a tokenizer that keeps upper case.")] = False,
    normalizer: Annotated[
        NormalizerChoice,
        typer.Option(help="For a tokenizer to train: english, as published, or neutral, for any language."),
    ] = NormalizerChoice.english,
    split_documents: Annotated[
        SplitDocumentsChoice, typer.Option(help="What ends a document of a text file.")
    ] = SplitDocumentsChoice.file,
    text_column: Annotated[
        str,
        typer.Option(metavar="NAME", help="Column that holds the text: JSON lines, Parquet, Hub datasets."),
    ] = "text",
    max_length: Annotated[int, typer.Option(metavar="N", help="The most tokens of a block.")] = 512,
    validation_fraction: Annotated[
        float,
        typer.Option(
            metavar="F", help="Share held out in whole documents: at least one, at most ~1000 blocks."
        ),
    ] = 0.01,
    seed: Annotated[int, typer.Option(metavar="N", help="Decides which documents are held out.")] = 0,
    weight: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE=W",
            help="How often a source's documents are trained on, such as books/=2.5; may be given for several.",
        ),
    ] = None,
    keep_duplicates: Annotated[
        bool, typer.Option("--keep-duplicates", help="Keep documents that came before.")
    ] = False,
    near_duplicates: Annotated[
        bool, typer.Option("--near-duplicates", help="Leave out documents nearly the same as an earlier one.")
    ] = False,
    repair_unicode: Annotated[
        bool, typer.Option("--repair-unicode", help="Mend text that was decoded wrongly (ftfy).")
    ] = False,
    language: Annotated[
        list[str] | None,
        typer.Option(metavar="CODE", help="Keep documents in this language (en); may be given for several."),
    ] = None,
    language_model: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="fastText model that tells languages, such as lid.176.bin."),
    ] = None,
    quality: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FILTER",
            help="A filter of datatrove's: gopher-quality, gopher-repetition, c4 or fineweb; may be given for several.",
        ),
    ] = None,
    decontaminate: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="PATH",
            help="Leave out documents that share 13 words in a row with evaluation rows: a file, or a folder "
            "DIR/<dataset>/<subset>/<split>.jsonl.gz without its train splits; may be given for several.",
        ),
    ] = None,
    processes: Annotated[
        int | None, typer.Option(metavar="N", help="How many read and tokenise; all cores unless given.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the card as JSON instead of a table.")
    ] = False,
) -> None:
    """Turn raw text into a tokenizer, token blocks for pretraining and a held-out part.

    \b
    The documentation of this Python installation, nothing downloaded:
      metro-t0 prepare pydocs --out prepared
    A folder and a pattern, with a vocabulary of 32768 pieces:
      metro-t0 prepare books/ 'news-*.jsonl.xz' --out prepared --vocab-size 32768
    A text file whose documents are separated by blank lines:
      metro-t0 prepare wiki.txt --split-documents blank-line --out prepared
    A dataset of the Hugging Face Hub, with the tokenizer of another corpus:
      metro-t0 prepare hf:owner/name --text-column content --tokenizer other/tokenizer --out prepared
    Books twice as often as the web:
      metro-t0 prepare web/ books/ --weight books/=2 --out prepared

    A run that was interrupted goes on where it was when the same command is given again.
    """
    if tokenizer is not None and cased:
        raise ValueError("--cased is for training a tokenizer; the one of --tokenizer has its case already")
    from rich.console import Console

    from metro_t0.data.cleaning import Cleaning
    from metro_t0.data.prepare import prepare as prepare_corpus

    corpus = prepare_corpus(
        sources,
        out,
        tokenizer=tokenizer,
        vocab_size=vocab_size,
        lower=not cased,
        normalizer=normalizer.value,
        split_documents=split_documents.value,
        text_column=text_column,
        validation_fraction=validation_fraction,
        max_length=max_length,
        seed=seed,
        weights=_weights(weight or []),
        keep_duplicates=keep_duplicates,
        near_duplicates=near_duplicates,
        cleaning=Cleaning(
            repair_unicode=repair_unicode,
            languages=tuple(language or ()),
            language_model=language_model,
            quality=tuple(quality or ()),
        ),
        decontaminate=decontaminate or (),
        processes=processes,
        console=Console(stderr=True),
    )
    if as_json:
        print(json.dumps({"path": str(out), **corpus.card}, indent=2, ensure_ascii=False))
    else:
        _print_card(out, corpus.card)


def _weights(given: list[str]) -> dict[str, float]:
    weights: dict[str, float] = {}
    for entry in given:
        source, _, number = entry.rpartition("=")
        try:
            weights[source] = float(number)
        except ValueError:
            source = ""
        if not source:
            raise ValueError(f"--weight {entry}: write a source and a number, such as books/=2.5")
    return weights


def _print_card(out: Path, card: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"Prepared corpus {out}")
    for heading in ("part", "documents", "characters", "blocks", "tokens", "tokens a block"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in ("train", "validation"):
        counts = card[part]
        cells = [f"{counts[key]:,}" for key in ("documents", "characters", "blocks", "tokens")]
        table.add_row(part, *cells, f"{counts['tokens'] / counts['blocks']:.0f}")
    console = Console()
    console.print(table)
    tokenizer, dropped = card["tokenizer"], card["dropped"]
    console.print(
        f"vocabulary {tokenizer['vocabulary_size']:,}, unknown tokens {card['unknown_tokens'] / card['tokens']:.4%}, "
        f"duplicate documents dropped {dropped['duplicate_documents']:,}, lines cut {card['cut_lines']:,}"
    )
    skipped = sum(source["skipped_files"] for source in card["sources"])
    if skipped:
        console.print(f"files skipped for their suffix: {skipped:,}")
