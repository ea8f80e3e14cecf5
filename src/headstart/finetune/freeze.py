"""Which tensors are trained, how fast each learns, and the check that the others did not change by a bit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches

import torch
from torch import Tensor

from headstart.errors import BackboneError, OptionError
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuneConfig

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of a batch norm


@dataclass(frozen=True)
class TrainingPlan:
    """Which tensors of a network are trained.

    ``lr_scales`` maps the names of the trained tensors to a factor of the learning rate, ``depths`` to the number of
    trained stages after their own. ``initial`` holds all tensors as they were before training. ``batch_norms`` are the
    modules whose statistics follow the batches. ``first_layer`` is the first layer that is trained.
    """

    lr_scales: Mapping[str, float]
    depths: Mapping[str, int]
    initial: Mapping[str, Tensor]
    batch_norms: tuple[str, ...]
    first_layer: str

    @property
    def changing(self) -> set[str]:
        """The names of the tensors that training may change: the trained ones, and statistics of batch norms."""
        statistics = {f"{norm}.{statistic}" for norm in self.batch_norms for statistic in STATISTICS}
        return {*self.lr_scales, *statistics}

    def at_epoch(self, epoch: int) -> TrainingPlan:
        """Return what is trained in an epoch, counted from 1, with gradual unfreezing: one more stage in each."""
        lr_scales = {name: scale for name, scale in self.lr_scales.items() if self.depths[name] < epoch}
        batch_norms = tuple(norm for norm in self.batch_norms if _is_trained(norm, lr_scales))
        return replace(self, lr_scales=lr_scales, batch_norms=batch_norms)

    def with_head_of(self, network: Network) -> TrainingPlan:
        """Return the same plan for the head that ``network`` has now, which may have tensors of other shapes."""
        head = {f"head.{name}": value.detach().clone() for name, value in network.head.items()}
        body = [name for name in self.lr_scales if not name.startswith("head.")]
        initial = {name: value for name, value in self.initial.items() if not name.startswith("head.")}
        return replace(
            self,
            lr_scales={**{name: self.lr_scales[name] for name in body}, **dict.fromkeys(head, 1.0)},
            depths={**{name: self.depths[name] for name in body}, **dict.fromkeys(head, 0)},
            initial={**initial, **head},
        )


def make_plan(network: Network, config: FineTuneConfig) -> TrainingPlan:
    """Plan to train the layers from ``config.unfreeze_from`` on that the head depends on. Raises OptionError."""
    initial = {name: value.detach().clone() for name, value in network.state_dict().items()}
    first = first_trained_layer(network, config.unfreeze_from)
    used = _parameters_with_gradients(network)
    stages = {name: layer.stage for layer in network.layers[first:] for name in layer.tensors if name in used}
    lr_scales = {name: config.layer_decay ** (network.stages - 1 - stage) for name, stage in stages.items()}
    last_stage = max(stages.values(), default=0)
    depths = {name: last_stage - stage for name, stage in stages.items()}
    for name in initial:
        if name.startswith("head."):
            lr_scales[name], depths[name] = 1.0, 0
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(name in lr_scales)
    batch_norms: tuple[str, ...] = ()
    if config.batch_norm == "update":
        batch_norms = tuple(
            name
            for name, module in network.named_modules()
            if getattr(module, "running_mean", None) is not None and _is_trained(name, lr_scales)
        )
    return TrainingPlan(lr_scales, depths, initial, batch_norms, network.layers[first].name)


def first_trained_layer(network: Network, unfreeze_from: str | int | None) -> int:
    """Return the index of the first layer that is trained. Raises OptionError for a name or index that is not there."""
    layers = network.layers
    names = [layer.name for layer in layers]
    if unfreeze_from is None:
        return next(i for i, layer in enumerate(layers) if layer.stage >= network.stages - 2)
    if unfreeze_from == "all":
        return 0
    if unfreeze_from == "features":
        return next(i for i, layer in enumerate(layers) if layer.stage == network.stages - 1)
    if str(unfreeze_from).isdecimal():
        if int(unfreeze_from) < len(layers):
            return int(unfreeze_from)
        raise OptionError(
            f"There is no layer {unfreeze_from}; {network.backbone.id} has layers 0 to {len(layers) - 1}."
        )
    for i, name in enumerate(names):
        if f"{name}.".startswith(f"{unfreeze_from}."):
            return i
    if unfreeze_from in network.taps:  # the stage that ends in this tap
        stage = network.taps.index(str(unfreeze_from))
        return next((i for i, layer in enumerate(layers) if layer.stage >= stage), 0)
    blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in names)
    suggestions = get_close_matches(str(unfreeze_from), [*blocks, *names], 3) or [*network.taps]
    raise OptionError(
        f"{network.backbone.id} has no layer {unfreeze_from!r}; expected a tap ({', '.join(network.taps)}), a layer "
        f"such as {', '.join(suggestions)}, an index up to {len(layers) - 1}, or all."
    )


def set_mode(network: Network, plan: TrainingPlan, training: bool) -> None:
    """Set inference mode, but with ``training`` training mode for the batch norms that follow their batches."""
    network.eval()
    for name in plan.batch_norms:
        network.get_submodule(name).train(training)


def enable_gradients(network: Network, plan: TrainingPlan, epoch_plan: TrainingPlan) -> dict[str, Tensor]:
    """Return the parameters that ``epoch_plan`` trains; of those in ``plan`` only they get gradients from now on."""
    set_mode(network, epoch_plan, training=True)
    for name, parameter in network.named_parameters():
        if name in plan.lr_scales:
            parameter.requires_grad_(name in epoch_plan.lr_scales)
    return {name: parameter for name, parameter in network.named_parameters() if name in epoch_plan.lr_scales}


def changing_tensors(network: Network, plan: TrainingPlan) -> dict[str, Tensor]:
    """Return the tensors that training may change, by name; not copies."""
    names = plan.changing
    return {name: value for name, value in network.state_dict().items() if name in names}


def check_frozen(network: Network, plan: TrainingPlan) -> int:
    """Compare all other tensors, statistics among them, bit for bit with their initial values; return how many.

    Raises BackboneError where one has changed.
    """
    may_change = plan.changing
    fixed = [name for name in plan.initial if name not in may_change]
    tensors = network.state_dict()
    for name in fixed:
        if not torch.equal(_bits(tensors[name]), _bits(plan.initial[name])):
            raise BackboneError(f"The frozen tensor {name} changed in training; the run is void. Please report this.")
    return len(fixed)


def _parameters_with_gradients(network: Network) -> set[str]:
    """Return the names of the parameters on which the scores depend."""
    preprocess = network.backbone.preprocess
    image = torch.zeros(1, preprocess.height, preprocess.width, 3, dtype=torch.uint8)
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    scores = network(image.to(next(network.parameters()).device))
    # What a backward pass would reach, without computing it.
    reached, pending = {scores.grad_fn}, [scores.grad_fn]
    while pending:
        for node, _ in pending.pop().next_functions:
            if node is not None and node not in reached:
                reached.add(node)
                pending.append(node)
    used = {id(node.variable) for node in reached if hasattr(node, "variable")}
    return {name for name, parameter in network.named_parameters() if id(parameter) in used}


def _is_trained(norm: str, lr_scales: Mapping[str, float]) -> bool:
    """Return whether a batch norm is trained; it may have a weight, a bias or both."""
    return not lr_scales.keys().isdisjoint((f"{norm}.weight", f"{norm}.bias"))


def _bits(value: Tensor) -> Tensor:
    return value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
