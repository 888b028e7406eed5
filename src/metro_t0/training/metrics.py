"""What a run measures of itself: accumulated on the device, read once a log step, written as ``metrics.jsonl``.

meter = Meter(device, Utilization(flops_per_token=1.6e9, peak=989e12))
meter.add(tokens=1000, real=1000, processed=1100, waited=0.01)      # host numbers only
meter.read(seconds)                      # {"tokens_per_second": ..., "mfu": ..., ...}

log = TrainingLog(watched=("lm_loss", "loss", "gradient"), limit=0)
log.add(tally, step)                     # tensors only
values = log.read(step)                  # one synchronisation; raises NonFiniteError over the limit
file.append({"kind": "train", "step": step, **values})
"""

from __future__ import annotations

import json
import math
import os
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
        norms = {"gradient_norm": tally.norms.total}
        norms |= {f"gradient_norm_{part}": norm for part, norm in tally.norms.parts.items()}
        more = torch.stack([tally.loss, *(norm.double() for norm in norms.values())])
        values = torch.cat([tally.totals, torch.stack([more, torch.ones_like(more)], dim=1)])
        names = (*tally.names, "loss", *norms)
        if self._names != names:
            # The first update, or a checkpoint of a version that logged less; that part of a window is let go.
            self._names, self._window = names, torch.zeros_like(values)
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


@dataclass(frozen=True)
class Utilization:
    """What model FLOPs utilisation (MFU) is measured by.

    Attributes:
        flops_per_token: of training one real token (see plan/flops.py).
        peak: operations a second that the hardware could do, of all devices together.
    """

    flops_per_token: float
    peak: float


class Meter:
    """Speed, padding, waiting and memory since the last log step, from the host's clock and counts alone.

    Args:
        device: whose memory is told; a CPU's is that of the process.
        utilization: None = no MFU.
    """

    def __init__(self, device: torch.device, utilization: Utilization | None = None) -> None:
        self._device, self._utilization = device, utilization
        self._tokens, self._real, self._processed, self._waited, self._since = 0, 0, 0, 0.0, 0.0

    def add(self, tokens: int, real: int, processed: int, waited: float) -> None:
        """One update.

        Args:
            tokens: real ones of all processes.
            real, processed: of this process, without padding and with it; the others' shares are like it.
            waited: seconds until the rows were there.
        """
        self._tokens += tokens
        self._real += real
        self._processed += processed
        self._waited += waited

    def read(self, stepping: float) -> dict[str, float | None]:
        """Values since the last log step, and begin anew.

        Args:
            stepping: seconds that all updates so far took, validations and saves left out.
        """
        seconds = max(stepping - self._since, 1e-9)
        speed = self._tokens / seconds
        real_share = self._real / self._processed
        values: dict[str, float | None] = {
            "tokens_per_second": round(speed, 1),
            "processed_tokens_per_second": round(speed / real_share, 1),
            "padding_share": 1.0 - real_share,
            "data_wait_share": min(1.0, self._waited / seconds),
            "peak_memory_bytes": peak_memory(self._device),
        }
        if self._utilization is not None:
            values["mfu"] = self._utilization.flops_per_token * speed / self._utilization.peak
        self._tokens, self._real, self._processed, self._waited, self._since = 0, 0, 0, 0.0, stepping
        return values

    def state_dict(self) -> dict[str, Any]:
        """What has been taken in and not been read yet, as plain values."""
        return {
            "tokens": self._tokens,
            "real": self._real,
            "processed": self._processed,
            "waited": self._waited,
            "since": self._since,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where ``state_dict`` was taken."""
        self._tokens, self._real, self._processed = state["tokens"], state["real"], state["processed"]
        self._waited, self._since = state["waited"], state["since"]


def peak_memory(device: torch.device) -> int:
    """Most bytes held at once so far: a GPU's by torch's allocator, on a CPU the resident memory of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Kilobytes, but for macOS.
    return most if sys.platform == "darwin" else most * 1024


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
