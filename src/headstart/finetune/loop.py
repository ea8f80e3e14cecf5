"""The one training loop, read from top to bottom; everything that happens in an epoch is here.

With several processes (``accelerate launch``) each takes its share of every batch and the gradients are added up, so
that they make the steps of one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from headstart.errors import BackboneError
from headstart.finetune.freeze import Plan, check_frozen, set_mode
from headstart.finetune.image_loader import Pictures
from headstart.finetune.mixing import drawn
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuning
from headstart.finetune.precision import Arithmetic
from headstart.finetune.schedule import rate_at
from headstart.heads import optimizers as descent
from headstart.heads.optimizers import class_weights
from headstart.stats.accuracy import wilson

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Epoch:
    """One epoch's record: mean loss in nats and accuracy (with 95% interval) on the pictures trained on, as they were
    varied and mixed; those of the groups kept back, or None; the learning rate at its end; seconds; what else must be
    said."""

    number: int
    loss: float
    accuracy: float
    interval: tuple[float, float]
    validation_loss: float | None
    validation_accuracy: float | None
    rate: float
    seconds: float
    note: str = ""


@dataclass
class State:
    """Where a training is: its epochs so far, the optimiser, the averaged and the best weights, pictures at a time."""

    history: list[Epoch] = field(default_factory=list)
    optimiser: Any = None
    average: dict[str, Tensor] = field(default_factory=dict)
    best: dict[str, Tensor] = field(default_factory=dict)
    at_a_time: int | None = None
    scale: dict[str, Any] = field(default_factory=dict)

    def tensors(self, network: Network, plan: Plan) -> dict[str, Tensor]:
        """All that a training needs to go on, by name."""
        named = {f"now.{name}": value for name, value in moving(network, plan).items()}
        named |= {f"average.{name}": value for name, value in self.average.items()}
        named |= {f"best.{name}": value for name, value in self.best.items()}
        for number, values in self.optimiser.state_dict()["state"].items():
            named |= {f"optimiser.{number}.{k}": torch.as_tensor(v) for k, v in values.items() if v is not None}
        return {name: value.clone() for name, value in named.items()}

    def said(self) -> dict[str, Any]:
        """The rest, as JSON holds it."""
        return {"history": [asdict(epoch) for epoch in self.history], "at_a_time": self.at_a_time, "scale": self.scale}

    def restore(self, network: Network, tensors: dict[str, Tensor], said: dict[str, Any]) -> None:
        """Be where ``tensors`` and ``said`` were written."""
        parts: dict[str, dict[str, Tensor]] = {"now": {}, "average": {}, "best": {}, "optimiser": {}}
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            parts[kind][rest] = value
        network.load_state_dict(parts["now"], strict=False)
        where = next(network.parameters()).device
        self.average, self.best = (
            {name: value.to(where) for name, value in parts[each].items()} for each in ("average", "best")
        )
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimiser"].items():
            number, _, key = name.partition(".")
            moments.setdefault(int(number), {})[key] = value
        groups = self.optimiser.state_dict()["param_groups"]
        self.optimiser.load_state_dict({"state": moments, "param_groups": groups})
        self.history = [Epoch(**{**each, "interval": tuple(each["interval"])}) for each in said["history"]]
        self.at_a_time, self.scale = said["at_a_time"], said["scale"]


def moving(network: Network, plan: Plan) -> dict[str, Tensor]:
    """The tensors that training changes."""
    names = plan.moving
    return {name: value for name, value in network.state_dict().items() if name in names}


def train(
    network: Network, plan: Plan, pictures: Pictures, labels: Rows, rows: Rows, kept_back: Rows, classes: int,
    how: FineTuning, seed: int, device: Accelerator, state: State,
) -> Iterator[Epoch]:  # fmt: skip
    """Train the free tensors of ``network`` on the pictures ``rows`` and yield a record after every epoch.

    ``labels`` [n] of all pictures. ``state`` is new, or restored: then it goes on there. At the end ``network`` holds
    the weights to use, and every frozen tensor has been compared with what was loaded. Raises BackboneError.
    """
    start = {name: plan.start[name].to(device.device) for name in plan.free}
    if state.optimiser is None:
        state.optimiser = optimiser(network, plan, how)
    weights = torch.ones(classes)
    if how.class_weights:
        weights = torch.from_numpy(class_weights(labels[rows], classes).astype(np.float32))
    weights = weights.to(device.device)
    arithmetic = Arithmetic.of(how.precision, device.device.type)
    if state.scale:
        arithmetic.scaler.load_state_dict(state.scale)
    steps_an_epoch = -(-len(rows) // how.batch)
    for epoch in range(len(state.history) + 1, how.epochs + 1):
        if stopped(state, how):
            break
        began, total, right, note, step = time.perf_counter(), 0.0, 0, "", (epoch - 1) * steps_an_epoch
        now = plan.at(epoch) if how.gradual else plan
        parameters = learning(network, plan, now)
        order = np.random.default_rng([seed, epoch]).permutation(rows)
        batches = [order[i : i + how.batch] for i in range(0, len(order), how.batch)]
        for part in _parts(batches, pictures, labels, how, [seed, epoch], device):
            while True:  # until it fits into memory
                try:
                    loss, correct = _gradients(network, part, weights, how, arithmetic, device, state.at_a_time)
                    break
                except torch.OutOfMemoryError:
                    if (state.at_a_time or len(part.labels)) < 2:
                        raise BackboneError("One picture at a time is too much for the memory here.") from None
                    state.at_a_time = (state.at_a_time or len(part.labels)) // 2
                    note = f"out of memory: {state.at_a_time} pictures at a time, gradients added up"
                    torch.cuda.empty_cache()
            loss, correct = _summed(parameters, loss, correct, device)
            arithmetic.unscaled(state.optimiser)
            if how.clip:
                torch.nn.utils.clip_grad_norm_(parameters.values(), how.clip)
            share = rate_at(step, how.epochs * steps_an_epoch, how.warm_up)
            for group in state.optimiser.param_groups:
                group["lr"] = how.rate * share * group["scale"]
            arithmetic.step(state.optimiser)
            with torch.no_grad():
                for name, parameter in parameters.items():  # L2-SP: back towards where it started
                    parameter.lerp_(start[name], how.l2_sp * share * plan.free[name])
                if how.ema:
                    decay = min(how.ema, (1 + step) / (10 + step))
                    for name, value in moving(network, plan).items():
                        kept = state.average.setdefault(name, value.clone())
                        kept.copy_(kept.lerp(value, 1 - decay) if kept.is_floating_point() else value)
            total, right, step = total + loss, right + correct, step + 1
        if not np.isfinite(total):
            raise BackboneError(f"The loss is not finite in epoch {epoch}; give a smaller --lr than {how.rate:g}.")
        back = _kept_back(network, plan, pictures, labels, kept_back, how, state, device)
        lowest = min((e.validation_loss for e in state.history if e.validation_loss is not None), default=np.inf)
        if back[0] is not None and back[0] < lowest:
            state.best = {k: v.clone() for k, v in (state.average or moving(network, plan)).items()}
        accuracy, state.scale = right / len(rows), arithmetic.scaler.state_dict()
        state.history.append(
            Epoch(epoch, total / len(rows), accuracy, wilson(right, len(rows)), *back, how.rate * share,
                  time.perf_counter() - began, note)
        )  # fmt: skip
        yield state.history[-1]
    network.load_state_dict(state.best or state.average, strict=False)
    set_mode(network, plan, learning=False)
    check_frozen(network, plan.at(len(state.history)) if how.gradual else plan)


def stopped(state: State, how: FineTuning) -> bool:
    """Whether training has reached the accuracy to stop at, or waited long enough for a lower loss kept back."""
    if how.stop_at_accuracy is not None and state.history and state.history[-1].accuracy >= how.stop_at_accuracy:
        return True
    losses = [e.validation_loss for e in state.history if e.validation_loss is not None]
    return how.patience is not None and bool(losses) and len(losses) - 1 - int(np.argmin(losses)) >= how.patience


def optimiser(network: Network, plan: Plan, how: FineTuning) -> Any:
    """The optimiser of the free tensors, a group for each share of the learning rate."""
    named = dict(network.named_parameters())
    groups = [
        {"params": [named[name] for name, s in plan.free.items() if s == share], "scale": share, "lr": how.rate}
        for share in sorted(set(plan.free.values()))
    ]
    return descent.optimiser(torch, how.optimiser, groups, how.rate, 0.0)  # L2-SP is the decay


def learning(network: Network, plan: Plan, now: Plan) -> dict[str, Tensor]:
    """The parameters that learn ``now``, of those that the whole ``plan`` frees; the others get no gradients."""
    set_mode(network, now, learning=True)
    for name, parameter in network.named_parameters():
        if name in plan.free:
            parameter.requires_grad_(name in now.free)
    return {name: parameter for name, parameter in network.named_parameters() if name in now.free}


def answers(
    network: Network, pictures: Pictures, rows: Rows, batch: int, device: Accelerator
) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
    """Class scores [m, k] and vectors [m, d] of the pictures ``rows`` [m] as they are, in fp32 as the frozen path."""
    scores, vectors = [], []
    network.eval()
    with torch.no_grad(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for _, pixels in pictures.batches([rows[i : i + batch] for i in range(0, len(rows), batch)]):
            vectors.append(network.vectors(torch.from_numpy(pixels).to(device.device)).float())
            scores.append(network.scores(vectors[-1]).double().cpu())
    return torch.cat(scores).numpy(), torch.cat(vectors).cpu().numpy()


@dataclass(frozen=True)
class _Part:
    """This process's part of a batch of ``count`` pictures: pixels and labels; ``others`` are mixed into them, of which
    ``share`` is left."""

    pixels: NDArray[np.uint8]
    labels: Rows
    others: Rows
    share: float
    count: int


def _parts(
    batches: Sequence[Rows], pictures: Pictures, labels: Rows, how: FineTuning, seed: list[int], device: Accelerator
) -> Iterator[_Part]:
    """This process's part of every batch; what is mixed into a picture does not depend on how many processes share."""
    mine = slice(device.process_index, None, device.num_processes)
    size = pictures.preprocess.height, pictures.preprocess.width
    mixes = [drawn(how, len(batch), size, [*seed, number]) for number, batch in enumerate(batches)]
    partners = [batch[mix.partner] if mix else batch for batch, mix in zip(batches, mixes, strict=True)]
    wanted = [np.union1d(batch[mine], other[mine]) for batch, other in zip(batches, partners, strict=True)]
    made = pictures.batches(wanted, how.augmentation, *seed)
    for batch, other, mix, (rows, pixels) in zip(batches, partners, mixes, made, strict=True):
        own = pixels[np.searchsorted(rows, batch[mine])]
        if mix is not None:
            own = mix(own, pixels[np.searchsorted(rows, other[mine])])
        yield _Part(own, labels[batch[mine]], labels[other[mine]], mix.share if mix else 1.0, len(batch))


def _gradients(
    network: Network, part: _Part, weights: Tensor, how: FineTuning, arithmetic: Arithmetic, device: Accelerator,
    at_a_time: int | None,
) -> tuple[float, int]:  # fmt: skip
    """Gradients of a part of a batch; the sum of its losses, and how many are taken for what they are most."""
    total, right = 0.0, 0
    network.zero_grad()
    size = at_a_time or max(1, len(part.labels))
    for i in range(0, len(part.labels), size):
        some = torch.from_numpy(part.pixels[i : i + size]).to(device.device)
        own, other = (torch.from_numpy(each[i : i + size]).to(device.device) for each in (part.labels, part.others))
        with arithmetic.autocast():
            vectors = network.vectors(some)
        scores = network.scores(vectors)
        loss = part.share * _loss(scores, own, weights, how)
        if part.share < 1:
            loss = loss + (1 - part.share) * _loss(scores, other, weights, how)
        arithmetic.backward(loss / part.count)
        most = own if part.share >= 0.5 else other
        total, right = total + float(loss.detach()), right + int((scores.argmax(1) == most).sum())
    return total, right


def _loss(scores: Tensor, truth: Tensor, weights: Tensor, how: FineTuning) -> Tensor:
    each = cross_entropy(scores, truth, reduction="none", label_smoothing=how.label_smoothing)
    return (each * weights[truth]).sum()


def _summed(parameters: dict[str, Any], loss: float, right: int, device: Accelerator) -> tuple[float, int]:
    """Gradients, loss and right answers of all processes together."""
    if device.num_processes == 1:
        return loss, right
    for p in parameters.values():
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    flat = torch.cat([torch.tensor([loss, float(right)], device=device.device),
                      *(p.grad.reshape(-1) for p in parameters.values())])  # fmt: skip
    flat = device.reduce(flat, "sum")
    place = 2
    for p in parameters.values():
        p.grad.copy_(flat[place : place + p.numel()].view_as(p))
        place += p.numel()
    return float(flat[0]), round(float(flat[1]))


def _kept_back(
    network: Network, plan: Plan, pictures: Pictures, labels: Rows, rows: Rows, how: FineTuning, state: State,
    device: Accelerator,
) -> tuple[float | None, float | None]:  # fmt: skip
    """Loss and accuracy on the pictures kept back, with the averaged weights where there are any."""
    if not len(rows):
        return None, None
    present = {k: v.clone() for k, v in moving(network, plan).items()}
    network.load_state_dict(state.average, strict=False)
    scores = torch.from_numpy(answers(network, pictures, rows, how.batch, device)[0])
    network.load_state_dict(present, strict=False)
    truth = torch.from_numpy(labels[rows])
    return float(cross_entropy(scores, truth)), float((scores.argmax(1) == truth).double().mean())
