"""Training a vocabulary: SentencePiece unigram on any texts, saved as the published folders are.

>>> tokenizer = train_tokenizer(texts, vocab_size=8192, out=Path("tokenizer"))
>>> len(tokenizer)  # 8192 pieces and 512 sentinels
8704

As the published vocabularies were, it is trained on the corpus's words and their counts, not on a sample of
its sentences: every text counts, memory is bounded by the number of distinct words, and the same words in
another order or on another machine give the same vocabulary. Where the words are more than SentencePiece can hold,
their counts are thinned out.

With ``normalizer="neutral"`` it is trained on a sample of the lines, since in a script without spaces what stands
between spaces is a sentence, of which hardly any comes twice. Such a vocabulary spells characters that it lacks by
their bytes, so that nothing is unknown.
"""

from __future__ import annotations

import io
import os
import random
import re
import shutil
import string
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sentencepiece

from .model_file import round_scores
from .normalizer import check_normalizer, make_normalizer
from .sampling import sample_lines
from .tokenizer import SPECIAL_TOKENS, VOCABULARY_FILES, MetroT0Tokenizer

if TYPE_CHECKING:
    from rich.console import Console

MAX_DISTINCT_WORDS = 2_000_000
"""Beyond this many distinct words (about 300 MB) the rarest are forgotten while counting."""

TRAINING_CHARACTERS = 30_000_000
"""What SentencePiece is given at most: it needs about 20 bytes a character, for a word as often as it is counted."""

_LONGEST_WORD = 1024
# In the vocabulary however rare: a prompt asks with "?" even where the corpus hardly does.
_REQUIRED_CHARACTERS = string.ascii_letters + string.digits + string.punctuation
# Scores are multiples of 1/256: their sums are exact in SentencePiece's 32 bits over about 8,000 tokens a line, so
# that equal cuts stay equal wherever they stand, and other implementations of the model cut alike.
_SCORE_STEPS = 256
# Sums of floating-point numbers are split by thread: another number would train another vocabulary.
_THREADS = 2
_TOO_LARGE = re.compile(r"Vocabulary size too high \(\d+\)\. Please set it to a value <= (\d+)")
_TOO_SMALL = re.compile(r"Vocabulary size is smaller than required_chars\. \d+ vs (\d+)")


def train_tokenizer(
    texts: Iterable[str],
    vocab_size: int,
    out: Path,
    *,
    lower: bool = True,
    normalizer: str = "english",
    num_sentinel_tokens: int = 512,
    sample_characters: int | None = None,
    seed: int = 0,
    console: Console | None = None,
) -> MetroT0Tokenizer:
    """Train a SentencePiece unigram vocabulary and save it to the folder ``out``.

    The same texts give the same vocabulary, byte for byte. The folder appears whole or not at all. Scores are
    rounded to multiples of 1/256.

    Args:
        texts: the corpus, read once; how it is cut into texts does not matter.
        vocab_size: SentencePiece pieces, the four special ones and ``[MASK]`` included.
        out: a folder that does not exist yet, or an empty one.
        lower: an uncased vocabulary (normaliser ``nmt_nfkc_cf``) or a cased one (``nmt_nfkc``); a neutral one is
            always cased.
        normalizer: ``english``, as the published vocabularies, or ``neutral``, for any language: see
            ``NeutralNormalizer``.
        num_sentinel_tokens: sentinels after the pieces, of which the first is METRO's mask token.
        sample_characters: learn from a random share of the lines with at most so many characters; without it from
            all, a neutral vocabulary from ``TRAINING_CHARACTERS``.
        seed: of that sample.

    Raises:
        ValueError: ``out`` holds something, the texts hold no word, there is no such normaliser, or ``vocab_size``
            is too large or too small for them (the message names the nearest possible size).
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is not empty: choose another folder for the tokenizer or remove it")
    if num_sentinel_tokens < 1:
        raise ValueError(f"num_sentinel_tokens is {num_sentinel_tokens}: the mask token needs at least 1")
    check_normalizer(normalizer)
    neutral = normalizer == "neutral"
    if sample_characters is None and neutral:
        sample_characters = TRAINING_CHARACTERS
    if sample_characters is not None:
        texts = sample_lines(texts, max_characters=sample_characters, seed=seed)
    with console.status("Counting words") if console else nullcontext():
        # Sentences without spaces come once each: none may be forgotten, and the sample bounds them.
        most = MAX_DISTINCT_WORDS if not neutral else sys.maxsize
        counts = count_words(texts, lower, most, normalizer)
    if not counts:
        raise ValueError("there is no text to train a tokenizer on: the corpus is empty")
    with console.status(f"Training {vocab_size} pieces on {len(counts)} words") if console else nullcontext():
        counts = thin_out(counts, TRAINING_CHARACTERS)
        model = _train_unigram(counts, vocab_size, _NEUTRAL if neutral else _english(lower))
    model = round_scores(model, _SCORE_STEPS)
    _save(model, out, lower=lower, normalizer=normalizer, n_sentinel_tokens=num_sentinel_tokens)
    return MetroT0Tokenizer.from_pretrained(out)


def count_words(
    texts: Iterable[str], lower: bool, max_distinct: int = MAX_DISTINCT_WORDS, normalizer: str = "english"
) -> Counter[str]:
    """Counts of the normalised words of ``texts``; beyond ``max_distinct`` words the rarest are forgotten."""
    normalize = make_normalizer(normalizer, lower)
    counts: Counter[str] = Counter()
    for text in texts:
        counts.update(_cut_long_words(normalize(text).split()))
        if len(counts) > max_distinct:
            counts = _forget_rarest(counts, keep=max_distinct // 2)
    return counts


def thin_out(counts: Counter[str], max_characters: int) -> Counter[str]:
    """Counts as of a random share of the text of about ``max_characters``; the same counts are thinned alike."""
    characters = sum(count * (len(word) + 1) for word, count in counts.items())
    if characters <= max_characters:
        return counts
    share, rng = max_characters / characters, random.Random(0)
    thinned = {word: int(share * count + rng.random()) for word, count in sorted(counts.items())}
    return Counter({word: count for word, count in thinned.items() if count})


def _forget_rarest(counts: Counter[str], keep: int) -> Counter[str]:
    """The words above a threshold of occurrences, the lowest that leaves at most ``keep`` of them."""
    if len(counts) <= keep:
        return counts
    threshold = sorted(counts.values(), reverse=True)[keep]
    return Counter({word: count for word, count in counts.items() if count > threshold})


def _cut_long_words(words: list[str]) -> Iterator[str]:
    for word in words:
        if len(word) <= _LONGEST_WORD:
            yield word
        else:
            yield from (word[start : start + _LONGEST_WORD] for start in range(0, len(word), _LONGEST_WORD))


def _word_lines(counts: Counter[str]) -> Iterator[str]:
    """The counts as SentencePiece's tab-separated input, frequent words first.

    A piece is a candidate only where two occurrences of it go on differently. A word listed once, or always
    followed by a space, would never be one as a whole, so each line holds its word twice, for half the count.
    """
    for word, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        line = word.encode("utf-8", "replace").decode()
        if count > 1:
            yield f"{line} {line}\t{count // 2}"
        if count % 2:
            yield f"{line}\t1"


def _english(lower: bool) -> dict[str, Any]:
    return {
        "normalization_rule_name": "nmt_nfkc_cf" if lower else "nmt_nfkc",
        "character_coverage": 0.9999,
        "required_chars": _REQUIRED_CHARACTERS.lower() if lower else _REQUIRED_CHARACTERS,
    }


# The text has its Unicode form already and keeps its spaces; rare characters are left to the bytes.
_NEUTRAL: dict[str, Any] = {
    "normalization_rule_name": "identity",
    "remove_extra_whitespaces": False,
    "character_coverage": 0.9995,
    "required_chars": _REQUIRED_CHARACTERS,
    "byte_fallback": True,
}


def _train_unigram(counts: Counter[str], vocab_size: int, settings: dict[str, Any]) -> bytes:
    """Serialized SentencePiece model with the published special pieces, ids 0 to 4."""
    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=_word_lines(counts),
            input_format="tsv",
            model_writer=model,
            model_type="unigram",
            vocab_size=vocab_size,
            max_sentencepiece_length=32,
            max_sentence_length=16 * _LONGEST_WORD,
            bos_id=0,
            pad_id=1,
            eos_id=2,
            unk_id=3,
            bos_piece="[CLS]",
            pad_piece="[PAD]",
            eos_piece="[SEP]",
            unk_piece="[UNK]",
            user_defined_symbols=["[MASK]"],
            num_threads=_THREADS,
            minloglevel=2,
            **settings,
        )
    except RuntimeError as error:
        raise _size_error(str(error), vocab_size) from None
    return model.getvalue()


def _size_error(message: str, vocab_size: int) -> ValueError:
    if found := _TOO_LARGE.search(message):
        return ValueError(
            f"vocab_size {vocab_size} is too large: this corpus yields at most {found[1]} pieces"
        )
    if found := _TOO_SMALL.search(message):
        return ValueError(f"vocab_size {vocab_size} is too small: this corpus's characters need {found[1]}")
    reason = " ".join(message.split())
    return ValueError(f"SentencePiece cannot train {vocab_size} pieces on this corpus: {reason}")


def _save(model: bytes, out: Path, *, lower: bool, normalizer: str, n_sentinel_tokens: int) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    aside = out.with_name(f".{out.name}.{os.getpid()}")
    aside.mkdir()
    try:
        processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        pieces = processor.id_to_piece(list(range(len(SPECIAL_TOKENS), processor.get_piece_size())))
        sp_path, dict_path = (aside / VOCABULARY_FILES[argument] for argument in ("sp_path", "dict_path"))
        sp_path.write_bytes(model)
        dict_path.write_bytes("".join(f"{piece} 1\n" for piece in pieces).encode())
        # Corpora are text throughout: "</s>" inside a document must not end a sequence.
        MetroT0Tokenizer(
            str(sp_path),
            str(dict_path),
            lower,
            n_sentinel_tokens,
            normalizer=normalizer,
            # The clean-up of decoded text is for English with its punctuation set apart.
            clean_up_tokenization_spaces=normalizer != "neutral",
            split_special_tokens=True,
        ).save_pretrained(aside)
        aside.rename(out)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise
