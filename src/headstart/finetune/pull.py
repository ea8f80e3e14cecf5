"""L2-SP (Li et al. 2018): the pull of trained parameters towards their initial values, decoupled as in AdamW."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from headstart.finetune.freeze import TrainingPlan
from headstart.finetune.network import Network


@dataclass(frozen=True)
class Pull:
    """Parameters and their initial values, in groups of equal factor of the learning rate."""

    groups: tuple[tuple[float, list[Tensor], list[Tensor]], ...]

    @classmethod
    def of(cls, parameters: Mapping[str, Tensor], initial: Mapping[str, Tensor], plan: TrainingPlan) -> Pull:
        """Make it for the parameters that an epoch trains; ``initial`` has their initial values."""
        groups: dict[float, tuple[list[Tensor], list[Tensor]]] = {}
        for name, parameter in parameters.items():
            group = groups.setdefault(plan.lr_scales[name], ([], []))
            group[0].append(parameter)
            group[1].append(initial[name])
        return cls(tuple((scale, *group) for scale, group in groups.items()))

    def __call__(self, share: float) -> None:
        """Move each parameter this share, times its factor of the learning rate, of the way."""
        for scale, parameters, initial in self.groups:
            torch._foreach_lerp_(parameters, initial, share * scale)


def initial_values(network: Network, plan: TrainingPlan) -> dict[str, Tensor]:
    """Return the initial values of the trained parameters, on their device and in their memory format."""
    parameters = dict(network.named_parameters())
    return {name: torch.empty_like(parameters[name]).copy_(plan.initial[name]).detach() for name in plan.lr_scales}
