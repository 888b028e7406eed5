"""Cleaning of a corpus, one document at a time: Unicode repair, a language filter, quality filters.

    cleaning = Cleaning(repair_unicode=True, languages=("en",), language_model=Path("lid.176.ftz"))
    cleaning.check()  # a ValueError says what is missing, before anything is read
    cleaner = cleaning.open()
    cleaned = cleaner(text)
    cleaned.text, cleaned.dropped  # the text to keep, or None and the reason

Everything is off by default. ``Cleaning`` is small and picklable: send it to the processes that read, and open it
there. The steps run in this order: repair (ftfy), language (fastText, the model a file of the user's), then the
quality filters by name, in the order given. The filters are datatrove's with its published thresholds, which were
chosen for English; words are split as ``metro_t0.data.plain_words`` says, so that no model has to be fetched.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from metro_t0.data.plain_words import plain_words

CORPORA_EXTRA = "pip install 'metro-t0[corpora]'"

QUALITY_FILTERS = {
    "gopher-quality": "GopherQualityFilter",
    "gopher-repetition": "GopherRepetitionFilter",
    "c4": "C4QualityFilter",
    "fineweb": "FineWebQualityFilter",
}
_LABEL = "__label__"


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of a document.

    Attributes:
        text: the text to keep, None when it is dropped.
        dropped: why it is dropped, such as ``language: de`` or ``gopher-quality: gopher_short_doc``; else None.
        repaired: its characters were changed by the Unicode repair.
        trimmed: a quality filter kept it, but took lines or citations out of it (``c4`` does).
    """

    text: str | None
    dropped: str | None = None
    repaired: bool = False
    trimmed: bool = False


@dataclass(frozen=True)
class Cleaning:
    """Which cleaning is wanted.

    Attributes:
        repair_unicode: undo wrong decoding (``Ã©`` for ``é``) and decode HTML entities with ftfy.
        languages: labels of the language model to keep, such as ``en``; empty keeps every language.
        language_model: a fastText language identification model, ``.bin`` or ``.ftz``; never downloaded.
        language_threshold: least probability of the most likely language, 0 to 1.
        quality: names out of :data:`QUALITY_FILTERS`.
    """

    repair_unicode: bool = False
    languages: tuple[str, ...] = ()
    language_model: Path | None = None
    language_threshold: float = 0.65
    quality: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.repair_unicode or self.languages or self.quality)

    def check(self) -> None:
        """Raise a ValueError of one line if a setting is wrong, or a library or the model is missing."""
        for name in self.quality:
            if name not in QUALITY_FILTERS:
                raise ValueError(f"quality filter {name!r} is not one of {', '.join(QUALITY_FILTERS)}")
        if len(set(self.quality)) < len(self.quality):
            raise ValueError(f"a quality filter is named twice: {', '.join(self.quality)}")
        if not 0 <= self.language_threshold <= 1:
            raise ValueError(f"language_threshold must be from 0 to 1, not {self.language_threshold}")
        if self.language_model is not None and not self.languages:
            raise ValueError("a language model without languages to keep: name them, such as en")
        if self.languages:
            self._check_language_model()
        if self.repair_unicode:
            require_libraries("Unicode repair", "ftfy")
        if self.quality:
            require_libraries("quality filters", "datatrove", "regex", "xxhash")

    def _check_language_model(self) -> None:
        if self.language_model is None:
            raise ValueError(
                "the language filter needs a fastText model file: fetch lid.176.ftz from "
                "https://fasttext.cc/docs/en/language-identification.html and give its path"
            )
        if not self.language_model.is_file():
            raise ValueError(
                f"{self.language_model}: no such language model; lid.176.ftz is at "
                "https://fasttext.cc/docs/en/language-identification.html"
            )
        require_libraries("the language filter", "fasttext")
        known = {label.removeprefix(_LABEL) for label in _load_language_model(self.language_model).labels}
        if unknown := [language for language in self.languages if language not in known]:
            some = ", ".join(sorted(known)[:8])
            raise ValueError(
                f"{self.language_model} does not know the language {unknown[0]!r}; it knows {len(known)}: {some}"
                + (", ..." if len(known) > 8 else "")
            )

    def open(self) -> Cleaner:
        """Load what the settings need; raises ValueError as :meth:`check` does."""
        self.check()
        return Cleaner(self)


class Cleaner:
    """Cleans texts one at a time; made by :meth:`Cleaning.open`, one in each process."""

    def __init__(self, cleaning: Cleaning) -> None:
        self._repair = _repairer() if cleaning.repair_unicode else None
        self._language_model = (
            _load_language_model(cleaning.language_model)
            if cleaning.languages and cleaning.language_model is not None
            else None
        )
        self._languages = frozenset(cleaning.languages)
        self._threshold = cleaning.language_threshold
        self._filters = [(name, _quality_filter(name)) for name in cleaning.quality]

    def __call__(self, text: str) -> Cleaned:
        """Repair a text and say whether it is kept."""
        original = text
        if self._repair is not None:
            text = self._repair(text)
        repaired = text != original
        if not text.strip():
            return Cleaned(None, "empty", repaired)
        if self._language_model is not None and (reason := self._wrong_language(text)):
            return Cleaned(None, reason, repaired)
        trimmed = False
        for name, apply in self._filters:
            kept, reason = apply(text)
            if kept is None:
                return Cleaned(None, f"{name}: {reason}", repaired, trimmed)
            trimmed, text = trimmed or kept != text, kept
        return Cleaned(text, None, repaired, trimmed)

    def _wrong_language(self, text: str) -> str | None:
        # fastText takes one line, and reads what UTF-8 can hold
        line = " ".join(text.split()).encode("utf-8", "replace").decode("utf-8")
        labels, probabilities = self._language_model.predict(line)  # type: ignore[union-attr]
        if not labels:
            return "language: unknown"
        language = labels[0].removeprefix(_LABEL)
        if language not in self._languages:
            return f"language: {language}"
        return None if probabilities[0] >= self._threshold else f"language: {language}, but not sure"


def require_libraries(purpose: str, *modules: str) -> None:
    """Raise a ValueError that names the pip command unless all modules are installed."""
    if missing := [name for name in modules if find_spec(name) is None]:
        raise ValueError(f"{purpose} needs {', '.join(missing)}: {CORPORA_EXTRA}")


def _repairer() -> Callable[[str], str]:
    import ftfy

    # Only what is broken: quotes, ligatures and widths are the text's own, and the normaliser's business.
    config = ftfy.TextFixerConfig(
        uncurl_quotes=False, fix_latin_ligatures=False, fix_character_width=False, explain=False
    )
    return lambda text: str(ftfy.fix_text(text, config))


def _load_language_model(path: Path) -> Any:
    from fasttext import load_model

    try:
        return load_model(str(path))
    except ValueError as error:
        raise ValueError(f"{path}: not a fastText model ({str(error).strip()})") from error


def _quality_filter(name: str) -> Callable[[str], tuple[str | None, str]]:
    """A function of a text to (the text to keep or None, why it is dropped)."""
    from datatrove.data import Document
    from datatrove.pipeline import filters

    keeps = getattr(filters, QUALITY_FILTERS[name])(language=plain_words()).filter

    def apply(text: str) -> tuple[str | None, str]:
        document = Document(text=text, id="")
        verdict = keeps(document)
        kept, reason = verdict if isinstance(verdict, tuple) else (verdict, "")
        return (str(document.text) if kept else None), str(reason)

    return apply
