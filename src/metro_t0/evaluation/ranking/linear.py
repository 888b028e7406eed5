"""Linear layers on a CPU with AVX-512 by oneDNN: on some processors more than twice as fast as torch's choice.

    with torch.inference_mode(), quick_linear():
        model(...)                                     # the same float32 sums, in another order

In float32 torch asks the BLAS that it was built with, MKL, which reached 110 GFLOP/s a core on an AMD EPYC at the
shapes of METRO-T0 base, where oneDNN, which torch carries too, reached 250.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode


def quick_linear() -> AbstractContextManager[Any]:
    """Linear layers in the block, in this thread and without gradients, by the quicker library where there is one."""
    has_it = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
    return _ByOneDnn() if has_it and torch.backends.cpu.get_cpu_capability() == "AVX512" else nullcontext()


class _ByOneDnn(TorchFunctionMode):
    """Catches ``F.linear`` of float32 matrices on the CPU."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is F.linear and not kwargs and _is_plain(args[0]) and _is_plain(args[1]):
            bias = args[2] if len(args) > 2 else None
            try:
                return torch.ops.mkldnn._linear_pointwise(args[0], args[1], bias, "none", [], "")
            except RuntimeError as error:
                # oneDNN found no room for its machine code; it may not look again when there is some.
                if "could not create a primitive" not in str(error):
                    raise
        return func(*args, **(kwargs or {}))


def _is_plain(tensor: torch.Tensor) -> bool:
    return (
        tensor.device.type == "cpu"
        and tensor.dtype == torch.float32
        and tensor.layout == torch.strided
        and tensor.numel() > 0
        and not (tensor.requires_grad and torch.is_grad_enabled())
    )
