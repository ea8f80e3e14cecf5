"""Choose taps, kind of head and penalty by what each would have said of groups left out.

Candidates are compared by held-out log-loss. Two rules keep the choice honest when data are few:

- Log-loss is taken against labels softened by one unseen group (``calibration.smoothing``), so that heads
  without a single held-out mistake tie instead of racing to infinite confidence.
- Of tap sets that a paired test over groups cannot tell from the best at 95% (a rule in the spirit of Breiman
  et al. 1984, section 3.4.3), the earliest in a fixed order of preference is taken: the last tap alone first,
  since the deepest features were trained to be the most general, then more taps, then shallower ones.

Every tap is tried alone. Taps together, dropout and random features are tried only while mistakes are left
that they could be seen to mend.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from headstart.errors import DataError, OptionError
from headstart.features.features import MANY
from headstart.heads import whole
from headstart.heads.candidates import (
    Candidate,
    Problem,
    bare,
    dropout_candidates,
    expanded_candidates,
    lean,
    plain_candidates,
)
from headstart.heads.head import Head, softmax
from headstart.heads.held_out import Basis
from headstart.heads.logistic import fit_logistic
from headstart.heads.mlp import Epoch, Training, fit_mlp, held_out_mlp
from headstart.heads.ood import Familiar, familiar, held_out_distances
from headstart.heads.solve import Solution
from headstart.machine import cores
from headstart.stats.accuracy import Z95, grouped_difference

KINDS = ("auto", "ridge", "lda", "centroid", "logistic", "mlp")
Array = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """The head chosen and fitted on all pictures, its held-out probabilities [n, k], and what was tried.

    ``familiar`` tells how far any picture is from these, ``distances`` [n] how far each was with its group left out;
    ``history`` has a record an epoch where the head was trained (mlp).
    """

    head: Head
    chosen: Candidate
    probabilities: Array
    candidates: tuple[Candidate, ...]
    familiar: Familiar
    distances: Array
    history: tuple[Epoch, ...] = ()


@dataclass(frozen=True)
class Judged:
    """What was tried, the head chosen, and the best of each tap set as it was first tried: without dropout or random
    features. Only ``chosen`` and ``best`` keep their losses [n] and scores [n, k]."""

    chosen: Candidate
    best: Mapping[tuple[str, ...], Candidate]
    candidates: tuple[Candidate, ...]


def select(
    values: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    *,
    cut: str | Sequence[str] = "auto",
    kind: str = "auto",
    dropout: float | None = None,
    seed: int = 0,
    judged: int | None = None,
    training: Training | None = None,
) -> Choice:
    """Choose and fit a head: ``judge``, and then the head of its choice on all pictures.

    ``training`` is how an mlp head is trained; it takes the deepest tap unless ``cut`` names others. The rest is as in
    ``judge``. Raises OptionError, DataError, MissingExtraError.
    """
    problem = Problem.of(values, labels, groups, judged)
    if kind == "mlp":
        _check_options(values, labels, cut, kind, dropout)
        return _trained(problem, _taps(cut) if cut != "auto" else (list(values)[-1],), training or Training(), seed)
    found = judge(values, labels, groups, cut=cut, kind=kind, dropout=dropout, seed=seed, judged=judged)
    chosen = found.chosen
    first = found.best[chosen.taps]
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(1) as beside:
        known = beside.submit(_familiarity, problem, chosen.taps, None if "dropout" in first.settings else first.basis)
        head = _fit(problem, chosen)
        probabilities = softmax(chosen.scores / chosen.temperature)
        return Choice(head, chosen, probabilities, tuple(map(bare, found.candidates)), *known.result())


def judge(
    values: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    *,
    cut: str | Sequence[str] = "auto",
    kind: str = "auto",
    dropout: float | None = None,
    seed: int = 0,
    judged: int | None = None,
) -> Judged:
    """Try heads and choose one.

    ``values`` maps tap names, shallow to deep, to vectors [n, channels]; ``labels`` [n] are 0..k-1, each
    present; ``groups`` [n] are left out whole. ``cut`` is "auto" or the taps to use side by side. ``dropout``
    in [0, 1) fixes the rate of the ridge head's closed-form dropout. Of the vectors the first ``judged`` (all,
    unless given) are of pictures; the others are further views of them, learned from and left out with their
    groups, but neither choose nor count: probabilities are of the pictures. Raises OptionError, DataError.
    """
    _check_options(values, labels, cut, kind, dropout)
    problem = Problem.of(values, labels, groups, judged)
    groups, many = groups[: problem.judged], len(labels) >= MANY
    # One thread of linear algebra in each of several workers: eigh gains little from two threads, and its
    # threads wait for each other by spinning, which on a busy machine made a fit ten times slower.
    with threadpool_limits(1, "blas"), ThreadPoolExecutor(cores()) as pool:

        def tried(tap_sets: Sequence[tuple[str, ...]]) -> list[Candidate]:
            found = pool.map(lambda taps: lean(plain_candidates(problem, taps, kind, dropout)), tap_sets)
            return [candidate for some in found for candidate in some]

        alone = [(tap,) for tap in reversed(list(values))]
        candidates = tried(alone if cut == "auto" else [_taps(cut)])
        chosen = _simplest_of_the_best(candidates, groups)
        if cut == "auto" and _has_room(chosen, groups):
            together = [tuple(values)[-number:] for number in range(2, min(3, len(values)) + 1)]
            for some in [[one] for one in together] if many else [together]:  # side by side they need twice the memory
                candidates += tried(some)
            chosen = _simplest_of_the_best(candidates, groups, [alone[0], *together, *alone[1:]])
        best = {taps: min(same, key=lambda c: c.log_loss) for taps, same in _by_taps(candidates).items()}
        if kind in ("auto", "ridge") and dropout is None and _has_room(chosen, groups):
            # One after the other: each needs several matrices of its number of features squared.
            refined = lean(dropout_candidates(problem, chosen.taps)) + lean(
                expanded_candidates(problem, chosen.taps, seed)
            )
            candidates += refined
            chosen = _simplest_of_the_best([chosen, *refined], groups)
    return Judged(chosen, best, tuple(candidates))


def as_good_as_the_best(candidates: Sequence[Candidate], groups: NDArray[np.integer]) -> list[bool]:
    """Which candidates a paired test over groups cannot tell from the one with the least loss (95%, two-sided)."""
    best = min(candidates, key=lambda c: c.log_loss)
    differences = (grouped_difference(each.losses, best.losses, groups) for each in candidates)
    return [worse <= Z95 * error for worse, error in differences]


def _trained(problem: Problem, taps: tuple[str, ...], how: Training, seed: int) -> Choice:
    """The mlp head: nothing is chosen; folds of groups say how good it is, and one more training on all makes it."""
    x = np.concatenate([np.asarray(problem.values[tap], np.float32) for tap in taps], axis=1)
    scores = held_out_mlp(x, problem.labels, problem.classes, problem.groups, how, seed)
    layers, history = fit_mlp(x, problem.labels, problem.classes, problem.groups, how, seed)
    settings: dict[str, float | str] = {
        "hidden": how.hidden, "dropout": how.dropout, "optimiser": how.optimiser, "rate": how.rate,
        "epochs": len(history),
    }  # fmt: skip
    found = problem.candidate(None, taps, "mlp", settings, scores)
    expansion = (layers.hidden, layers.offset)
    head = Head("mlp", taps, layers.weights, layers.bias, found.temperature, expansion, settings)
    known = _familiarity(problem, taps, None)
    return Choice(head, found, softmax(found.scores / found.temperature), (bare(found),), *known, tuple(history))


def _check_options(
    values: Mapping[str, NDArray[np.floating]],
    labels: NDArray[np.integer],
    cut: str | Sequence[str],
    kind: str,
    dropout: float | None,
) -> None:
    if kind not in KINDS:
        raise OptionError(f"Unknown head {kind!r}; choose one of {', '.join(KINDS)}.")
    if cut != "auto":
        for tap in [cut] if isinstance(cut, str) else cut:
            if tap not in values:
                raise OptionError(f"Unknown cut {tap!r}; this backbone has {', '.join(values)}.")
    if dropout is not None:
        if not 0 <= dropout < 1:
            raise OptionError(f"Dropout rate {dropout} cannot be used; give one from 0 up to, not including, 1.")
        if kind not in ("auto", "ridge", "mlp"):
            raise OptionError(f"Dropout has no closed form on the {kind} head; use --head ridge with it.")
    if len(np.unique(labels)) < 2:
        raise DataError("All pictures are of one class; a classifier needs pictures of at least two classes.")


def _taps(cut: str | Sequence[str]) -> tuple[str, ...]:
    return (cut,) if isinstance(cut, str) else tuple(cut)


def _familiarity(problem: Problem, taps: tuple[str, ...], basis: Basis | None) -> tuple[Familiar, Array]:
    """What the training pictures vary in, and their distances when left out; ``basis`` where it is that of ``taps``."""
    basis = basis or Basis.of(problem.vectors(taps))
    return familiar(basis), held_out_distances(basis, problem.groups)[: problem.judged]


def _has_room(candidate: Candidate, groups: NDArray[np.integer]) -> bool:
    """Whether mistakes are left that a richer head could be seen to mend: at least two groups' worth."""
    return (1 - candidate.accuracy) * len(np.unique(groups)) >= 2


def _simplest_of_the_best(
    candidates: Sequence[Candidate], groups: NDArray[np.integer], order: Sequence[tuple[str, ...]] = ()
) -> Candidate:
    """The best of the first tap set that is not significantly worse than the best of all; without ``order``, as tried.

    Random features count as a richer set than the same taps without.
    """
    places = {taps: place for place, taps in enumerate(order)}
    sets = dict.fromkeys((c.taps, "expansion" in c.settings) for c in candidates)
    champions = [
        min((c for c in candidates if (c.taps, "expansion" in c.settings) == one), key=lambda c: c.log_loss)
        for one in sorted(sets, key=lambda pair: places.get(pair[0], 0))
    ]
    alike = as_good_as_the_best(champions, groups)
    return next(champion for champion, good in zip(champions, alike, strict=True) if good)


def _by_taps(candidates: Sequence[Candidate]) -> dict[tuple[str, ...], list[Candidate]]:
    found: dict[tuple[str, ...], list[Candidate]] = {}
    for candidate in candidates:
        found.setdefault(candidate.taps, []).append(candidate)
    return found


def _fit(problem: Problem, chosen: Candidate) -> Head:
    """The chosen head on all pictures, its scales folded into weights of the taps' own vectors."""
    taps, settings, expansion, basis = chosen.taps, chosen.settings, None, chosen.basis
    assert basis is not None
    scales = basis.vectors.scales
    if basis.vectors.bend is not None:
        matrix, offset = basis.vectors.bend
        expansion = ((scales[:, None] * matrix).astype(np.float32), offset.astype(np.float32))
    weights, bias = _solved(problem, chosen, basis)
    if expansion is None:
        weights = weights * scales[:, None]
    return Head(
        chosen.kind, taps, weights.astype(np.float32), bias.astype(np.float32), chosen.temperature, expansion,
        dict(settings),
    )  # fmt: skip


def _solved(problem: Problem, chosen: Candidate, basis: Basis) -> Solution:
    settings, labels, classes = chosen.settings, problem.labels, problem.classes
    unit = float(basis.spread.sum()) / len(labels)
    if chosen.kind == "logistic":
        inner, bias = fit_logistic(basis.at(slice(None)) / np.sqrt(unit), labels, classes, float(settings["C"]))
        weights = basis.weights(inner / np.sqrt(unit))
        return weights, bias - basis.mean @ weights
    if "dropout" in settings:
        rate = float(settings["dropout"])
        return whole.ridge(basis, labels, classes, max(rate / (1 - rate), 1e-6))
    if chosen.kind == "ridge":
        return whole.ridge(basis, labels, classes, float(settings["penalty"]) * unit)
    if chosen.kind == "lda":
        return whole.lda(basis, labels, classes, float(settings["shrinkage"]) * unit)
    return whole.centroid(basis, labels, classes)
