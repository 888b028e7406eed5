"""Parameter sensitivity: how much of the loss each parameter answers for, to first order, in anyone's training loop.

    meter = SensitivityMeter(model)
    for batch in batches:
        model.zero_grad()
        loss_of(model, batch).backward()
        meter.add()                                  # before the optimizer's step, gradients are left as they are
    found = meter.summary()
    found.gini, found.share_for_half, found.groups[0].mass

A parameter's sensitivity is the mean over batches of ``|θ · ∂L/∂θ|``: by how much the batch's loss would change, to
first order, were the parameter zero ("No Parameters Left Behind", arXiv 2202.02664; the METRO-T0 paper's own
definition is not published). A gradient is that of a batch's mean loss, so that figures of different batch sizes are
not compared with each other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from metro_t0.analysis.parameters import Group, parameter_groups
from metro_t0.analysis.statistics import MagnitudeHistogram

LORENZ_POINTS = 51
_TOP_SHARES = (0.001, 0.01, 0.1)
_AT_ONCE = 1 << 22


@dataclass(frozen=True)
class GroupSensitivity:
    """One group's part.

    Attributes:
        stack, layer, kind: which parameters, see ``parameters.Group``.
        parameters: how many numbers.
        mass: sum of their sensitivities, in nats.
        gini: of their sensitivities.
        share_for_half: the least share of them, 0-1, that holds half of the mass.
    """

    stack: str
    layer: int | None
    kind: str
    parameters: int
    mass: float
    gini: float
    share_for_half: float


@dataclass(frozen=True)
class Sensitivity:
    """Of all parameters that had a gradient.

    Attributes:
        parameters: how many numbers.
        batches: over how many batches the mean goes.
        mass: sum of all sensitivities, in nats.
        gini: of all sensitivities; 0 where all parameters answer for as much.
        share_for_half: the least share of them, 0-1, that holds half of the mass; 0.5 at most.
        held_by_top: what the most sensitive hold of the mass, 0-1, by their share of all as text.
        lorenz: what the least sensitive 0 %, 2 %, ... 100 % hold of the mass.
        groups: in the order of the network.
    """

    parameters: int
    batches: int
    mass: float
    gini: float
    share_for_half: float
    held_by_top: Mapping[str, float]
    lorenz: tuple[float, ...]
    groups: tuple[GroupSensitivity, ...]


@dataclass(frozen=True)
class FirstOrder:
    """What first order says about zeroing a group, as means over batches.

    Attributes:
        mass: sum of ``|θ · ∂L/∂θ|``, in nats.
        change: by how much the loss would grow, ``-Σ θ · ∂L/∂θ``, in nats.
    """

    mass: float
    change: float


class SensitivityMeter:
    """Adds up ``|θ · ∂L/∂θ|`` in one float32 number a parameter, and in sums a group and batch.

    A tied parameter is one. Parameters that never had a gradient are in no figure. Beside the network and its gradients
    it takes one more copy of the weights and, for a moment, 16 MiB.

    Raises:
        ValueError: the network is not of METRO-T0's kind.
    """

    def __init__(self, model: nn.Module) -> None:
        self._groups = parameter_groups(model)
        self._scores: dict[nn.Parameter, torch.Tensor] = {}
        self._sums: list[torch.Tensor] = []

    @torch.no_grad()
    def add(self) -> None:
        """Add the gradients that are there now, those of one batch; nothing is computed on the host."""
        sums = []
        for parameters in self._groups.values():
            of_group = [self._add(parameter) for parameter in parameters if parameter.grad is not None]
            device = parameters[0].device
            sums.append(torch.stack(of_group).sum(dim=0) if of_group else torch.zeros(2, device=device))
        self._sums.append(torch.stack(sums))

    def _add(self, parameter: nn.Parameter) -> torch.Tensor:
        """Sum of the magnitudes of the products, and the sum of the products, ``[2]``."""
        assert parameter.grad is not None
        if parameter not in self._scores:
            self._scores[parameter] = torch.zeros(parameter.numel(), device=parameter.device)
        flat = (part.reshape(-1).split(_AT_ONCE) for part in (parameter.detach(), parameter.grad))
        sums = torch.zeros(2, device=parameter.device)
        for score, weights, gradient in zip(self._scores[parameter].split(_AT_ONCE), *flat, strict=True):
            product = weights.float() * gradient.float()
            sums[1] += product.sum()
            score += product.abs_()
            sums[0] += product.sum()
        return sums

    def first_order(self, batches: int | None = None) -> dict[Group, FirstOrder]:
        """Of each group with a gradient, over the first so many batches; all unless given."""
        means = torch.stack(self._sums[:batches]).double().mean(dim=0).tolist()
        return {
            group: FirstOrder(mass, -total)
            for (group, parameters), (mass, total) in zip(self._groups.items(), means, strict=True)
            if any(parameter in self._scores for parameter in parameters)
        }

    def summary(self) -> Sensitivity:
        """The figures; one group is looked at a time.

        Raises:
            ValueError: no gradient was added, or one was not finite.
        """
        if not self._scores:
            raise ValueError("no gradient was added: call add() after the loss's backward()")
        everything = MagnitudeHistogram()
        groups = []
        for group, parameters in self._groups.items():
            scores = [self._scores[parameter] for parameter in parameters if parameter in self._scores]
            if scores:
                histogram = self._histogram(group, scores)
                everything.merge(histogram)
                groups.append(
                    GroupSensitivity(
                        group.stack,
                        group.layer,
                        group.kind,
                        histogram.count,
                        histogram.total,
                        histogram.gini(),
                        histogram.share_for_half(),
                    )
                )
        return Sensitivity(
            everything.count,
            len(self._sums),
            everything.total,
            everything.gini(),
            everything.share_for_half(),
            {str(share): everything.held_by_top(share) for share in _TOP_SHARES},
            tuple(everything.lorenz_curve(LORENZ_POINTS).tolist()),
            tuple(groups),
        )

    def _histogram(self, group: Group, scores: Sequence[torch.Tensor]) -> MagnitudeHistogram:
        histogram = MagnitudeHistogram()
        for score in scores:
            if not bool(score.isfinite().all()):
                raise ValueError(
                    f"the gradients of {group} are not finite: the network or its loss is broken"
                )
            for piece in score.split(_AT_ONCE):
                histogram.add(piece / len(self._sums))
        return histogram
