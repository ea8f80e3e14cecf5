"""Fine-tune a fitted classifier: folds that tell whether it helps, then one training on all pictures if it does."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast_object_list
from numpy.typing import NDArray

from headstart.classifier import ImageClassifier
from headstart.errors import BackboneError, DataError, OptionError
from headstart.features.features import embed
from headstart.finetune import checkpoint
from headstart.finetune.freeze import Plan, plan
from headstart.finetune.image_loader import Pictures
from headstart.finetune.loop import Epoch, State, answers, moving, optimiser, stopped, train
from headstart.finetune.network import Network
from headstart.finetune.options import FineTuning
from headstart.finetune.precision import Arithmetic, chosen
from headstart.finetune.tensorboard import board
from headstart.finetune.verdict import ALPHAS, Verdict, folds, judge
from headstart.heads import Candidate, Choice, Familiar, Head, select, softmax
from headstart.heads.candidates import Problem
from headstart.heads.held_out import Basis
from headstart.heads.mlp import a_tenth
from headstart.heads.ood import familiar
from headstart.splits.split import Learned

Rows = NDArray[np.int64]
Say = Callable[[str], None]


@dataclass(frozen=True)
class Tuned:
    """What came of a fine-tuning: the verdict, the epochs of every training by its name, seconds, the first layer that
    was trained, and whether this is the process that writes (of several)."""

    verdict: Verdict
    histories: Mapping[str, tuple[Epoch, ...]]
    seconds: float
    first: str
    main: bool

    @property
    def last(self) -> str:
        """The name of the last training: a fold's where the frozen model is kept, else that on all pictures."""
        return [*self.histories][-1]

    @property
    def history(self) -> list[dict[str, Any]]:
        """The epochs of the last training, as ``run.json`` holds them."""
        return [asdict(epoch) for epoch in self.histories[self.last]]


@dataclass
class _Work:
    """What the trainings share."""

    network: Network
    plan: Plan
    pictures: Pictures
    labels: Rows
    groups: Rows
    classes: int
    how: FineTuning
    seed: int
    device: Accelerator
    settings: str
    say: Say


def run(classifier: ImageClassifier, how: FineTuning, say: Say) -> Tuned:
    """See ``fine_tune``."""
    began = time.perf_counter()
    learned: Learned | None = getattr(classifier, "learned_", None)
    if learned is None:
        raise OptionError("Fine-tuning goes on from a fit; this classifier was loaded or never fitted. Fit it first.")
    split, features, choice = learned.partition, learned.features, classifier.choice_
    labels, groups = split.labels, split.groups.index
    parts = folds(labels, groups, classifier.seed)
    if parts is None:
        raise DataError(
            "Fine-tuning cannot be judged: every class needs pictures of at least two groups. Add pictures, or leave "
            "--fine-tune out."
        )
    network = Network(learned.backbone, classifier.input_options, choice.head)
    golden = classifier.model_.golden
    assert golden is not None
    network.check_start(golden.pixels, golden.probabilities)
    device = Accelerator()
    say = say if device.is_main_process else lambda _: None
    network.to(device.device, memory_format=torch.channels_last)
    how = replace(how, precision=chosen(how.precision, device))
    pictures = Pictures(
        learned.dataset, features.index[split.train].tolist(), learned.backbone.preprocess, classifier.workers
    )
    work = _Work(network, plan(network, how), pictures, labels, groups, len(split.classes), how, classifier.seed,
                 device, _settings(learned, how, classifier.seed), say)  # fmt: skip
    if how.checkpoints is not None and not how.resume and device.is_main_process:
        shutil.rmtree(how.checkpoints, ignore_errors=True)
    device.wait_for_everyone()
    if how.resume and how.checkpoints is not None and not any(how.checkpoints.glob("*.json")):
        say(f"There is no checkpoint in {how.checkpoints}: beginning anew")
    work.how = _in_time(work, len(parts) + 1)
    frozen, tuned, fold = np.zeros((len(labels), work.classes)), np.zeros((len(ALPHAS), len(labels), work.classes)), (
        np.zeros(len(labels), np.int64)
    )  # fmt: skip
    histories, ends = {}, []
    for number, (rows, held) in enumerate(parts):
        head = _frozen_head(classifier, rows)
        name = f"fold {number + 1} of {len(parts)}"
        first, last, histories[name] = _training(work, name, head, rows)
        ends.append((first, last))
        scores = head.scores(features.matrix(head.taps, split.train[held])).astype(np.float64)
        frozen[held], fold[held] = scores / head.temperature, number
        for place, alpha in enumerate(ALPHAS):
            _between(network, first, last, alpha)
            tuned[place, held] = answers(network, pictures, held, how.batch, device)[0]
    verdict = judge(frozen, tuned, labels, groups, fold)
    say(str(verdict))
    if verdict.better:
        distances = _distances(work, parts, ends, verdict.alpha)
        first, last, histories["all pictures"] = _training(work, "all pictures", choice.head, np.arange(len(labels)))
        _between(network, first, last, verdict.alpha)
        held_out = tuned[ALPHAS.index(verdict.alpha)]
        _adopt(classifier, learned, work, verdict, held_out, distances)
    found = Tuned(verdict, histories, time.perf_counter() - began, work.plan.first, device.is_main_process)
    _record(classifier, found, work)
    return found


def _settings(learned: Learned, how: FineTuning, seed: int) -> str:
    """A hash of all that decides the result of a training."""
    said = json.dumps([how.to_dict(), seed, learned.backbone.sha256, learned.partition.labels.tolist(),
                       learned.partition.groups.index.tolist()], sort_keys=True)  # fmt: skip
    content = learned.features.content_hashes[learned.partition.train].tobytes()
    return hashlib.sha256(said.encode() + content).hexdigest()


def _in_time(work: _Work, trainings: int) -> FineTuning:
    """Time a batch, learned from and answered, say how long all will take, and lower the epochs to the time limit."""
    how, count = work.how, len(work.labels)
    some = np.arange(min(how.batch, count))
    while True:
        try:
            spent = [_timed(work, some) for _ in range(2)]  # the first warms up
            break
        except torch.OutOfMemoryError:
            if len(some) < 2:
                raise BackboneError("One picture at a time is too much for the memory here.") from None
            some = some[: len(some) // 2]
    began = time.perf_counter()
    answers(work.network, work.pictures, some, how.batch, work.device)
    looks = len(ALPHAS) + trainings - 1  # at every picture: by each alpha, and for the distances
    judged = (time.perf_counter() - began) / len(some) * count * looks
    epoch = [spent[-1] / len(some) * count / work.device.num_processes, judged]
    if work.device.num_processes > 1:
        broadcast_object_list(epoch)
    learned = trainings - 1  # a fold leaves one part out: together as much as one training less than there are
    epochs = how.epochs
    if how.time_limit is not None:
        epochs = min(epochs, max(0, int((how.time_limit - epoch[1]) / (epoch[0] * learned))))
        if epochs < 1:
            raise OptionError(
                f"One epoch takes about {epoch[0] * learned + epoch[1]:.0f} s in all, more than the limit of "
                f"{how.time_limit:g} s; allow more, or unfreeze less."
            )
    several = f" on {work.device.num_processes} processes" if work.device.num_processes > 1 else ""
    work.say(
        f"Fine-tuning from {work.plan.first} in {how.precision}{several}: up to {trainings} trainings of {epochs} "
        f"epochs, about {epoch[0] * learned * epochs + epoch[1]:.0f} s"
    )
    return replace(how, epochs=epochs)


def _timed(work: _Work, some: Rows) -> float:
    """Seconds of gradients from the pictures ``some``; they are forgotten."""
    began, where = time.perf_counter(), work.device.device
    arithmetic = Arithmetic.of(work.how.precision, where.type)
    for rows, pixels in work.pictures.batches([some]):
        with arithmetic.autocast():
            vectors = work.network.vectors(torch.from_numpy(pixels).to(where))
        truth = torch.from_numpy(work.labels[rows]).to(where)
        torch.nn.functional.cross_entropy(work.network.scores(vectors), truth).backward()
    work.network.zero_grad()
    return time.perf_counter() - began


def _frozen_head(classifier: ImageClassifier, rows: Rows) -> Head:
    """The frozen path's head from the training pictures ``rows`` alone, of the kind and taps of the whole fit."""
    learned, head = classifier.learned_, classifier.choice_.head
    split = learned.partition
    groups = np.unique(split.groups.index[rows], return_inverse=True)[1]
    return select(
        learned.features.vectors(split.train[rows]), split.labels[rows], groups, cut=head.taps, kind=head.kind,
        dropout=classifier.dropout, seed=classifier.seed, training=classifier.training,
    ).head  # fmt: skip


def _training(
    work: _Work, name: str, head: Head, rows: Rows
) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor], tuple[Epoch, ...]]:
    """The moving tensors before and after a training on the pictures ``rows``, and its epochs."""
    network, how = work.network, work.how
    network.load_state_dict(work.plan.start)
    put_head(network, head)
    free = dict.fromkeys((k for k in work.plan.free if not k.startswith("head.")), 1.0)
    heads = {f"head.{key}": value.detach().clone() for key, value in network.head.items()}
    own = replace(
        work.plan,
        free={k: work.plan.free[k] for k in free} | dict.fromkeys(heads, 1.0),
        depth={k: work.plan.depth[k] for k in free} | dict.fromkeys(heads, 0),
        start={k: v for k, v in work.plan.start.items() if not k.startswith("head.")} | heads,
    )
    first = {k: v.clone() for k, v in moving(network, own).items()}
    some = how.patience is not None
    kept_back = rows[a_tenth(work.groups[rows], work.labels[rows], work.seed)] if some else np.zeros(0, np.int64)
    learn = np.setdiff1d(rows, kept_back)
    state = State(optimiser=optimiser(network, own, how))
    file = name.replace(" ", "-")
    if how.resume and how.checkpoints is not None:
        found = checkpoint.read(how.checkpoints, file, work.settings)
        if found is not None:
            how = replace(how, epochs=found[1]["epochs"])
            work.how = how
            state.restore(network, *found)
            work.say(f"{name}: going on after epoch {len(state.history)}")
    main = work.device.is_main_process
    with board(how.tensorboard if main else None, file, len(state.history)) as enter:
        for epoch in train(
            network, own, work.pictures, work.labels, learn, kept_back, work.classes, how, work.seed, work.device, state
        ):
            if how.checkpoints is not None and main:
                said = {**state.said(), "settings": work.settings, "epochs": how.epochs}
                checkpoint.write(how.checkpoints, file, state.tensors(network, own), said)
            enter(epoch)
            left = 0.0 if stopped(state, how) else (how.epochs - epoch.number) * epoch.seconds
            work.say(line_of(name, epoch, how.epochs, left))
    last = {k: v.clone() for k, v in moving(network, own).items()}
    return first, last, tuple(state.history)


def line_of(name: str, epoch: Epoch, epochs: int, left: float) -> str:
    """One epoch in one line."""
    low, high = epoch.interval
    back = "" if epoch.validation_loss is None else f", kept back {epoch.validation_loss:.3f}"
    return (
        f"{name}, epoch {epoch.number} of {epochs}: loss {epoch.loss:.3f}{back}, accuracy {epoch.accuracy:.1%} "
        f"[{low:.1%}, {high:.1%}], rate {epoch.rate:.1e}, {epoch.seconds:.1f} s, {left:.0f} s left"
        + (f"; {epoch.note}" if epoch.note else "")
    )


def put_head(network: Network, head: Head) -> None:
    """Set a head and keep it where the network is."""
    where = network.head["bias"].device
    network.set_head(head)
    network.head.to(where)


def _between(
    network: Network, first: Mapping[str, torch.Tensor], last: Mapping[str, torch.Tensor], alpha: float
) -> None:
    """The weights at ``alpha`` on the way from ``first`` to ``last``."""
    for name in [k for k in network.head if k not in {n.removeprefix("head.") for n in last}]:
        del network.head[name]
    for name, value in last.items():
        if name.startswith("head."):
            network.head[name.removeprefix("head.")] = torch.nn.Parameter(value.clone())
    network.load_state_dict(
        {k: first[k].lerp(v, alpha) if v.is_floating_point() and alpha < 1 else v for k, v in last.items()},
        strict=False,
    )


def _familiar(work: _Work, vectors: NDArray[np.floating], taps: tuple[str, ...], rows: Rows) -> Familiar:
    edges = np.cumsum([next(t.channels for t in work.network.backbone.taps if t.name == tap) for tap in taps])[:-1]
    values = dict(zip(taps, np.split(vectors, edges, axis=1), strict=True))
    problem = Problem.of(values, work.labels[rows], work.groups[rows], None)
    return familiar(Basis.of(problem.vectors(taps)))


def _distances(work: _Work, parts: Any, ends: Any, alpha: float) -> NDArray[np.float64]:
    """How far every picture is from what the network and the pictures of the other folds know."""
    found = np.zeros(len(work.labels))
    for (rows, held), (first, last) in zip(parts, ends, strict=True):
        _between(work.network, first, last, alpha)
        known = answers(work.network, work.pictures, rows, work.how.batch, work.device)[1]
        new = answers(work.network, work.pictures, held, work.how.batch, work.device)[1]
        found[held] = _familiar(work, known, work.network.wanted, rows).distances(new)
    return found


def _adopt(
    classifier: ImageClassifier, learned: Learned, work: _Work, verdict: Verdict, scores: NDArray[np.float64],
    distances: NDArray[np.float64],
) -> None:  # fmt: skip
    """Make the classifier the fine-tuned one."""
    split, old = learned.partition, classifier.choice_
    head = work.network.to(memory_format=torch.contiguous_format).get_head(old.head, verdict.temperature)
    backbone = work.network.export()
    features = embed(
        learned.dataset, backbone, runtime=classifier.runtime, precision=classifier.precision,
        workers=classifier.workers,
    )  # fmt: skip
    if not np.array_equal(features.index, learned.features.index):
        raise DataError(f"The pictures of {learned.dataset.uri} changed while they were read; fit again.")
    vectors = features.matrix(head.taps, split.train)
    known = _familiar(work, vectors, head.taps, np.arange(len(split.labels)))
    losses = np.zeros(0)
    chosen = Candidate(
        head.taps, head.kind, head.settings, old.chosen.log_loss, verdict.tuned, verdict.temperature, losses, scores
    )
    choice = Choice(head, chosen, softmax(scores / verdict.temperature), old.candidates, known, distances)
    classifier.adopt(Learned(learned.dataset, features, split, backbone), choice)


def _record(classifier: ImageClassifier, found: Tuned, work: _Work) -> None:
    """Enter what was done in ``run_``."""
    verdict = found.verdict
    said = {
        "kept": "fine-tuned" if verdict.better else "frozen", "why": str(verdict), "unfrozen_from": found.first,
        "alpha": verdict.alpha, "alphas_by_fold": list(verdict.alphas), "frozen": verdict.frozen,
        "tuned": verdict.tuned, "difference": verdict.difference.to_dict(), "options": work.how.to_dict(),
        "seconds": found.seconds,
        "trainings": {name: [asdict(epoch) for epoch in epochs] for name, epochs in found.histories.items()},
    }  # fmt: skip
    run = {**classifier.run_, "fine_tuning": said}
    if verdict.better:
        backbone = classifier.learned_.backbone
        run |= {
            "backbone": {**run["backbone"], "sha256": backbone.sha256}, "learning_curve": None,
            "head": {**run["head"], "temperature": verdict.temperature}, "training": found.history,
            "accuracy": {name: value.to_dict() for name, value in classifier.accuracy_.items()},
        }  # fmt: skip
    classifier.run_ = run
    classifier.model_ = replace(classifier.model_, run=run)
