"""Activation checkpointing: a layer keeps only its input, and computes the rest anew in the backward pass.

    checkpoint_activations(model)        # training.activation_checkpointing=true

About a third more time for a fraction of the memory (``metro-t0 plan`` says how much of each): the way to fit large
micro-batches of ``large++`` on one GPU. The update is the same, bit for bit on a CPU: random states are put back for
the recomputation, so that dropout drops the same again.
"""

from __future__ import annotations

from transformers import PreTrainedModel


def checkpoint_activations(model: PreTrainedModel) -> None:
    """Have every layer of encoder, decoder and auxiliary model recompute while it trains."""
    # Non-reentrant: the layers' inputs need no gradient of their own, and parameters may be sharded.
    kwargs = {"use_reentrant": False}
    if hasattr(model, "activation_checkpointing_enable"):
        model.activation_checkpointing_enable(kwargs)
    else:  # its name before transformers 5.23
        model.gradient_checkpointing_enable(kwargs)
