"""Takes docstrings apart into what questions can be asked about: summary, body, parameters, result type.

for document in parse_entries(iterate_pydocs()):
    document.summary, document.body, document.parameters
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from metro_t0.data.pydocs import PydocEntry

Side = Literal["train", "evaluation"]

EVALUATION_SHARE = 0.15
_COMPARED_WORDS = 40
_MIN_SUMMARY_WORDS, _MAX_SUMMARY_WORDS = 4, 24
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z\"(*])")
_HEADING = re.compile(r"(?:[A-Z][\w-]*(?: [A-Za-z][\w-]*){0,2}):?")
_PARAMETER_HEADINGS = ("args", "arguments", "parameters", "attributes", "keyword arguments", "params")
_GOOGLE_ITEM = re.compile(r"\s*\*{0,2}([A-Za-z_]\w*)(?: ?\([^)]*\)+)?: (\S.*)")
_NUMPY_ITEM = re.compile(r"\*{0,2}([A-Za-z_]\w*)(?: ?: ?\S.*)?")
_WORD = re.compile(r"[A-Za-z][A-Za-z'-]*")
_NAME_PART = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|\d+")
_RETURN_TYPES = {
    "bool": "bool", "str": "str", "int": "int", "float": "float", "None": "None", "dict": "dict", "list": "list",
    "tuple": "tuple",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PydocDocument:
    """A docstring in parts.

    Attributes:
        library, module, kind: as in :class:`~metro_t0.data.pydocs.PydocEntry`.
        name: the last part of the qualified name (a module's last part).
        summary: the first sentence.
        sentences: the prose after it, in order, up to the first section.
        parameters: (name, first line of its description).
        result: plain name of the returned type that the signature announces, or None.
        side: whether questions about it train or evaluate.
    """

    library: str
    module: str
    kind: str
    name: str
    summary: str
    sentences: tuple[str, ...]
    parameters: tuple[tuple[str, str], ...]
    result: str | None
    side: Side

    def text(self, words: int) -> str:
        """The summary and as many of the following words as make ``words`` in all."""
        return shorten(" ".join((self.summary, *self.sentences)), words)

    def body(self, words: int) -> str:
        """The first words of what follows the summary; parameters where there is no prose."""
        described = (f"{name}: {description}" for name, description in self.parameters)
        return shorten(" ".join(self.sentences or described), words)


def shorten(text: str, words: int) -> str:
    """The first ``words`` words."""
    split = text.split()
    return " ".join(split) if len(split) <= words else " ".join(split[:words]) + " ..."


def name_parts(name: str) -> set[str]:
    """Lower-case words of an identifier: ``read_CSVFile`` gives read, csv, file."""
    return {part.lower() for part in _NAME_PART.findall(name)}


def content_words(text: str) -> set[str]:
    """Lower-case words of a text that are longer than three letters."""
    return {word.lower() for word in _WORD.findall(text) if len(word) > 3}


def parse_entries(entries: Iterable[PydocEntry]) -> Iterator[PydocDocument]:
    """The entries that begin with a sentence of ordinary length, in their order.

    What has the same summary or the same body as an earlier one is left out, so that no question to evaluate on
    repeats a text of training.
    """
    seen: set[str] = set()
    for entry in entries:
        document = None if entry.kind == "topic" else _parse(entry)
        if document is None:
            continue
        texts = {_normalized(document.summary), _normalized(document.body(_COMPARED_WORDS))} - {""}
        if not texts & seen:
            seen |= texts
            yield document


def _parse(entry: PydocEntry) -> PydocDocument | None:
    lines = entry.text.splitlines()
    prose, sections = _sections(lines)
    sentences = [sentence.strip() for paragraph in prose for sentence in _SENTENCE_END.split(paragraph)]
    if not sentences or not _is_prose(sentences[0]):
        return None
    parameters = [item for heading in _PARAMETER_HEADINGS for item in _parameters(sections.get(heading, []))]
    return PydocDocument(
        library=entry.library,
        module=entry.module,
        kind=entry.kind,
        name=(entry.qualified_name or entry.module).rpartition(".")[2],
        summary=sentences[0],
        sentences=tuple(sentence for sentence in sentences[1:] if _is_prose(sentence, shortest=3)),
        parameters=tuple(parameters),
        result=_result(entry.signature),
        side=_side(sentences[0]),
    )


def _sections(lines: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """Paragraphs before the first heading, and the lines under each heading by its lower-case name."""
    prose: list[str] = []
    sections: dict[str, list[str]] = {}
    current: list[str] | None = None
    for index, line in enumerate(lines):
        heading = line.strip()
        if index and line[:1].isalpha() and _HEADING.fullmatch(heading) and len(heading) < 30:
            current = sections.setdefault(heading.rstrip(":").lower(), [])
        elif current is not None:
            current.append(line)
        elif line.strip():
            prose.append(line.strip())
    return prose, sections


def _parameters(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line, following in pairwise([*lines, ""]):
        nested = following.strip() if _indent(following) > _indent(line) else ""
        if nested and (match := _NUMPY_ITEM.fullmatch(line.strip())):
            description = nested
        elif match := _GOOGLE_ITEM.fullmatch(line):
            description = match[2]
        else:
            continue
        description = _SENTENCE_END.split(description)[0]
        if _is_prose(description):
            yield match[1], description


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _is_prose(text: str, shortest: int = _MIN_SUMMARY_WORDS) -> bool:
    """Whether a text looks like an English sentence of ordinary length rather than code or a table."""
    words = text.split()
    plain = sum(1 for word in words if _WORD.fullmatch(word.strip(".,;:()\"'")))
    return (
        shortest <= len(words) <= 2 * _MAX_SUMMARY_WORDS and plain >= 0.7 * len(words) and "|||" not in text
    )


def _result(signature: str | None) -> str | None:
    _, arrow, returned = (signature or "").rpartition("->")
    returned = returned.strip().strip("\"'").split("[")[0].strip()
    return _RETURN_TYPES.get(returned) if arrow else None


def _normalized(summary: str) -> str:
    return " ".join(word.lower() for word in _WORD.findall(summary))


def _side(summary: str) -> Side:
    digest = hashlib.blake2b(_normalized(summary).encode(), digest_size=8).digest()
    return "evaluation" if int.from_bytes(digest, "big") < EVALUATION_SHARE * 2**64 else "train"
