"""Words and sentences for datatrove without its downloads: words are runs of letters and digits, or single marks."""

from __future__ import annotations

import re

from datatrove.utils.word_tokenizers import WordTokenizer

_WORDS = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")
_SENTENCES = re.compile(r"[^\s].*?(?:[.!?…。！？]+[\"'”’)\]]*(?=\s|$)|$)", re.MULTILINE)


class PlainWords(WordTokenizer):
    """Splits by two regular expressions; the same for every language that puts spaces between words."""

    def word_tokenize(self, text: str) -> list[str]:
        return _WORDS.findall(text)

    def sent_tokenize(self, text: str) -> list[str]:
        return _SENTENCES.findall(text)

    def span_tokenize(self, text: str) -> list[tuple[int, int]]:
        return [match.span() for match in _SENTENCES.finditer(text)]
