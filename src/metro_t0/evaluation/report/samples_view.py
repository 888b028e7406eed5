"""What the report page shows of ``samples.jsonl``: what happened to each token of a few held-out rows, over a run.

view = samples_view(read_run(Path("runs/pretrain")))        # None where the run wrote no samples

A token is what the page draws: the original, what the auxiliary model wrote in its place, what replaced-token detection
(RTD) said of the token that the encoder read, and what the decoder made of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from metro_t0.evaluation.records import Record, RunRecord

_WORD_BEGINS = "▁"


@dataclass(frozen=True)
class Token:
    """One token at one point of training.

    Attributes:
        text: the original, without the mark of a word's beginning.
        begins_word: whether there was such a mark.
        masked: whether the auxiliary model wrote here.
        written: what it wrote, where that is another token.
        belief: the probability that RTD gives to "replaced"; None = it was not asked.
        restored: what the decoder holds most likely, where masked.
        restored_right: whether that is the original.
    """

    text: str
    begins_word: bool
    masked: bool
    written: str | None
    belief: float | None
    restored: str | None
    restored_right: bool

    @property
    def replaced(self) -> bool:
        return self.written is not None

    @property
    def called_replaced(self) -> bool:
        """Whether RTD is for "replaced"."""
        return self.belief is not None and self.belief >= 0.5

    @property
    def verdict(self) -> str:
        """What RTD's answer is worth: ``found``, ``missed``, ``false alarm``, or nothing to remark."""
        if self.belief is None or self.called_replaced == self.replaced:
            return "found" if self.called_replaced else ""
        return "false alarm" if self.called_replaced else "missed"

    @property
    def remark(self) -> str:
        """All of it in words."""
        parts = [f"original: {self.text}"]
        if self.replaced:
            parts.append(f"the auxiliary model wrote: {self.written}")
        elif self.masked:
            parts.append("masked, and the auxiliary model wrote the same")
        if self.belief is not None:
            parts.append(f"RTD: replaced with {100 * self.belief:.0f} %")
        if self.restored is not None:
            parts.append(f"the decoder: {self.restored} ({'right' if self.restored_right else 'wrong'})")
        return "; ".join(parts)


def samples_view(run: RunRecord) -> list[dict[str, Any]]:
    """The points of training in order, each with its step and rows; a row has its tokens and a summary in words."""
    return [{"step": line["step"], "rows": [_row(row) for row in line["rows"]]} for line in run.samples]


def _row(row: Record) -> dict[str, Any]:
    columns = (row[name] for name in ("original", "masked", "replaced", "detection", "restored"))
    tokens = [_token(*values) for values in zip(*columns, strict=True)]
    return {"tokens": tokens, "summary": _summary(tokens)}


def _token(
    original: str, masked: bool, replaced: str | None, detection: float | None, restored: str | None
) -> Token:
    return Token(
        _text(original),
        original.startswith(_WORD_BEGINS),
        masked,
        None if replaced is None else _text(replaced),
        detection,
        None if restored is None else _text(restored),
        restored == original,
    )


def _text(piece: str) -> str:
    """A piece as it is read; a mark alone is a space."""
    return piece.removeprefix(_WORD_BEGINS) or "␣"


def _summary(tokens: Sequence[Token]) -> str:
    masked = [token for token in tokens if token.masked]
    replaced = [token for token in tokens if token.replaced]
    parts = [f"{len(masked)} of {len(tokens)} tokens masked, {len(replaced)} replaced"]
    if any(token.belief is not None for token in tokens):
        found = sum(token.verdict == "found" for token in tokens)
        alarms = sum(token.verdict == "false alarm" for token in tokens)
        parts.append(f"RTD found {found} of {len(replaced)}, with {alarms} false alarm{'s' * (alarms != 1)}")
    restored = sum(token.restored_right for token in masked)
    parts.append(f"the decoder has {restored} of {len(masked)} right")
    return "; ".join(parts) + "."
