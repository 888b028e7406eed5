"""How many feed-forward units fire, layer by layer, while a validation's batches go through the network.

    shares = ActivationShares(parallel.network)
    for batch in batches:
        with shares.counting():
            parallel(batch, normalizers)
    shares.read(parallel.world)              # {"activation_share_encoder_0": 0.12, ...}

What is counted says analysis/activation.py. Nothing is where layers are compiled: counting would have them run
uncompiled, and the validation would no longer be of the network as it trains. Nothing is in foreign networks either.

A decoder reads its target one place to the right: a row as long as its batch loses its last token, a shorter one does
not. So the decoder's shares depend, by less than a token in a row, on which rows go through together, and with that on
the number of processes and on ``training.micro_batch_tokens``; the other stacks' do not.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from metro_t0.analysis.activation import ActivationCounter
from metro_t0.modeling.stacks import Decoder, Encoder
from metro_t0.training.distributed import World


class ActivationShares:
    """Counts in the stacks of a network, if it has such and they are not compiled."""

    def __init__(self, network: nn.Module) -> None:
        modules = list(network.modules())
        ours = any(isinstance(module, Encoder | Decoder) for module in modules)
        compiled = any(getattr(module, "_compiled_call_impl", None) is not None for module in modules)
        self._counter = ActivationCounter(network) if ours and not compiled else None

    def counting(self) -> AbstractContextManager[object]:
        """Around passes that count."""
        return nullcontext() if self._counter is None else self._counter

    def read(self, world: World) -> dict[str, float | None]:
        """The share of firing units by layer, over all tokens of all processes, which all call it."""
        layers = [] if self._counter is None else self._counter.layers
        if not layers:
            return {}
        pairs = [
            torch.stack([layer.fired.sum(), layer.tokens * len(layer.fired)]).double() for layer in layers
        ]
        totals = world.sum(torch.stack(pairs)).tolist()
        return {
            f"activation_share_{layer.stack}_{layer.layer}": fired / units if units else None
            for layer, (fired, units) in zip(layers, totals, strict=True)
        }
