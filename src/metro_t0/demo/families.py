"""Task families made from docstrings: each function asks one kind of question about parsed documents.

    rows = list(name_rows(documents, random.Random(0), number=1000))
    rows[0]["text"], rows[0]["choices"], rows[0]["label"]

Every function takes documents of one side (training or evaluation), a random generator and how many rows to
make at most, and gives rows for the templates of the same name in ``templates/``. Labels are balanced: every
answer, or every place among the choices, is right equally often. Wrong choices are of like length to the right
one, because ranking by the likelihood of whole answers prefers short ones.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar

from metro_t0.demo.documents import PydocDocument, content_words, name_parts, shorten

Row = dict[str, Any]
Item = TypeVar("Item")
RowMaker = Callable[[Sequence[PydocDocument], random.Random, int], Iterator[Row]]

LIBRARIES = ("python", "numpy", "pandas", "torch", "transformers", "sympy", "networkx", "matplotlib")
KINDS = ("class", "function", "module")
RESULTS = ("bool", "dict", "int", "list", "None", "str", "tuple")
TEXT_WORDS = 28
_LONG_WORD = 5


def library_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Which library does a text come from?"""
    for label, document in _balanced(documents, rng, number, lambda d: d.library, LIBRARIES):
        yield {"text": document.text(TEXT_WORDS), "label": label}


def kind_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Does a text describe a class, a function or a module?"""
    for label, document in _balanced(documents, rng, number, lambda d: d.kind, KINDS):
        yield {"text": document.text(TEXT_WORDS), "label": label}


def result_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Which type does a function return?"""
    for label, document in _balanced(documents, rng, number, lambda d: d.result or "", RESULTS):
        yield {"text": document.text(TEXT_WORDS), "label": label}


def match_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Do a summary and a body belong together?"""
    usable = _shuffled([d for d in documents if len(d.body(TEXT_WORDS).split()) >= 10], rng)
    for index, document in enumerate(usable[:number]):
        label = index % 2
        other = document if label else rng.choice(usable)
        if other is document and not label:
            continue
        yield {"summary": other.summary, "body": document.body(TEXT_WORDS), "label": label}


def name_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Which of four names does a text describe? The right one shares a word with the text, no other does."""
    usable = [d for d in documents if _shares_a_word(d.name, d.text(TEXT_WORDS)) and d.kind != "module"]
    pools = defaultdict(set)
    for document in usable:
        pools[document.kind].add(document.name.strip("_"))
    choosers = {kind: _Distractors(sorted(names), rng) for kind, names in pools.items()}
    for index, document in enumerate(_shuffled(usable, rng)[:number]):
        text, name = document.text(TEXT_WORDS), document.name.strip("_")
        taken = content_words(text) | name_parts(name)
        wrong = choosers[document.kind].draw(name, 3, _none_of(taken, name_parts))
        if wrong is not None:
            yield {"text": text, "kind": document.kind, **_placed(name, wrong, index)}


def name_fits_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Does a name fit a text? Made from the same material as :func:`name_rows`."""
    for index, row in enumerate(name_rows(documents, rng, number)):
        label = index % 2
        name = row["choices"][row["label"] if label else row["label"] - 1]
        yield {"text": row["text"], "kind": row["kind"], "name": name, "label": label}


def summary_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Write the one-line summary of a body."""
    usable = [d for d in documents if d.sentences and len(d.body(TEXT_WORDS).split()) >= 12]
    for document in _shuffled(usable, rng)[:number]:
        yield {"body": document.body(TEXT_WORDS), "summary": document.summary, "kind": document.kind}


def mention_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Does a word occur in a text?"""
    usable = _shuffled([d for d in documents if _long_words(d.text(TEXT_WORDS))], rng)
    for index, document in enumerate(usable[:number]):
        label = index % 2
        text = document.text(TEXT_WORDS)
        source = text if label else rng.choice(usable).text(TEXT_WORDS)
        words = sorted(word for word in _long_words(source) if label or word not in text.lower())
        if words:
            yield {"text": text, "word": rng.choice(words), "label": label}


def order_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Are the words of a sentence in their order?"""
    usable = [d for d in documents if len(d.summary.split()) >= 6]
    for index, document in enumerate(_shuffled(usable, rng)[:number]):
        label = index % 2
        words = document.summary.split()
        if not label:
            rng.shuffle(words)
        yield {"text": " ".join(words), "label": label}


def from_library_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Is a text from a given library?"""
    drawn = _balanced(documents, rng, number, lambda d: d.library, LIBRARIES)
    for index, (library, document) in enumerate(drawn):
        # All libraries come by in turn, so that going round their number keeps texts and answers independent.
        label = (index // len(LIBRARIES)) % 2
        asked = library if label else (library + rng.randrange(1, len(LIBRARIES))) % len(LIBRARIES)
        yield {"text": document.text(TEXT_WORDS), "library": LIBRARIES[asked], "label": label}


def library_pair_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Which of two libraries does a text come from?"""
    drawn = _balanced(documents, rng, number, lambda d: d.library, LIBRARIES)
    for index, (library, document) in enumerate(drawn):
        other = (library + rng.randrange(1, len(LIBRARIES))) % len(LIBRARIES)
        # Every library takes both places, in turn from one round of the libraries to the next.
        place = (index // len(LIBRARIES)) % 2
        choices = [LIBRARIES[other], LIBRARIES[library]] if place else [LIBRARIES[library], LIBRARIES[other]]
        yield {"text": document.text(TEXT_WORDS), "choices": choices, "label": place}


def parameter_library_rows(
    documents: Sequence[PydocDocument], rng: random.Random, number: int
) -> Iterator[Row]:
    """Which library does a parameter come from? The text is of a sort that :func:`library_rows` never shows."""
    usable = [d for d in documents if d.parameters]
    classes = sorted({d.library for d in usable} & set(LIBRARIES), key=LIBRARIES.index)
    for label, document in _balanced(usable, rng, number, lambda d: d.library, classes):
        name, text = rng.choice(document.parameters)
        yield {"text": f"{name}: {shorten(text, TEXT_WORDS)}", "choices": classes, "label": label}


def parameter_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Which of four parameters does a description belong to? The right one shares a word with it."""
    described = [
        (name, text)
        for document in documents
        for name, text in document.parameters
        if _shares_a_word(name, text) and len(text.split()) >= 5
    ]
    distractors = _Distractors(sorted({name for name, _ in described}), rng)
    seen: set[str] = set()
    places = 0
    for name, text in _shuffled(described, rng):
        if text in seen or places >= number:
            continue
        seen.add(text)
        taken = content_words(text) | name_parts(name)
        wrong = distractors.draw(name, 3, _none_of(taken, name_parts))
        if wrong is not None:
            yield {"text": shorten(text, TEXT_WORDS), **_placed(name, wrong, places)}
            places += 1


def which_text_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Which of two summaries describes a name? Both are of the same kind and of like length."""
    usable = [d for d in documents if _shares_a_word(d.name, d.summary) and d.kind != "module"]
    pools = defaultdict(list)
    for document in usable:
        pools[document.kind].append(document.summary)
    choosers = {kind: _Distractors(summaries, rng) for kind, summaries in pools.items()}
    for index, document in enumerate(_shuffled(usable, rng)[:number]):
        taken = name_parts(document.name)
        wrong = choosers[document.kind].draw(document.summary, 1, _none_of(taken, content_words))
        if wrong is not None:
            name = document.name.strip("_")
            yield {"name": name, "kind": document.kind, **_placed(document.summary, wrong, index)}


def next_sentence_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Which of two sentences follows the summary? The other one follows another summary."""
    usable = [d for d in documents if d.sentences and 5 <= len(d.sentences[0].split()) <= 20]
    distractors = _Distractors([d.sentences[0] for d in usable], rng)
    for index, document in enumerate(_shuffled(usable, rng)[:number]):
        wrong = distractors.draw(document.sentences[0], 1, lambda other: True)
        if wrong is not None:
            yield {"text": document.summary, **_placed(document.sentences[0], wrong, index)}


def statement_rows(documents: Sequence[PydocDocument], rng: random.Random, number: int) -> Iterator[Row]:
    """Is it true that a text describes a class (a function, a module)?"""
    for index, (kind, document) in enumerate(_balanced(documents, rng, number, lambda d: d.kind, KINDS)):
        label = (index // len(KINDS)) % 2
        claim = kind if label else (kind + rng.randrange(1, len(KINDS))) % len(KINDS)
        yield {"text": document.text(TEXT_WORDS), "claim": KINDS[claim], "label": label}


class _Distractors:
    """Draws wrong choices that are of like length to the right one."""

    def __init__(self, texts: Sequence[str], rng: random.Random, window: int = 100) -> None:
        self._texts = sorted(set(texts), key=lambda text: (len(text), text))
        self._places = {text: place for place, text in enumerate(self._texts)}
        self._rng = rng
        self._window = window

    def draw(self, right: str, number: int, allowed: Callable[[str], bool]) -> list[str] | None:
        """Texts near ``right`` in length, or None where too few are allowed."""
        place = self._places[right]
        near = self._texts[max(0, place - self._window) : place + self._window]
        near = [text for text in near if text.lower() != right.lower() and allowed(text)]
        return self._rng.sample(near, number) if len(near) >= number else None


def _none_of(taken: set[str], words_of: Callable[[str], set[str]]) -> Callable[[str], bool]:
    """Whether a wrong choice has no word in common with what is asked about."""
    return lambda other: not words_of(other) & taken


def _placed(right: str, wrong: Sequence[str], index: int) -> Row:
    """The choices with the right one at each place in turn."""
    place = index % (len(wrong) + 1)
    return {"choices": [*wrong[:place], right, *wrong[place:]], "label": place}


def _balanced(
    documents: Sequence[PydocDocument],
    rng: random.Random,
    number: int,
    key: Callable[[PydocDocument], str],
    classes: Sequence[str],
) -> Iterator[tuple[int, PydocDocument]]:
    """(class, document), the classes in turn, as long as every class has documents left."""
    groups: dict[str, list[PydocDocument]] = {name: [] for name in classes}
    for document in documents:
        if (name := key(document)) in groups:
            groups[name].append(document)
    each = min(number // len(classes), *(len(group) for group in groups.values()))
    drawn = [rng.sample(groups[name], each) for name in classes]
    for turn in zip(*drawn, strict=True):
        yield from enumerate(turn)


def _shuffled(items: Sequence[Item], rng: random.Random) -> list[Item]:
    return rng.sample(items, len(items))


def _shares_a_word(name: str, text: str) -> bool:
    return bool({part for part in name_parts(name) if len(part) > 3} & content_words(text))


def _long_words(text: str) -> set[str]:
    return {word for word in content_words(text) if len(word) >= _LONG_WORD and word.isalpha()}
