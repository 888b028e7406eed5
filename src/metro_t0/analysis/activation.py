"""Neural activation: which feed-forward units fire, counted by hooks while a model runs in anyone's loop.

    with ActivationCounter(model) as counter:
        for batch in batches:
            model(**batch)                       # any call of the stacks: a forward pass, generate, a training step
    for layer in counter.summary():
        layer.stack, layer.layer, layer.share    # "encoder", 0, 0.031: 3.1 % of units fire at a token

A unit fires where it is above 0 before the ReLU, which is where it is not 0 after it. The share of units that fire,
averaged over tokens, is the definition of "The Lazy Neuron Phenomenon" (arXiv 2210.06313); the METRO-T0 paper's own is
not published. Counted are tokens that are not padding, which the counter reads off each call of a stack; where a call
asks for the last layer's states at some positions alone, that layer counts these.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import numpy as np
import torch
from torch import nn

from metro_t0.analysis.statistics import gini, normalized_entropy
from metro_t0.modeling.layers import FeedForward
from metro_t0.modeling.stacks import Decoder, Encoder

_NAMES = {"auxiliary.encoder": "auxiliary"}
_QUANTILES = np.linspace(0.0, 1.0, 33)


@dataclass
class LayerCounts:
    """What is counted of one layer; sums over processes or devices are sums of these.

    Attributes:
        stack: ``encoder``, ``decoder`` or ``auxiliary``.
        layer: from 0.
        fired: int64 ``[units]``, tokens at which each unit fired, on the model's device.
        tokens: int64 scalar, tokens seen, on the model's device.
    """

    stack: str
    layer: int
    fired: torch.Tensor
    tokens: torch.Tensor


@dataclass(frozen=True)
class LayerActivation:
    """One layer's activation.

    Attributes:
        stack: ``encoder``, ``decoder`` or ``auxiliary``.
        layer: from 0.
        share: share of the units that fire, 0-1, averaged over tokens.
        units: how many there are.
        tokens: how many were seen.
        dead: units that fired at no token.
        always_on: units that fired at every token.
        gini: of the units' rates of firing; 0 where all fire equally often.
        entropy: of the units' rates as shares of their sum, over its most; 1 where all fire equally often.
        rates: 33 quantiles of the units' rates of firing, 0-1, ascending.
    """

    stack: str
    layer: int
    share: float
    units: int
    tokens: int
    dead: int
    always_on: int
    gini: float
    entropy: float
    rates: tuple[float, ...]


class ActivationCounter:
    """Hooks on every feed-forward layer, for as long as the ``with`` block lasts.

    Takes one int64 a unit and computes nothing on the host before :meth:`summary`. Layers recomputed by activation
    checkpointing count once. Layers compiled by torch.compile run uncompiled meanwhile, since they would call no hooks.

    Raises:
        ValueError: the model has no feed-forward layers of METRO-T0's kind.
    """

    def __init__(self, model: nn.Module) -> None:
        stacks = {
            _NAMES.get(name, name): module
            for name, module in model.named_modules()
            if isinstance(module, Encoder | Decoder)
        }
        if not stacks:
            raise ValueError(
                f"{type(model).__name__} has no stack of METRO-T0's layers: activation is counted in networks of this "
                "package and published METRO-T0 models alone"
            )
        self._stacks = [(module, _StackCounter(name, module)) for name, module in stacks.items()]
        self._open = ExitStack()

    @property
    def layers(self) -> list[LayerCounts]:
        """The counts themselves, layer by layer, those without a token too."""
        return [counts for _, stack in self._stacks for counts in stack.layers]

    def __enter__(self) -> Self:
        for module, stack in self._stacks:
            self._hold(module.register_forward_pre_hook(stack.begin, with_kwargs=True))
            self._hold(module.register_forward_hook(stack.end, always_call=True))
            for counts, feed_forward in zip(stack.layers, stack.feed_forwards, strict=True):
                self._hold(feed_forward.wi.register_forward_hook(stack.counting(counts)))
        if any(block._compiled_call_impl for module, _ in self._stacks for block in module.block):
            self._open.enter_context(torch.compiler.set_stance("force_eager"))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def _hold(self, handle: Any) -> None:
        self._open.callback(handle.remove)

    def summary(self) -> list[LayerActivation]:
        """Each layer that saw a token, encoder first; waits for the device."""
        return [summarize(counts) for counts in self.layers if int(counts.tokens)]


def summarize(counts: LayerCounts) -> LayerActivation:
    """The figures of one layer that saw at least one token."""
    fired, tokens = counts.fired.cpu().numpy(), int(counts.tokens)
    rates = fired / tokens
    return LayerActivation(
        counts.stack,
        counts.layer,
        float(rates.mean()),
        len(fired),
        tokens,
        int((fired == 0).sum()),
        int((fired == tokens).sum()),
        gini(rates),
        normalized_entropy(rates),
        tuple(float(rate) for rate in np.quantile(rates, _QUANTILES)),
    )


class _StackCounter:
    """One stack's counts, and which of the tokens of the call that is running are real."""

    def __init__(self, name: str, module: Encoder | Decoder) -> None:
        self.feed_forwards = [part for part in module.modules() if isinstance(part, FeedForward)]
        self.layers = [
            LayerCounts(name, index, *_zeros(part)) for index, part in enumerate(self.feed_forwards)
        ]
        self._signature = inspect.signature(type(module).forward)
        self._running = False
        # ``[B, T]`` at the whole sequence and ``[B, M]`` at the positions asked for, or None: all are real.
        self._real: torch.Tensor | None = None
        self._real_at_positions: torch.Tensor | None = None

    def begin(self, module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        call = self._signature.bind(module, *arguments, **keywords).arguments
        padding = module.config.pad_token_id if isinstance(module, Decoder) else None
        self._real = _real_tokens(call, padding)
        self._real_at_positions = _at_positions(self._real, call.get("positions"))
        self._running = True

    def end(self, *_: Any) -> None:
        self._running, self._real, self._real_at_positions = False, None, None

    def counting(self, counts: LayerCounts) -> Callable[..., None]:
        """A hook for this layer's ``wi``."""
        is_last = counts is self.layers[-1]

        @torch.no_grad()
        def count(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
            # Activation checkpointing runs layers again outside their stack's call.
            if not self._running:
                return
            real = self._real
            if is_last and self._real_at_positions is not None:
                real = self._real_at_positions
            fires = output > 0
            if real is None:
                tokens: torch.Tensor | int = output.shape[:-1].numel()
            else:
                fires = fires & real.unsqueeze(-1)
                tokens = real.expand(output.shape[:-1]).sum()
            # A model may have moved since the counter was made.
            counts.fired = counts.fired.to(output.device) + fires.flatten(0, -2).sum(dim=0)
            counts.tokens = counts.tokens.to(output.device) + tokens

        return count


def _zeros(feed_forward: FeedForward) -> tuple[torch.Tensor, torch.Tensor]:
    device = feed_forward.wi.weight.device
    units = feed_forward.wi.out_features
    return torch.zeros(units, dtype=torch.int64, device=device), torch.zeros(
        (), dtype=torch.int64, device=device
    )


def _real_tokens(call: Mapping[str, Any], padding: int | None) -> torch.Tensor | None:
    """Which tokens of a stack's call are not padding, ``[B or 1, T]``, or None where all are, as the stack has it.

    Args:
        call: the stack's arguments by name.
        padding: id of padding, for a decoder, which tells it by the ids where nothing else says it.
    """
    mask, places, ids = call.get("attention_mask"), call.get("position_ids"), call.get("input_ids")
    if places is not None:
        return places >= 0
    if mask is not None and mask.dim() == 2:
        tokens = ids if ids is not None else call["inputs_embeds"]
        return mask[:, -tokens.shape[1] :].bool()
    if padding is not None and ids is not None:
        return ids.ne(padding)
    return None


def _at_positions(real: torch.Tensor | None, positions: torch.Tensor | None) -> torch.Tensor | None:
    """Which of the positions ``[B, M]`` count: real ones, each once (a row that needs fewer repeats its last)."""
    if positions is None:
        return None
    first = torch.ones_like(positions, dtype=torch.bool)
    first[:, 1:] = positions[:, 1:] != positions[:, :-1]
    return first if real is None else first & real.expand(len(positions), -1).gather(1, positions)
