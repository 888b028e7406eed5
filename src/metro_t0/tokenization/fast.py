"""A tokenizer for the Rust library `tokenizers`, with the ids of ``MetroT0Tokenizer.encode_texts``.

>>> backend = fast_backend(tokenizer)
>>> backend.encode("Hello, world!", add_special_tokens=False).ids == tokenizer.encode_texts(["Hello, world!"])[0]
True

The text normaliser becomes regular expressions, SentencePiece's character map is taken as it is. One thing has no
counterpart: SentencePiece adds scores up in 32 bits, `tokenizers` in 64, so that of two cuts of a word whose scores
are all but equal each may choose another one. ``train_tokenizer`` rounds scores so that both sums are exact; with
other vocabularies ``find_differences`` says where the two part.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, processors
from tokenizers import normalizers as steps

from .model_file import NORMAL, USER_DEFINED, ModelFile, read_model
from .normalizer import STRAIGHT, is_punctuation
from .tokenizer import SPECIAL_TOKENS, UNKNOWN_ID, MetroT0Tokenizer

# The score of a token that no text may become: below any sum over a line.
_NEVER = -1e9
_ALL_SPACES = 1 << 30
_BATCH_LINES = 1000
_NO_TWIN = "there is no fast export of this vocabulary"


@dataclass(frozen=True, slots=True)
class Difference:
    """A line that the export cuts otherwise: its number (from 1), its text, the pieces of both."""

    number: int
    line: str
    sentencepiece: list[str]
    fast: list[str]


def fast_backend(tokenizer: MetroT0Tokenizer) -> Tokenizer:
    """The twin of ``tokenizer``: normaliser, unigram model, ``<s> a </s></s> b </s>`` and decoder.

    Raises:
        ValueError: the SentencePiece model is of a kind that has no twin.
    """
    model = read_model(tokenizer.model_content)
    marks_spaces = model.add_dummy_prefix and model.escape_whitespaces and not model.whitespace_suffix
    if not (model.unigram and marks_spaces):
        raise ValueError(f"{_NO_TWIN}: it is not a unigram model that marks the space before a word")
    backend = Tokenizer(
        models.Unigram(_scored_tokens(tokenizer, model), UNKNOWN_ID, tokenizer.has_byte_pieces)
    )
    neutral = tokenizer.text_normalizer == "neutral"
    before = [steps.NFC()] if neutral else _english_steps(tokenizer.lower)
    backend.normalizer = steps.Sequence([*before, *_sentencepiece_steps(model)])
    backend.decoder = _decoder(tokenizer)
    backend.add_special_tokens([AddedToken(token, normalized=False) for token in SPECIAL_TOKENS])
    begin, _, end, _ = SPECIAL_TOKENS
    backend.post_processor = processors.TemplateProcessing(
        f"{begin} $A {end}", f"{begin} $A {end} {end} $B {end}", [(begin, 0), (end, 2)]
    )
    return backend


def _scored_tokens(tokenizer: MetroT0Tokenizer, model: ModelFile) -> list[tuple[str, float]]:
    """Every token in the order of the ids with the score at which a text may become it."""
    processor = sentencepiece.SentencePieceProcessor(model_proto=tokenizer.model_content)
    numbers = list(range(processor.get_piece_size()))
    pieces, scores = processor.id_to_piece(numbers), processor.get_score(numbers)
    rows = list(zip(pieces, scores, model.kinds, strict=True))
    known = {piece: score for piece, score, kind in rows if kind == NORMAL}
    best = max(known.values())
    # SentencePiece scores a user-defined symbol by its length when it searches the best cut.
    known |= {piece: len(piece.encode()) * best - 0.1 for piece, _, kind in rows if kind == USER_DEFINED}
    tokens = tokenizer.convert_ids_to_tokens(list(range(tokenizer.vocab_size)))
    lost = known.keys() - set(tokens)
    if lost:
        raise ValueError(f"{_NO_TWIN}: its dictionary lacks {len(lost)} pieces, such as {min(lost)!r}")
    needed = {piece for piece, _, kind in rows if kind == NORMAL} | (set(tokens) - known.keys())
    unread = {character for token in needed for character in token} - known.keys()
    if unread:
        # Which cut wins would hang on what a character costs that is no piece.
        raise ValueError(f"{_NO_TWIN}: {min(unread)!r} is in a piece but is none by itself")
    return [(token, known.get(token, _NEVER)) for token in tokens]


def find_differences(
    tokenizer: MetroT0Tokenizer,
    backend: Tokenizer,
    lines: Sequence[str],
    on_lines: Callable[[int], object] = int,
) -> list[Difference]:
    """The lines whose bare ids in ``backend`` are not those of ``tokenizer.encode_texts``.

    Args:
        lines: lines of text; special tokens spelled out in them are text.
        on_lines: called with the number of lines of each batch compared.
    """
    found: list[Difference] = []
    spelled_out, backend.encode_special_tokens = backend.encode_special_tokens, True
    try:
        for start in range(0, len(lines), _BATCH_LINES):
            batch = list(lines[start : start + _BATCH_LINES])
            encodings = backend.encode_batch_fast(batch, add_special_tokens=False)
            for place, (ours, theirs) in enumerate(
                zip(tokenizer.encode_texts(batch), encodings, strict=True), start=1
            ):
                if ours != theirs.ids:
                    pieces, others = (tokenizer.convert_ids_to_tokens(ids) for ids in (ours, theirs.ids))
                    found.append(Difference(start + place, batch[place - 1], pieces, others))
            on_lines(len(batch))
    finally:
        backend.encode_special_tokens = spelled_out
    return found


def export_fast(
    tokenizer: MetroT0Tokenizer,
    folder: Path,
    lines: Sequence[str],
    *,
    tolerated: int = 0,
    on_lines: Callable[[int], object] = int,
) -> list[Difference]:
    """Write ``tokenizer.json`` and its configuration into the empty ``folder``, if the ids are the same on ``lines``.

    The folder is read by ``AutoTokenizer`` and ``PreTrainedTokenizerFast``; ``tokenizer.json`` alone by `tokenizers`.

    Args:
        tolerated: lines that may differ.
        on_lines: called with the number of lines of each batch compared.

    Returns:
        the lines that differ, at most ``tolerated``.

    Raises:
        ValueError: there is nothing to compare on, more lines differ, or the vocabulary has no twin.
    """
    from transformers import PreTrainedTokenizerFast

    if not lines:
        raise ValueError("an export is compared line by line with SentencePiece: there is no line to compare")
    backend = fast_backend(tokenizer)
    differences = find_differences(tokenizer, backend, lines, on_lines)
    if len(differences) > tolerated:
        raise ValueError(_refusal(differences, len(lines), tolerated))
    settings = ("bos_token", "eos_token", "unk_token", "pad_token", "cls_token", "sep_token")
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        split_special_tokens=tokenizer.split_special_tokens,
        model_input_names=tokenizer.model_input_names,
        **{name: str(getattr(tokenizer, name)) for name in settings},
    ).save_pretrained(folder)
    return differences


def _refusal(differences: Sequence[Difference], lines: int, tolerated: int) -> str:
    first = differences[0]
    apart = next(
        (
            place
            for place, pair in enumerate(zip(first.sentencepiece, first.fast, strict=False))
            if pair[0] != pair[1]
        ),
        min(len(first.sentencepiece), len(first.fast)),
    )
    shown = slice(max(apart - 2, 0), apart + 6)
    allowed = f"; {tolerated} may" if tolerated else ""
    return (
        f"not exported: {len(differences)} of {lines} lines have other ids than SentencePiece's{allowed}. Line "
        f"{first.number} of those compared, {first.line[:60]!r}, from piece {shown.start + 1} on: SentencePiece "
        f"{' '.join(first.sentencepiece[shown])!r}, the export {' '.join(first.fast[shown])!r}"
    )


# ---------------------------------------------------------------- normalisation, step by step


def _english_steps(lower: bool) -> list[steps.Normalizer]:
    """``TextNormalizer``, its steps in its order."""
    quotes: dict[str, str] = {}
    for typographic, straight in STRAIGHT:
        quotes[straight] = quotes.get(straight, "") + typographic
    space, mark, letter = (_character_class(kind) for kind in (str.isspace, is_punctuation, _continues_word))
    found = [
        steps.Replace("``", '"'),
        steps.Replace("''", '"'),
        *(steps.Replace(Regex(f"[{old}]"), straight) for straight, old in quotes.items()),
        steps.Replace(Regex(f"[{space}]+"), " "),
        steps.Strip(),
        # \K forgets what was matched before it: a space is put between, nothing is taken away.
        steps.Replace(Regex(rf"(?<![^ ])[{mark}]++\K(?=[^ ])"), " "),
        steps.Replace(Regex(rf"[^ {mark}]\K(?=[{mark}]++(?![^ ]))"), " "),
        steps.Replace(Regex(rf"' (?=(?:[smdSMDtT]|ll|re|ve)(?![{letter}]))"), "'"),
        steps.Replace(Regex(rf"' (?:LL|RE|VE)\K(?=[^ {letter}])"), " "),
        steps.Replace(Regex(rf"' (?=(?:LL|RE|VE)(?![{letter}]))"), "'"),
    ]
    if lower:
        cased, ignored = (_character_class(kind) for kind in (_is_cased, _is_ignored_by_case))
        # Python writes a capital sigma at the end of a word as "ς", the Rust library never does.
        final = Regex(rf"(?<=[{cased}][{ignored}]*)Σ(?![{ignored}]*[{cased}])")
        found += [steps.Replace(final, "ς"), steps.Lowercase()]
    return found


def _sentencepiece_steps(model: ModelFile) -> list[steps.Normalizer]:
    found: list[steps.Normalizer] = []
    if model.character_map:
        # The map joins letters and accents itself, but `tokenizers` takes the shortest entry and loses the rest.
        found += [steps.NFC(), steps.Precompiled(model.character_map)]
        if model.normalizer_name.endswith("_cf"):
            # Case folding; together with an accent `tokenizers` would lose the accent.
            found.insert(0, steps.Replace("ς", "σ"))
    if model.remove_extra_whitespaces:
        found += [steps.Replace(Regex(" {2,}"), " "), steps.Replace(Regex(r"\A | \z"), "")]
    return [*found, steps.Prepend("▁"), steps.Replace(" ", "▁")]


def _decoder(tokenizer: MetroT0Tokenizer) -> decoders.Decoder:
    joined: list[decoders.Decoder] = [decoders.ByteFallback()] if tokenizer.has_byte_pieces else []
    # A neutral vocabulary gives every space back but the one that SentencePiece put in front.
    outer = (1, 0) if tokenizer.text_normalizer == "neutral" else (_ALL_SPACES, _ALL_SPACES)
    return decoders.Sequence(
        [*joined, decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", *outer)]
    )


@lru_cache
def _character_class(belongs: Callable[[str], bool]) -> str:
    """The characters for which ``belongs`` holds, as the inside of a bracket expression."""
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if 0xD800 <= code < 0xE000 or not belongs(chr(code)):
            continue
        if ranges and ranges[-1][1] == code - 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "".join(rf"\x{{{first:X}}}-\x{{{last:X}}}" for first, last in ranges)


def _continues_word(character: str) -> bool:
    """What Python's ``\\b`` takes for part of a word."""
    return character.isalnum() or character == "_"


def _is_cased(character: str) -> bool:
    """Whether a capital sigma behind it ends a word, as Python's ``lower`` sees it."""
    return not _is_ignored_by_case(character) and f"{character}Σ".lower().endswith("ς")


def _is_ignored_by_case(character: str) -> bool:
    """Whether ``lower`` looks through the character when it searches the letters around a capital sigma."""
    return f"AΣ{character}A".lower()[1] == "σ" and f"AΣ{character}".lower()[1] == "ς"
