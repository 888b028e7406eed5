"""A METRO run's signals, made up: reliability bins, activation by layer, gradient norms by part, samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from evaluation_folders import HOSTILE, write_lines, write_run

POINTS = (0, 50, 300, 600)
PARTS = ("embeddings", "encoder", "decoder", "auxiliary", "detection_head")
# What happened to each token: (original, written or None where not masked, probability at the end, restored).
STORY: tuple[tuple[str, str | None, float, str | None], ...] = (
    ("▁the", None, 0.02, None),
    ("▁heart", "▁head", 0.91, "▁heart"),  # found, and restored
    ("▁is", None, 0.04, None),
    ("▁a", "▁a", 0.08, "▁a"),  # masked, but the same
    ("▁pump", "▁muscle", 0.22, "▁part"),  # missed, and restored wrongly
    ("s", None, 0.71, None),  # a false alarm
    ("▁" + HOSTILE, "▁" + HOSTILE[::-1], 0.55, "<b>bold</b>"),
)


def sample_row(done: float) -> dict[str, Any]:
    """The story at a share of the run; at its start nothing is known."""
    originals, written, beliefs, restored = (list(column) for column in zip(*STORY, strict=True))
    return {
        "original": originals,
        "masked": [word is not None for word in written],
        "replaced": [None if w in (None, o) else w for o, w in zip(originals, written, strict=True)],
        "detection": [round(0.5 + (p - 0.5) * done, 3) for p in beliefs],
        "restored": restored,
    }


def write_signal_run(path: Path, *, layers: int = 12) -> Path:
    """A run directory with every signal; the head believes too little at first, then what is so."""
    write_run(path, objective="metro")
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    for record in records:
        done = record["step"] / 600
        record |= {"rtd_precision": 0.5 + 0.3 * done, "lm_loss_replaced": 6 - done, "lm_loss_kept": 2 - done}
        if record["kind"] == "train":
            record |= {
                f"gradient_norm_{part}": (place + 1) * np.exp(-done) for place, part in enumerate(PARTS)
            }
            continue
        for k in range(10):
            predicted, share = (k + 0.5) / 10, 0.9 if k == 0 else 0.1 / 8 if k < 9 else 0.0
            record |= {f"rtd_bin_share_{k}": share, f"rtd_predicted_{k}": predicted if share else None}
            record[f"rtd_observed_{k}"] = min(1.0, predicted + 0.04 * (1 - done)) if share else None
        for stack, number in (("encoder", layers), ("decoder", layers), ("auxiliary", 1)):
            for layer in range(number):
                share = 0.5 - 0.4 * done * (layer + 1) / number
                record[f"activation_share_{stack}_{layer}"] = share
    write_lines(path / "metrics.jsonl", records)
    points = [
        {"step": step, "tokens": 4096 * step, "rows": [sample_row(step / 600), sample_row(step / 1200)]}
        for step in POINTS
    ]
    write_lines(path / "samples.jsonl", points)
    return path
