"""Layers compiled one by one by ``torch.compile``, or a loud line that says why they are not.

    compile_layers(model, say=console.print)        # training.compile_layers=true

All layers of a kind share one compiled program, so that starting takes seconds, not minutes; what is around them
(heads, losses) stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn
from transformers import PreTrainedModel

from metro_t0.modeling.layers import DecoderBlock, EncoderBlock


def compile_layers(model: PreTrainedModel, say: Callable[[str], object]) -> bool:
    """Compile every encoder and decoder layer in place; tried on the first encoder layer before it is done.

    Args:
        model: on its device, in training mode.
        say: takes a line where the compiler does not work; training then goes on without it.

    Returns:
        Whether layers are compiled.
    """
    blocks = [module for module in model.modules() if isinstance(module, EncoderBlock | DecoderBlock)]
    first = next(block for block in blocks if isinstance(block, EncoderBlock))
    try:
        first.compile(dynamic=True)
        _try_out(first, model.config.d_model)
    except Exception as error:  # whatever a compiler, its C++ or its Triton may raise
        reason = " ".join(str(error).split())[:160]
        say(f"training.compile_layers: this machine cannot compile, layers run as they are ({reason})")
        first._compiled_call_impl = None
        return False
    for block in blocks:
        block.compile(dynamic=True)
    return True


def _try_out(block: nn.Module, width: int) -> None:
    """One forward and backward pass on numbers that say nothing; gradients are as before afterwards."""
    parameter = next(block.parameters())
    states = torch.zeros(2, 16, width, device=parameter.device, dtype=parameter.dtype)
    buckets = torch.zeros(32, device=parameter.device, dtype=torch.long)
    output, _ = block(states, None, buckets)
    torch.autograd.grad(output.sum(), list(block.parameters()), allow_unused=True)
