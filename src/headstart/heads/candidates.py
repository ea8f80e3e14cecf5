"""The kinds of heads, and how well each candidate predicts images whose group was left out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headstart.heads.centroid import CENTROID
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.kinds import Array, HeadKind, Settings
from headstart.heads.lda import LDA
from headstart.heads.logistic import LOGISTIC
from headstart.heads.ridge import DROPOUT_GRID, RIDGE
from headstart.heads.training_set import RANDOM_FEATURES, TrainingSet
from headstart.stats.temperature import fit_temperature, log_losses

KINDS: dict[str, HeadKind] = {kind.name: kind for kind in (RIDGE, LDA, CENTROID, LOGISTIC)}
AUTO_KINDS = ("ridge", "lda", "centroid")  # what is tried where no kind is asked for
SCORES_AT_ONCE = 4_000_000  # numbers, 32 MB: as many settings at a time; each time reads all vectors anew


@dataclass(frozen=True)
class Candidate:
    """A head that was tried: its taps, kind and settings, and its leave-one-group-out log-loss and accuracy."""

    taps: tuple[str, ...]
    kind: str
    settings: Settings
    log_loss: float
    accuracy: float
    temperature: float

    @property
    def has_random_features(self) -> bool:
        """Whether the head sits on random features of the taps."""
        return "random_features" in self.settings

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form in ``run.json``."""
        return {
            "taps": list(self.taps),
            "kind": self.kind,
            **self.settings,
            "log_loss": self.log_loss,
            "accuracy": self.accuracy,
        }


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate with the log-loss [n] and the scores [n, k] of each image, its group left out, and its basis."""

    candidate: Candidate
    losses: Array = field(repr=False)
    scores: Array = field(repr=False)
    basis: Eigenbasis | None = field(repr=False)


@dataclass(frozen=True)
class Trial:
    """All candidates that were tried on one set of taps, in order. Only the best keeps its scores: they are large."""

    candidates: tuple[Candidate, ...]
    best: ScoredCandidate


def try_kinds(training_set: TrainingSet, taps: tuple[str, ...], kind: str, dropout: float | None) -> Trial:
    """Try the heads of a kind, or of all ("auto"), on some taps with every setting of their grids.

    ``dropout`` in [0, 1) fixes the rate of closed-form dropout instead.
    """
    if dropout is not None:
        return try_dropout(training_set, taps, ({"dropout": dropout},))
    basis = Eigenbasis.of(training_set.vectors(taps))
    names = AUTO_KINDS if kind == "auto" else (kind,)
    return _merge([_try_settings(training_set, taps, basis, KINDS[name], KINDS[name].grid) for name in names])


def try_dropout(training_set: TrainingSet, taps: tuple[str, ...], grid: Sequence[Settings] = DROPOUT_GRID) -> Trial:
    """Try ridge with closed-form dropout at each rate."""
    basis = Eigenbasis.of(training_set.dropout_vectors(taps))
    return _try_settings(training_set, taps, basis, RIDGE, grid)


def try_random_features(training_set: TrainingSet, taps: tuple[str, ...], seed: int) -> Trial:
    """Try ridge on random ReLU features."""
    basis = Eigenbasis.of(training_set.random_feature_vectors(taps, seed))
    return _try_settings(training_set, taps, basis, RIDGE, RIDGE.grid, {"random_features": RANDOM_FEATURES})


def score_candidate(
    training_set: TrainingSet,
    basis: Eigenbasis | None,
    taps: tuple[str, ...],
    kind: str,
    settings: Settings,
    scores: Array,
) -> ScoredCandidate:
    """Evaluate held-out scores [n, k] at the temperature that suits them best."""
    scores, labels = scores[: training_set.images], training_set.image_labels
    temperature = fit_temperature(scores, labels, training_set.smoothing)
    losses = log_losses(scores, labels, temperature, training_set.smoothing)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    candidate = Candidate(taps, kind, settings, float(losses.mean()), accuracy, temperature)
    return ScoredCandidate(candidate, losses, scores, basis)


def _try_settings(
    training_set: TrainingSet,
    taps: tuple[str, ...],
    basis: Eigenbasis,
    kind: HeadKind,
    grid: Sequence[Settings],
    shown_settings: Mapping[str, float] | None = None,
) -> Trial:
    """Evaluate every setting of ``grid``; ``shown_settings`` are recorded with each."""
    candidates: list[Candidate] = []
    best: ScoredCandidate | None = None
    for chunk in _chunks(grid, training_set):
        for settings, scores in zip(chunk, kind.held_out(basis, training_set.targets, chunk), strict=True):
            shown = {**settings, **(shown_settings or {})}
            scored = score_candidate(training_set, basis, taps, kind.name, shown, scores)
            candidates.append(scored.candidate)
            if best is None or scored.candidate.log_loss < best.candidate.log_loss:
                # A copy, so that the scores of the whole chunk can go.
                best = ScoredCandidate(scored.candidate, scored.losses, scored.scores.copy(), basis)
    assert best is not None
    return Trial(tuple(candidates), best)


def _chunks(grid: Sequence[Settings], training_set: TrainingSet) -> Iterator[Sequence[Settings]]:
    step = max(1, SCORES_AT_ONCE // (len(training_set) * training_set.targets.classes))
    return (grid[i : i + step] for i in range(0, len(grid), step))


def _merge(trials: Sequence[Trial]) -> Trial:
    candidates = tuple(candidate for trial in trials for candidate in trial.candidates)
    return Trial(candidates, min((trial.best for trial in trials), key=lambda best: best.candidate.log_loss))
