"""What accelerators can do, from their makers' sheets, and what this machine can, measured.

    device = find_device("h100")                 # or "here"
    device.peak_flops, device.memory, device.hardware

Rates are dense matrix products in bfloat16 with float32 sums; sheets often print twice as much, for sparse matrices.
"""

from __future__ import annotations

import difflib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from metro_t0.training.plan.memory import Hardware

HERE = "here"
USABLE_SHARE = 0.9
"""Of a device's memory; the rest is left to its context, communication buffers and fragments."""

Precision = Literal["auto", "fp32", "bf16"]
_DTYPES: dict[Literal["fp32", "bf16"], torch.dtype] = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TRIAL_SECONDS = 0.4


@dataclass(frozen=True)
class Device:
    """One kind of device.

    Attributes:
        name: as ``find_device`` takes it.
        peak_flops: matrix products a second, in operations.
        memory: bytes.
        hardware: how it computes.
    """

    name: str
    peak_flops: float
    memory: float
    hardware: Hardware

    @property
    def usable(self) -> float:
        """Bytes that a training step may take."""
        return USABLE_SHARE * self.memory


# TFLOP/s in bf16 and memory in GiB.
_SHEETS: dict[str, tuple[float, int]] = {
    # NVIDIA A100 Tensor Core GPU datasheet: BFLOAT16 Tensor Core 312 TFLOPS; 40 and 80 GB.
    "a100-40gb": (312, 40),
    "a100-80gb": (312, 80),
    # NVIDIA H100 Tensor Core GPU datasheet, SXM: 1,979 TFLOPS with sparsity, half without; 80 GB.
    "h100": (989, 80),
    # NVIDIA H200 Tensor Core GPU datasheet, SXM: as H100; 141 GB (10^9).
    "h200": (989, 131),
    # NVIDIA DGX B200 datasheet: 8 GPUs, 36 PFLOPS BF16 with sparsity, 1,440 GB (10^9).
    "b200": (2250, 167),
    # NVIDIA L40S datasheet: 733 TFLOPS with sparsity; 48 GB.
    "l40s": (366, 48),
    # NVIDIA Ada GPU architecture whitepaper, table of GeForce RTX 4090: BF16 Tensor 165.2 TFLOPS; 24 GB.
    "rtx4090": (165, 24),
    # NVIDIA Ampere GA102 whitepaper, table of GeForce RTX 3090: BF16 Tensor 71 TFLOPS; 24 GB.
    "rtx3090": (71, 24),
}


def device_names() -> list[str]:
    """What ``find_device`` knows."""
    return [*_SHEETS, HERE]


def find_device(name: str, precision: Precision = "auto") -> Device:
    """A device by its kind; ``here`` is measured, which takes a second.

    Args:
        name: one of ``device_names()``.
        precision: of the run; ``auto`` is bfloat16 on a GPU, the faster of the two on a processor.

    Raises:
        ValueError: there is no such kind (names the nearest), or its rate in float32 is not known.
    """
    if name == HERE:
        return device_here(precision)
    if name not in _SHEETS:
        near = difflib.get_close_matches(name, device_names(), n=1, cutoff=0.0)[0]
        raise ValueError(
            f"there is no device {name!r}; the nearest is {near!r} (all: {', '.join(device_names())})"
        )
    if precision == "fp32":
        raise ValueError(
            f"the rate of {name} is known in bf16 only: set training.precision=bf16, or measure with --device here"
        )
    teraflops, gibibytes = _SHEETS[name]
    return Device(name, teraflops * 1e12, gibibytes * 2.0**30, Hardware("cuda", "bf16"))


def device_here(precision: Precision = "auto") -> Device:
    """This machine's GPU if it has one, else its processor."""
    if torch.cuda.is_available():
        gpu: Literal["fp32", "bf16"] = "fp32" if precision == "fp32" else "bf16"
        rate = matrix_rate(torch.device("cuda"), _DTYPES[gpu], size=8192)
        return Device(HERE, rate, torch.cuda.mem_get_info()[1], Hardware("cuda", gpu))
    tried = tuple(_DTYPES) if precision == "auto" else (precision,)
    rates = {each: matrix_rate(torch.device("cpu"), _DTYPES[each], size=1024) for each in tried}
    fastest = max(tried, key=lambda each: rates[each])
    return Device(HERE, rates[fastest], _free_memory(), Hardware("cpu", fastest))


def matrix_rate(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Operations a second of the fastest of some products of two square matrices."""
    left = torch.ones(size, size, device=device, dtype=dtype)
    right = torch.ones(size, size, device=device, dtype=dtype)

    def multiply() -> None:
        torch.mm(left, right)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    multiply()
    begun = time.perf_counter()
    seconds = [_seconds(multiply)]
    while time.perf_counter() - begun < _TRIAL_SECONDS:
        seconds.append(_seconds(multiply))
    return 2.0 * size**3 / min(seconds)


def _seconds(work: Callable[[], None]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _free_memory() -> float:
    """Bytes that programs can still take; all there is where the system does not say."""
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024.0
    return float(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
