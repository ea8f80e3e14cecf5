"""Which layers are free, how fast each learns, and the proof that the others did not change by a bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from headstart.errors import BackboneError, OptionError
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuning

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


@dataclass(frozen=True)
class Plan:
    """``free`` maps the names of the tensors that are trained to their share of the learning rate, ``depth`` to how
    many stages before the last that is trained; ``start`` holds all tensors as they were loaded; ``norms`` names the
    batch norms that follow their batches; ``first`` the first layer."""

    free: Mapping[str, float]
    depth: Mapping[str, int]
    start: Mapping[str, Tensor]
    norms: tuple[str, ...]
    first: str

    @property
    def moving(self) -> set[str]:
        """The names of the tensors that training may change: free ones, and statistics that follow the batches."""
        return {*self.free, *(f"{norm}.{each}" for norm in self.norms for each in STATISTICS)}

    def at(self, epoch: int) -> Plan:
        """What learns in an epoch, counted from 1, where one stage more is unfrozen in each."""
        free = {name: share for name, share in self.free.items() if self.depth[name] < epoch}
        return replace(self, free=free, norms=tuple(norm for norm in self.norms if _learns(norm, free)))


def plan(network: Network, how: FineTuning) -> Plan:
    """What is trained: from ``how.unfreeze_from`` on, as far as the head depends on it. Raises OptionError."""
    start = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = first_free(network, how.unfreeze_from)
    picture = torch.zeros(1, network.backbone.preprocess.height, network.backbone.preprocess.width, 3)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    network(picture.to(next(network.parameters()).device, torch.uint8)).sum().backward()
    used = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    network.zero_grad()
    stage = {name: layer.stage for layer in network.layers[first:] for name in layer.tensors if name in used}
    free = {name: how.layer_decay ** (network.stages - 1 - number) for name, number in stage.items()}
    depth = {name: max(stage.values()) - number for name, number in stage.items()}
    heads = [name for name in start if name.startswith("head.")]
    free, depth = free | dict.fromkeys(heads, 1.0), depth | dict.fromkeys(heads, 0)
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in free)
    norms = tuple(
        name
        for name, module in network.named_modules()
        if getattr(module, "running_mean", None) is not None and _learns(name, free)
    )
    return Plan(free, depth, start, norms if how.batch_norm == "update" else (), network.layers[first].name)


def first_free(network: Network, where: str | int | None) -> int:
    """The number of the first layer that is trained. Raises OptionError for a name or number that is not there."""
    layers = network.layers
    names = [layer.name for layer in layers]
    if where is None:
        return next(i for i, layer in enumerate(layers) if layer.stage >= network.stages - 2)
    if where == "all":
        return 0
    if where == "features":
        return next(i for i, layer in enumerate(layers) if layer.stage == network.stages - 1)
    if str(where).isdecimal():
        if int(where) < len(layers):
            return int(where)
        raise OptionError(f"There is no layer {where}; {network.backbone.id} has layers 0 to {len(layers) - 1}.")
    for i, name in enumerate(names):
        if f"{name}.".startswith(f"{where}."):
            return i
    blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    near = get_close_matches(str(where), [*blocks, *names], 3) or [*network.taps]
    raise OptionError(
        f"{network.backbone.id} has no layer {where!r}; expected a tap ({', '.join(network.taps)}), a layer such as "
        f"{', '.join(near)}, a number up to {len(layers) - 1}, or all."
    )


def set_mode(network: Network, plan: Plan, learning: bool) -> None:
    """Inference mode for all but the batch norms that follow their batches, while it learns."""
    network.eval()
    for name in plan.norms:
        network.get_submodule(name).train(learning)


def check_frozen(network: Network, plan: Plan) -> int:
    """How many tensors, statistics among them, are bit for bit what was loaded. Raises BackboneError if one is not."""
    may_change = plan.moving
    fixed = [name for name in plan.start if name not in may_change]
    present = network.state_dict()
    for name in fixed:
        if not torch.equal(_bits(present[name]), _bits(plan.start[name])):
            raise BackboneError(f"The frozen tensor {name} changed in training; the run is void. Please report this.")
    return len(fixed)


def _learns(norm: str, free: Mapping[str, float]) -> bool:
    """Whether a batch norm is free; it may have a weight, a shift or both."""
    return not free.keys().isdisjoint((f"{norm}.weight", f"{norm}.bias"))


def _bits(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
