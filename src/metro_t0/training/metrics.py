"""What a run measures of itself: accumulated on the device, read once a log step, written as ``metrics.jsonl``.

log = TrainingLog(watched=("lm_loss", "loss", "gradient"), limit=0)
log.add(tally, step)                     # tensors only
values = log.read(step)                  # one synchronisation; raises NonFiniteError over the limit
file.append({"kind": "train", "step": step, **values})
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from metro_t0.training.update import StepTally


class NonFiniteError(ValueError):
    """More updates than the limit allows had a loss or a gradient that is not finite."""


class TrainingLog:
    """Metrics since the last log step, and the count of skipped updates, both on the device.

    A skipped update counts in no metric: one not-a-number would make the whole window one.

    Args:
        watched: names of the parts that ``StepTally.nonfinite`` tells of, in its order.
        limit: how many updates may be skipped.
    """

    def __init__(self, watched: Sequence[str], limit: int) -> None:
        self._watched, self._limit = tuple(watched), limit
        self._names: tuple[str, ...] = ()
        self._window = torch.zeros(0, 2, dtype=torch.float64)
        # Number of skipped updates, then the first step at which each part was not finite (0 = never).
        self._skips = torch.zeros(1 + len(self._watched), dtype=torch.float64)

    def add(self, tally: StepTally, step: int) -> None:
        """Take in one update without waiting for it."""
        one = torch.ones_like(tally.loss)
        more = torch.stack([torch.stack([tally.loss, one]), torch.stack([tally.norm.double(), one])])
        values = torch.cat([tally.totals, more])
        if not self._names:
            self._names = (*tally.names, "loss", "gradient_norm")
            self._window = torch.zeros_like(values)
        assert len(self._names) == len(values), "an objective names the same metrics at every step"
        self._window = self._window.to(values.device)
        self._skips = self._skips.to(values.device)
        skipped = tally.nonfinite.any()
        self._window += values.masked_fill(skipped, 0.0)
        self._skips[0] += skipped
        first = self._skips[1:]
        first.copy_(torch.where(tally.nonfinite & (first == 0), float(step), first))

    def read(self) -> dict[str, float | None]:
        """Values since the last log step, and begin anew.

        Raises:
            NonFiniteError: over the limit.
        """
        self.check()
        values = {
            name: total / count if count else None
            for name, (total, count) in zip(self._names, self._window.tolist(), strict=True)
        }
        self._window.zero_()
        return values

    def check(self) -> None:
        """Compare the skipped updates with the limit; waits for the device.

        Raises:
            NonFiniteError: over the limit; names the first step and its parts.
        """
        skipped, *first = (int(value) for value in self._skips.tolist())
        if skipped <= self._limit:
            return
        step = min(value for value in first if value)
        parts = [name for name, value in zip(self._watched, first, strict=True) if value == step]
        causes = [name for name in parts if name not in {"loss", "gradient"}] or parts[:1]
        raise NonFiniteError(
            f"{skipped} {'update' if skipped == 1 else 'updates'} with values that are not finite, "
            f"{self._limit} allowed (training.max_nonfinite): first at step {step}, in {' and '.join(causes)}"
        )

    @property
    def skipped(self) -> int:
        """Updates skipped so far; waits for the device."""
        return int(self._skips[0])

    def state_dict(self) -> dict[str, Any]:
        """What has been taken in and not been read yet, and the skips, as plain values."""
        return {
            "names": list(self._names),
            "window": self._window.tolist(),
            "skips": self._skips.tolist(),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._names = tuple(state["names"])
        self._window = torch.tensor(state["window"], dtype=torch.float64).reshape(-1, 2)
        self._skips = torch.tensor(state["skips"], dtype=torch.float64)


class MetricsFile:
    """``metrics.jsonl``: one JSON object a line, in the order of steps.

    Args:
        path: of the file.
        keep_until: lines of later steps are dropped, so that a resumed run's file reads as one run's.
    """

    def __init__(self, path: Path, keep_until: int = 0) -> None:
        kept = [line for line in _complete_lines(path) if json.loads(line)["step"] <= keep_until]
        aside = path.with_name(f".{path.name}.partial")
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(kept)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
        self._file = path.open("a", encoding="utf-8")

    def append(self, values: Mapping[str, Any]) -> None:
        """Write one line; a number that is not finite, which JSON cannot hold, becomes null."""
        line = {
            key: None if isinstance(value, float) and not math.isfinite(value) else value
            for key, value in values.items()
        }
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _complete_lines(path: Path) -> list[str]:
    """Lines that end and parse; a killed process may have left half a line."""
    if not path.exists():
        return []
    lines = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
        try:
            json.loads(line)
        except ValueError:
            continue
        if line.endswith("\n"):
            lines.append(line)
    return lines
