"""Cleaning of single documents: Unicode repair, a language filter, datatrove's quality filters. All off by default.

cleaner = Cleaning(repair_unicode=True, quality=("gopher-quality",)).open()
cleaned = cleaner(text)     # cleaned.text is None where cleaned.dropped gives a reason

Settings may be pickled; each process opens its own cleaner.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

QUALITY_FILTERS = ("gopher-quality", "gopher-repetition", "c4", "fineweb")


@dataclass(frozen=True, slots=True)
class Cleaned:
    """What became of a document: its text, or None and why, and whether Unicode repair changed it."""

    text: str | None
    dropped: str | None
    repaired: bool


@dataclass(frozen=True)
class Cleaning:
    """What to do with each document, in this order.

    Attributes:
        repair_unicode: mend text that was decoded wrongly, by ftfy.
        languages: codes as the model names them (``en``) of the languages to keep; empty keeps all.
        language_model: file of a fastText model with labels ``__label__en``.
        language_threshold: least probability of the language, 0 to 1.
        quality: names out of ``QUALITY_FILTERS``, applied in turn with datatrove's published settings.
    """

    repair_unicode: bool = False
    languages: tuple[str, ...] = ()
    language_model: Path | None = None
    language_threshold: float = 0.65
    quality: tuple[str, ...] = ()

    def check(self) -> None:
        """Raise ValueError where a setting is wrong, a package is missing or the model file is."""
        for name in self.quality:
            if name not in QUALITY_FILTERS:
                raise ValueError(f"no quality filter {name!r}; there are {', '.join(QUALITY_FILTERS)}")
        if not 0 <= self.language_threshold <= 1:
            raise ValueError(f"the language threshold is a probability, not {self.language_threshold}")
        if self.languages and self.language_model is None:
            raise ValueError(
                "the language filter needs a fastText model's file, such as lid.176.bin of "
                "https://fasttext.cc/docs/en/language-identification.html"
            )
        if self.languages and self.language_model is not None and not self.language_model.is_file():
            raise ValueError(
                f"{self.language_model}: no such language model; fetch lid.176.bin from "
                "https://fasttext.cc/docs/en/language-identification.html"
            )
        needed = {"ftfy": self.repair_unicode, "fasttext": self.languages, "datatrove": self.quality}
        for package, wanted in needed.items():
            if wanted and importlib.util.find_spec(package) is None:
                raise ValueError(f"this cleaning needs {package}: pip install 'metro-t0[corpora]'")

    def open(self) -> Cleaner:
        """Check the settings and load what they need.

        Raises:
            ValueError: as ``check``, or the language model cannot be read.
        """
        self.check()
        return Cleaner(self)


class Cleaner:
    """Cleans one document a call; made by ``Cleaning.open``."""

    def __init__(self, settings: Cleaning) -> None:
        self._settings = settings
        self._filters = [(name, _quality_filter(name)) for name in settings.quality]
        self._model: Any = None
        if settings.languages:
            import fasttext

            try:
                self._model = fasttext.load_model(str(settings.language_model))
            except (ValueError, RuntimeError) as error:
                raise ValueError(f"{settings.language_model}: no fastText model ({error})") from error

    def __call__(self, text: str) -> Cleaned:
        repaired = False
        if self._settings.repair_unicode:
            import ftfy

            mended = ftfy.fix_text(text)
            repaired, text = mended != text, mended
        reason = self._other_language(text)
        for name, keep in self._filters:
            if reason is None and text:
                text, why = keep(text)
                reason = why and f"{name}: {why}"
        return Cleaned(None if reason else text, reason, repaired)

    def _other_language(self, text: str) -> str | None:
        if self._model is None:
            return None
        labels, probabilities = self._model.predict(text.replace("\n", " "))
        if not labels:
            return "language: none found"
        language = labels[0].removeprefix("__label__")
        if language not in self._settings.languages:
            return f"language: {language}"
        return None if probabilities[0] >= self._settings.language_threshold else "language: uncertain"


def _quality_filter(name: str) -> Callable[[str], tuple[str, str | None]]:
    from datatrove.data import Document
    from datatrove.pipeline import filters

    from metro_t0.data.datatrove_words import PlainWords

    kinds = {
        "gopher-quality": filters.GopherQualityFilter,
        "gopher-repetition": filters.GopherRepetitionFilter,
        "c4": filters.C4QualityFilter,
        "fineweb": filters.FineWebQualityFilter,
    }
    chosen = kinds[name](language=PlainWords())

    def keep(text: str) -> tuple[str, str | None]:
        document = Document(text=text, id="")
        result = chosen.filter(document)
        kept, reason = result if isinstance(result, tuple) else (result, "dropped")
        return document.text, None if kept else str(reason).replace("_", " ")

    return keep
