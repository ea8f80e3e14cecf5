"""The heads that are tried: what each would have said of groups left out, and how good that is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads import held_out
from headstart.heads.held_out import Basis
from headstart.heads.logistic import held_out_logistic
from headstart.heads.random_features import expansion_for
from headstart.heads.vectors import Vectors
from headstart.stats import fit_temperature, label_smoothing, log_losses

PENALTIES = tuple(float(x) for x in np.geomspace(10**-2.5, 10, 8))  # times the mean squared spread of a picture
DROPOUT_RATES = (0.1, 0.3, 0.5, 0.7, 0.9)
INVERSE_PENALTIES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)  # scikit-learn's C
EXPANDED = 1024

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Candidate:
    """One head that was tried: its taps, kind and settings, and how it did on groups left out."""

    taps: tuple[str, ...]
    kind: str
    settings: Mapping[str, float | str]
    log_loss: float
    accuracy: float
    temperature: float
    losses: NDArray[np.float64] = field(repr=False, compare=False)
    scores: Array = field(repr=False, compare=False)
    basis: Basis | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, object]:
        """The JSON form in ``run.json``."""
        return {
            "taps": list(self.taps),
            "kind": self.kind,
            **self.settings,
            "log_loss": self.log_loss,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class Problem:
    """What is to be learned: vectors by tap, labels [n], groups [n], and how many of the n are pictures, not views."""

    values: Mapping[str, NDArray[np.floating]]
    labels: NDArray[np.integer]
    classes: int
    groups: NDArray[np.integer]
    smooth: float
    judged: int

    @classmethod
    def of(
        cls, values: Mapping[str, NDArray[np.floating]], labels: NDArray[np.integer], groups: NDArray[np.integer],
        judged: int | None,
    ) -> Problem:  # fmt: skip
        """The problem; all vectors are of pictures unless ``judged`` says how many."""
        smooth = label_smoothing(len(np.unique(groups)))
        return cls(values, labels, int(labels.max()) + 1, groups, smooth, len(labels) if judged is None else judged)

    def vectors(self, taps: Sequence[str]) -> Vectors:
        """The taps side by side, each scaled to the same total variance, so that none drowns another."""
        parts = tuple(self.values[tap] for tap in taps)
        scales = []
        for part in parts:
            mean, squares = Vectors.of(part).moments()
            variance = float((squares - mean**2).sum())
            scales.append(np.full(part.shape[1], 1 / np.sqrt(variance) if variance > 0 else 1.0))
        return Vectors(parts, np.concatenate(scales))

    def for_dropout(self, taps: Sequence[str]) -> Vectors:
        """Dropout's penalty is on each number's own second moment: divide by its root, then the penalty is even.

        The moments are those of all pictures, also where a group is left out: they use no label.
        """
        plain = Vectors.of(*(self.values[tap] for tap in taps))
        moments = plain.moments()[1] * len(plain)
        return replace(plain, scales=np.where(moments > 0, 1 / np.sqrt(np.where(moments > 0, moments, 1)), 0.0))

    def expanded(self, taps: Sequence[str], seed: int) -> Vectors:
        """Random ReLU features of the taps."""
        plain = self.vectors(taps)
        return replace(plain, bend=expansion_for(plain, EXPANDED, seed))

    def ridges(
        self,
        taps: tuple[str, ...],
        basis: Basis,
        penalties: Mapping[float, float],
        name: str,
        more: dict[str, float],
    ) -> list[Candidate]:
        """A candidate for each setting (called ``name``) and the absolute penalty it stands for."""
        found: list[Candidate] = []
        for some in self._chunks(penalties):
            absolute = [penalties[p] for p in some]
            scores = held_out.ridge(basis, self.labels, self.classes, self.groups, absolute)
            tried = (
                self.candidate(basis, taps, "ridge", {name: p, **more}, one)
                for p, one in zip(some, scores, strict=True)
            )
            found = lean([*found, *tried])
        return found

    def ldas(self, taps: tuple[str, ...], basis: Basis, shrinkages: Mapping[float, float]) -> list[Candidate]:
        """The same for LDA."""
        found: list[Candidate] = []
        for some in self._chunks(shrinkages):
            absolute = [shrinkages[p] for p in some]
            scores = held_out.lda(basis, self.labels, self.classes, self.groups, absolute)
            tried = (
                self.candidate(basis, taps, "lda", {"shrinkage": p}, one) for p, one in zip(some, scores, strict=True)
            )
            found = lean([*found, *tried])
        return found

    def _chunks(self, settings: Mapping[float, float]) -> Iterator[list[float]]:
        """The settings, as many at a time as keep their scores in 32 MB: each time reads all vectors anew."""
        step = max(1, 4_000_000 // (len(self.labels) * self.classes))
        names = list(settings)
        return (names[i : i + step] for i in range(0, len(names), step))

    def candidate(
        self, basis: Basis | None, taps: tuple[str, ...], kind: str, settings: dict[str, float | str], scores: Array
    ) -> Candidate:
        """A candidate by its held-out scores, with the temperature that suits them best."""
        scores, labels = scores[: self.judged], self.labels[: self.judged]
        temperature = fit_temperature(scores, labels, self.smooth)
        losses = log_losses(scores, labels, temperature, self.smooth)
        right = float((scores.argmax(axis=1) == labels).mean())
        return Candidate(taps, kind, settings, float(losses.mean()), right, temperature, losses, scores, basis)


def plain_candidates(problem: Problem, taps: tuple[str, ...], kind: str, dropout: float | None) -> list[Candidate]:
    """The heads of a kind (or of all) on some taps, with every penalty."""
    if dropout is not None:
        return dropout_candidates(problem, taps, (dropout,))
    found = []
    basis = Basis.of(problem.vectors(taps))
    unit = float(basis.spread.sum()) / len(problem.labels)
    if kind in ("auto", "ridge"):
        found += problem.ridges(taps, basis, {p: p * unit for p in PENALTIES}, "penalty", {})
    if kind in ("auto", "lda"):
        found += problem.ldas(taps, basis, {p: p * unit for p in PENALTIES})
    if kind in ("auto", "centroid"):
        scores = held_out.centroid(basis, problem.labels, problem.classes, problem.groups)
        found.append(problem.candidate(basis, taps, "centroid", {}, scores))
    if kind == "logistic":
        for c, scores in held_out_logistic(
            basis.at(slice(None)) / np.sqrt(unit),
            problem.labels,
            problem.classes,
            problem.groups,
            INVERSE_PENALTIES,
        ):
            found.append(problem.candidate(basis, taps, "logistic", {"C": c}, scores))
    return found


def dropout_candidates(
    problem: Problem, taps: tuple[str, ...], rates: Sequence[float] = DROPOUT_RATES
) -> list[Candidate]:
    """Ridge with closed-form dropout at each rate."""
    basis = Basis.of(problem.for_dropout(taps))
    return problem.ridges(taps, basis, {rate: max(rate / (1 - rate), 1e-6) for rate in rates}, "dropout", {})


def expanded_candidates(problem: Problem, taps: tuple[str, ...], seed: int) -> list[Candidate]:
    """Ridge on random ReLU features."""
    basis = Basis.of(problem.expanded(taps, seed))
    unit = float(basis.spread.sum()) / len(problem.labels)
    return problem.ridges(taps, basis, {p: p * unit for p in PENALTIES}, "penalty", {"expansion": EXPANDED})


def lean(candidates: list[Candidate]) -> list[Candidate]:
    """Only the best keeps scores, losses and basis: nobody asks for the others', and they grow with the pictures."""
    best = min(candidates, key=lambda c: c.log_loss)
    return [replace(c, scores=c.scores.copy()) if c is best else bare(c) for c in candidates]


def bare(candidate: Candidate) -> Candidate:
    """The candidate without what grows with the pictures."""
    return replace(candidate, scores=np.empty((0, 0)), losses=np.empty(0), basis=None)
