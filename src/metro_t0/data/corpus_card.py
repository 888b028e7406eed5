"""The card of a prepared corpus: what went in, what came out, as JSON, as a page to read and as a plot.

write_card(corpus_card(sources, ...), Path("prepared"))        # card.json, card.md, card.svg
"""

from __future__ import annotations

import json
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from metro_t0.data.corpora import Source
from metro_t0.data.shards import PARTS, PartCounts
from metro_t0.data.staging import StagedCorpus

FORMAT_VERSION = 1
_SUMMED = ("documents", "characters", "lines", "tokens", "blocks", "unknown_tokens")


def corpus_card(
    sources: Sequence[Source],
    source_of_unit: Sequence[int],
    corpus: StagedCorpus,
    counts: Mapping[str, PartCounts],
    *,
    checksums: Mapping[str, str],
    tokenizer: Mapping[str, Any],
    settings: Mapping[str, Any],
) -> dict[str, Any]:
    """The card as plain values.

    Args:
        sources: as they were looked up.
        source_of_unit: number of each staged unit's source.
        corpus: the staged documents.
        counts: what came out, by part.
        checksums: of the content, by part.
        tokenizer, settings: what to say of them.
    """
    summed = {name: sum(getattr(part, name) for part in counts.values()) for name in _SUMMED}
    entries = [_source_entry(source) for source in sources]
    dropped: Counter[str] = Counter()
    changed: Counter[str] = Counter()
    for number, unit, wanted, near in zip(
        source_of_unit, corpus.units, corpus.wanted, corpus.near_duplicates, strict=True
    ):
        entry = entries[number]
        repeated = len(wanted) - int(wanted.sum()) - near
        entry["documents"] += int(wanted.sum())
        entry["characters"] += int(unit.characters[wanted].sum())
        entry["duplicate_documents"] += repeated
        entry["weight"] = settings["weights"].get(entry["source"], 1.0)
        for name in ("continued", "repaired", "trimmed"):
            changed[name] += getattr(unit.counts, name)
        dropped.update({"duplicate_documents": repeated, "near_duplicate_documents": near})
        dropped.update(unit.counts.dropped)
    for name in ("blank_lines", "dropped_blocks"):
        dropped[name] = sum(getattr(part, name) for part in counts.values())
    return {
        "format_version": FORMAT_VERSION,
        **summed,
        "characters_a_token": summed["characters"] / max(summed["tokens"], 1),
        "unknown_token_rate": summed["unknown_tokens"] / max(summed["tokens"], 1),
        "cut_lines": sum(part.cut_lines for part in counts.values()),
        **{f"{name}_documents": number for name, number in changed.items()},
        "dropped": dict(dropped),
        **{part: _part_entry(counts[part], checksums[part], settings["max_length"]) for part in PARTS},
        "document_characters": document_histogram(corpus.characters),
        "sources": entries,
        "tokenizer": dict(tokenizer),
        "settings": dict(settings),
        "made_with": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("metro-t0", "sentencepiece", "datasets")},
        },
    }


def _source_entry(source: Source) -> dict[str, Any]:
    return {
        "source": source.name,
        "documents": 0,
        "characters": 0,
        "duplicate_documents": 0,
        "files": len(source.files),
        "bytes": sum(path.stat().st_size for path in source.files),
        "skipped_files": len(source.skipped),
    }


def _part_entry(counts: PartCounts, checksum: str, max_length: int) -> dict[str, Any]:
    return {
        **{name: getattr(counts, name) for name in _SUMMED},
        "checksum": checksum,
        "block_lengths": block_histogram(counts.block_lengths, max_length),
    }


def block_histogram(lengths: Mapping[int, int], max_length: int, bins: int = 16) -> dict[str, int]:
    """Blocks by length, as ``{"2-32": 17, ...}``."""
    edges = np.linspace(0, max_length, bins + 1).round().astype(int)
    return {
        f"{low + 1}-{high}": sum(lengths.get(length, 0) for length in range(low + 1, high + 1))
        for low, high in pairwise(edges.tolist())
        if high > low
    }


def document_histogram(characters: np.ndarray) -> dict[str, int]:
    """Documents by their number of characters, in steps of about three: ``{"1-2": 4, "3-9": 17, ...}``."""
    edges = [1]
    while edges[-1] <= int(characters.max(initial=0)):
        edges.append(10 ** (len(edges) // 2) * (3 if len(edges) % 2 else 1))
    counts, _ = np.histogram(characters, bins=edges)
    return {
        f"{low}-{high - 1}": int(number) for (low, high), number in zip(pairwise(edges), counts, strict=True)
    }


def write_card(card: Mapping[str, Any], folder: Path) -> None:
    """Write ``card.json``, ``card.md`` and ``card.svg`` into ``folder``."""
    (folder / "card.json").write_text(json.dumps(card, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / "card.md").write_text(card_page(card), encoding="utf-8")
    _plot(card, folder / "card.svg")


def card_page(card: Mapping[str, Any]) -> str:
    """The card in Markdown."""
    tokenizer, settings = card["tokenizer"], card["settings"]
    made = "trained here" if tokenizer["trained_here"] else "given"
    lines = [
        "# Corpus card",
        "",
        f"{card['documents']:,} documents, {card['characters']:,} characters, {card['tokens']:,} tokens in "
        f"{card['blocks']:,} blocks of at most {settings['max_length']}. {card['characters_a_token']:.2f} characters a "
        f"token; {card['unknown_token_rate']:.4%} of the tokens are unknown.",
        "",
        "![Documents by characters, blocks by tokens](card.svg)",
        "",
        *_table(
            ["part", "documents", "characters", "blocks", "tokens", "SHA-256 of the content"],
            [
                [
                    part,
                    *(f"{card[part][name]:,}" for name in ("documents", "characters", "blocks", "tokens")),
                    f"`{card[part]['checksum'][:16]}`",
                ]
                for part in PARTS
            ],
        ),
        "",
        "## Sources",
        "",
        *_table(
            ["source", "files", "bytes", "documents", "characters", "repeats", "weight"],
            [
                [
                    f"`{source['source']}`",
                    *(
                        f"{source[name]:,}"
                        for name in ("files", "bytes", "documents", "characters", "duplicate_documents")
                    ),
                    f"{source['weight']:g}",
                ]
                for source in card["sources"]
            ],
        ),
        "",
        "## Left out or changed",
        "",
        *_table(
            ["what", "how many"],
            [
                *([name.replace("_", " "), f"{number:,}"] for name, number in card["dropped"].items()),
                ["lines cut to blocks", f"{card['cut_lines']:,}"],
                ["parts of documents too large to hold", f"{card['continued_documents']:,}"],
                ["documents with repaired Unicode", f"{card['repaired_documents']:,}"],
                ["documents that a filter took lines out of", f"{card['trimmed_documents']:,}"],
            ],
        ),
        "",
        "## Vocabulary and settings",
        "",
        f"{tokenizer['vocabulary_size']:,} tokens, {'uncased' if tokenizer['lower'] else 'cased'}, "
        f"{tokenizer['normalizer']}, {made}; SHA-256 "
        f"`{tokenizer['vocabulary_checksum'][:16]}`.",
        "",
        *_table(["setting", "value"], [[f"`{name}`", f"`{value}`"] for name, value in settings.items()]),
        "",
        "Made with " + ", ".join(f"{name} {number}" for name, number in card["made_with"].items()) + ".",
    ]
    return "\n".join(lines) + "\n"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(headings) + " |", "|" + "---|" * len(headings)]
    return [*lines, *("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows)]


def _plot(card: Mapping[str, Any], file: Path) -> None:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 3), layout="constrained")
    FigureCanvasSVG(figure)
    blocks = Counter[str]()
    for part in PARTS:
        blocks.update(card[part]["block_lengths"])
    panels = (("documents by characters", card["document_characters"]), ("blocks by tokens", blocks))
    for axes, (title, histogram) in zip(figure.subplots(1, 2), panels, strict=True):
        axes.bar(range(len(histogram)), list(histogram.values()), width=0.9, color="#3b6ea5")
        axes.set_xticks(range(len(histogram)), list(histogram), rotation=60, ha="right", fontsize=7)
        axes.set_title(title, fontsize=10)
        axes.spines[["top", "right"]].set_visible(False)
    # Without a date, the same corpus gives the same file.
    figure.savefig(file, format="svg", metadata={"Date": None})
