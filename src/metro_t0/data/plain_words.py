"""Words and sentences for datatrove's filters and MinHash, without a model or a download.

    GopherQualityFilter(language=plain_words())

Datatrove takes a word tokenizer object wherever it takes a language. Its own for English is spaCy's; this one is two
regular expressions, for any language: a word is a run of letters, digits and marks (with apostrophes and hyphens
inside), a number with its separators, initials, an ellipsis, a sign of its own, or one character of a script that
puts no spaces between words.
"""

from __future__ import annotations

import re
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datatrove.utils.word_tokenizers import WordTokenizer

# Thai, Lao, Tibetan, Burmese, Khmer, kana, Han, and their extensions.
UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_LETTER = rf"[^\W{UNSPACED}]"
_WORD = re.compile(
    rf"\d+(?:[.,:]\d+)+|(?:[^\W\d_]\.){{2,}}|\.{{3,}}|{_LETTER}+(?:['’\-]{_LETTER}+)*|[{UNSPACED}]|[^\w\s]"
)
_SENTENCE_END = re.compile("(?<=[.!?])[\"'”’)\\]]*(?=\\s)|(?<=[。！？।])|\n")


def split_words(text: str) -> list[str]:
    """The words and signs of a text, in order."""
    return _WORD.findall(text)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text, without the space around them; a line's end ends a sentence."""
    ends = [0, *(match.end() for match in _SENTENCE_END.finditer(text)), len(text)]
    pieces = (text[start:end].strip() for start, end in pairwise(ends))
    return [piece for piece in pieces if piece]


@cache
def plain_words() -> WordTokenizer:
    """The word tokenizer for datatrove; one a process, since datatrove caches by object."""
    from datatrove.utils.word_tokenizers import WordTokenizer, simple_span_tokenize

    class PlainWords(WordTokenizer):
        def word_tokenize(self, text: str) -> list[str]:
            return split_words(text)

        def sent_tokenize(self, text: str) -> list[str]:
            return split_sentences(text)

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return list(simple_span_tokenize(text, split_sentences(text)))

    return PlainWords()
