"""AdamW as the recipe has it, and an update that skips itself when something is not finite.

    optimizer = build_optimizer(model.parameters(), settings)
    set_learning_rate(optimizer, learning_rate_at(step, steps, warmup_steps, peak))
    apply_update(optimizer, norm, skip, clip_norm)      # skip: a tensor on the device, nothing waits for it

torch's fused AdamW reads two attributes that ``torch.amp.GradScaler`` otherwise sets on it: ``found_inf`` (1 leaves
parameters, moments and the step count as they are) and ``grad_scale`` (gradients are divided by it in the same pass).
Skipping and clipping so cost neither a synchronisation with the host nor a pass over the gradients.
tests/training/test_optimizer.py holds torch to it on a CPU (checked on 2.13).

Facts: RECIPE 3.1, official ``fairseq/optim/adam.py`` and ``lr_scheduler/polynomial_decay_schedule.py``.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from metro_t0.config import OptimizerSettings


def build_optimizer(parameters: Iterable[nn.Parameter], settings: OptimizerSettings) -> torch.optim.AdamW:
    """Fused AdamW with decoupled weight decay on all parameters, biases and LayerNorms included, as the recipe has it.

    The official Adam adds epsilon before it corrects the bias of the second moment, torch after: the two differ only
    where gradients are near 1e-6.
    """
    return torch.optim.AdamW(
        [parameter for parameter in parameters if parameter.requires_grad],
        lr=settings.learning_rate,
        betas=settings.betas,
        eps=settings.epsilon,
        weight_decay=settings.weight_decay,
        fused=True,
    )


def learning_rate_at(step: int, steps: int, warmup_steps: int, peak: float) -> float:
    """Rate of update ``step`` (from 1): a linear warm-up to ``peak``, then a linear decay to 0 after the last.

    The official schedule counts updates from 0, so that its first one has rate 0; here none is lost.
    """
    warmup_steps = max(1, warmup_steps)
    if step <= warmup_steps:
        return peak * step / warmup_steps
    return peak * max(0, steps - step + 1) / (steps - warmup_steps + 1)


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set every group's rate for the next update."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def apply_update(
    optimizer: torch.optim.Optimizer, norm: torch.Tensor, skip: torch.Tensor, clip_norm: float
) -> None:
    """One step of a fused optimizer, clipped, or none at all.

    Args:
        optimizer: fused, on the gradients as they are.
        norm: of all gradients (see gradient_norms.py).
        skip: scalar, true or 1 to leave everything as it is; may lie on the device.
        clip_norm: largest norm; 0 = no clipping.
    """
    state = vars(optimizer)
    state["found_inf"] = skip.to(torch.float32)
    # The clipping of nn.utils.clip_grad_norm_ and of fairseq, as a division.
    state["grad_scale"] = ((norm + 1e-6) / clip_norm).clamp(min=1.0).float() if clip_norm > 0 else None
    try:
        optimizer.step()
    finally:
        del state["found_inf"], state["grad_scale"]
