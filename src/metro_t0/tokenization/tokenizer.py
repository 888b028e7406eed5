"""The METRO-T0 tokenizer, native to transformers: normaliser, SentencePiece, dictionary, sentinels.

>>> tokenizer = MetroT0Tokenizer.from_pretrained(folder)  # sp.model + dict.txt + tokenizer_config.json
>>> batch = tokenizer(["Is this positive?", "Yes"], padding=True, return_tensors="pt")
>>> tokenizer.encode_texts(["bare ids, fast"])

Ids: ``<s>`` 0, ``<pad>`` 1, ``</s>`` 2, ``<unk>`` 3, the SentencePiece pieces, then the sentinels
``<sen000>``, ..., of which the first is METRO's mask token. ``len(tokenizer)`` is the number of rows of the
model's embedding.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import sentencepiece
from transformers import PreTrainedTokenizer

from .normalizer import make_normalizer

SPECIAL_TOKENS = ("<s>", "<pad>", "</s>", "<unk>")
UNKNOWN_ID = 3
_BYTE_PIECE = re.compile("<0x[0-9A-F]{2}>")
VOCABULARY_FILES = {"sp_path": "sp.model", "dict_path": "dict.txt"}


def _read_file(path: str | None, what: str) -> bytes:
    if path is None or not Path(path).is_file():
        raise ValueError(f"the tokenizer needs {what}, which is missing" + (f": {path}" if path else ""))
    return Path(path).read_bytes()


def _dictionary_tokens(content: bytes) -> list[str]:
    """Tokens of a fairseq dictionary (a token and a count a line), in the order of their ids from 4 on."""
    lines = content.decode("utf-8").split("\n")
    return [line.rstrip().rsplit(" ", 1)[0] for line in lines if line.strip()]


class FairseqT5Tokenizer(PreTrainedTokenizer):
    """Tokenizer of the published METRO-T0 vocabularies and of those that ``train_tokenizer`` makes.

    ``MetroT0Tokenizer`` is this class; it carries the published name because a saved folder names its class,
    and transformers' Auto classes look it up by that name. A sequence is ``<s> ... </s>``, a pair
    ``<s> a </s></s> b </s>``.

    Sentinels are produced by id only: ``<sen001>`` in a text is split as any other text, while
    ``convert_tokens_to_ids`` and ``decode`` know it. ``<s>``, ``<pad>``, ``</s>`` and ``<unk>`` inside a text
    given to the call become those tokens, as transformers tokenizers do by default, unless
    ``split_special_tokens=True``; ``encode_texts`` always takes them as text.

    Args:
        sp_path: the SentencePiece model, ``sp.model`` of a saved folder.
        dict_path: the fairseq dictionary, ``dict.txt``; without one a piece's id is its SentencePiece id.
        lower: lower-case the text before SentencePiece; the neutral normaliser never does.
        normalizer: what runs before SentencePiece: ``english``, as published, or ``neutral``, which keeps everything.
        n_sentinel_tokens: sentinels after the pieces; the published models have 512.

    Raises:
        ValueError: a vocabulary file is missing or is not what its name says, or there is no such normaliser.
    """

    vocab_files_names = VOCABULARY_FILES
    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012

    def __init__(
        self,
        sp_path: str | None = None,
        dict_path: str | None = None,
        lower: bool = True,
        n_sentinel_tokens: int = 512,
        bos_token: str = "<s>",
        eos_token: str = "</s>",
        unk_token: str = "<unk>",
        pad_token: str = "<pad>",
        clean_up_tokenization_spaces: bool = True,
        normalizer: str = "english",
        **kwargs: Any,
    ) -> None:
        self.lower = lower and normalizer != "neutral"
        self.text_normalizer = normalizer
        self.n_sentinel_tokens = n_sentinel_tokens
        self._sp_content = _read_file(sp_path, "a SentencePiece model (sp.model)")
        self._dict_content = None if dict_path is None else _read_file(dict_path, "its dictionary (dict.txt)")
        self._load_vocabulary(name=str(sp_path))
        super().__init__(
            bos_token=bos_token,
            eos_token=eos_token,
            unk_token=unk_token,
            pad_token=pad_token,
            cls_token=kwargs.pop("cls_token", bos_token),
            sep_token=kwargs.pop("sep_token", eos_token),
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
            lower=self.lower,
            n_sentinel_tokens=n_sentinel_tokens,
            normalizer=normalizer,
            **kwargs,
        )
        self.special_tokens_pattern = "cls_double_sep"
        self.token_type_ids_pattern = "all_zeros"

    def _load_vocabulary(self, name: str) -> None:
        """Build the processor and the tables between ids and tokens from the two files' contents."""
        self._normalizer = make_normalizer(self.text_normalizer, self.lower)
        self._processor = sentencepiece.SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._sp_content)
        except RuntimeError:
            raise ValueError(f"{name} is not a SentencePiece model") from None
        count = self._processor.get_piece_size()
        pieces: list[str] = self._processor.id_to_piece(list(range(count)))
        known = (
            pieces[len(SPECIAL_TOKENS) :]
            if self._dict_content is None
            else _dictionary_tokens(self._dict_content)
        )
        self._num_pieces = len(SPECIAL_TOKENS) + len(known)
        self._tokens = [*SPECIAL_TOKENS, *known, *(f"<sen{i:03d}>" for i in range(self.n_sentinel_tokens))]
        self._ids = {token: id_ for id_, token in enumerate(self._tokens)}
        if len(self._ids) != len(self._tokens):
            raise ValueError(
                f"the dictionary of {name} holds a token twice, or a special token or a sentinel"
            )
        # The published dictionaries keep SentencePiece's order; another one is served through a table.
        to_ids = [self._ids.get(piece, UNKNOWN_ID) for piece in pieces]
        to_ids[self._processor.unk_id()] = UNKNOWN_ID
        same = all(to_ids[i] == i for i in range(UNKNOWN_ID, count))
        self._piece_to_id = None if same and self._processor.unk_id() == UNKNOWN_ID else to_ids
        self.has_byte_pieces = any(self._processor.is_byte(list(range(count))))

    @property
    def vocab_size(self) -> int:
        """Pieces and sentinels, without tokens that a user added."""
        return len(self._tokens)

    @property
    def num_sentinel_tokens(self) -> int:
        return self.n_sentinel_tokens

    @property
    def mask_id(self) -> int:
        """Id of ``<sen000>``: METRO's mask token and the start token of its decoder in pretraining."""
        return self._num_pieces

    def is_byte(self, index: int) -> bool:
        """Whether an id stands for one byte of a character that is no piece (neutral vocabularies)."""
        return self.has_byte_pieces and bool(_BYTE_PIECE.fullmatch(self._convert_id_to_token(index)))

    def unknown_characters(self, text: str) -> str:
        """The characters that become ``<unk>``, one after the other, as the normalisers leave them."""
        pieces = self._processor.encode(_mend_surrogates(self._normalizer(text)), out_type=str)
        return "".join(piece for piece in pieces if self._convert_token_to_id(piece) == UNKNOWN_ID)

    @property
    def model_content(self) -> bytes:
        """The SentencePiece model, as ``sp.model`` holds it."""
        return self._sp_content

    def get_vocab(self) -> dict[str, int]:
        return {**self._ids, **self._added_tokens_encoder}

    def encode_texts(self, texts: list[str], num_threads: int = 1) -> list[list[int]]:
        """Bare ids of each text, without ``<s>`` and ``</s>``: the fast way for corpora.

        Special tokens that a text spells out are taken as text; a text of only whitespace has no ids, unless
        the normaliser is the neutral one, which keeps spaces. Half of a surrogate pair, which no UTF-8 text
        can hold, is read as U+FFFD.
        """
        lines = [_mend_surrogates(self._normalizer(text)) for text in texts]
        batch = self._processor.encode(lines, out_type=int, num_threads=num_threads)
        table = self._piece_to_id
        return batch if table is None else [[table[piece] for piece in pieces] for pieces in batch]

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **kwargs: Any
    ) -> list[str]:
        # The search for added tokens walks a text by character: worth it only where one is spelled out.
        if any(token in text for token in self._added_tokens_encoder):
            return super().tokenize(text, **kwargs)
        return self._tokenize(text) if text else []

    def _tokenize(self, text: str, **kwargs: Any) -> list[str]:
        # The published tokenizer answers <unk> to a text that normalisation leaves empty ("\n").
        pieces = self._processor.encode(_mend_surrogates(self._normalizer(text)), out_type=str)
        return pieces or [SPECIAL_TOKENS[UNKNOWN_ID]]

    def _convert_token_to_id(self, token: str) -> int:
        return self._ids.get(token, UNKNOWN_ID)

    def _convert_id_to_token(self, index: int) -> str:
        return self._tokens[index] if 0 <= index < len(self._tokens) else SPECIAL_TOKENS[UNKNOWN_ID]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        if self.text_normalizer == "neutral":
            # What is not a piece comes as the bytes of its UTF-8; the first space is SentencePiece's own.
            text = "".join(_join_bytes(tokens) if self.has_byte_pieces else tokens)
            return text.replace("▁", " ").removeprefix(" ")
        return "".join(tokens).replace(" ", "").replace("▁", " ").strip()

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        prefix = f"{filename_prefix}-" if filename_prefix else ""
        written = []
        for argument, content in (("sp_path", self._sp_content), ("dict_path", self._dict_content)):
            if content is not None:
                path = Path(save_directory) / (prefix + VOCABULARY_FILES[argument])
                path.write_bytes(content)
                written.append(str(path))
        return tuple(written)

    def __getstate__(self) -> dict[str, Any]:
        # The processor is rebuilt from the files' contents, so that pickles are small and always the same.
        rebuilt = ("_processor", "_normalizer", "_tokens", "_ids", "_piece_to_id", "has_byte_pieces")
        return {name: value for name, value in self.__dict__.items() if name not in rebuilt}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._load_vocabulary(name="the pickled sp.model")


def _mend_surrogates(text: str) -> str:
    """Join surrogate pairs into their character and replace lone halves by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _join_bytes(tokens: list[str]) -> Iterator[str]:
    """``tokens`` with each run of byte pieces as the text that it spells; broken UTF-8 becomes U+FFFD."""
    for is_byte, run in groupby(tokens, key=lambda token: bool(_BYTE_PIECE.fullmatch(token))):
        if is_byte:
            yield bytes(int(token[3:5], 16) for token in run).decode("utf-8", "replace")
        else:
            yield from run


MetroT0Tokenizer = FairseqT5Tokenizer
