"""The kinds of heads, and how well each candidate predicts images whose group was left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from headstart.heads.centroid import CENTROID
from headstart.heads.kinds import Array, HeadKind, LinearProblem, Settings
from headstart.heads.lda import LDA
from headstart.heads.leave_one_group_out import chunks_of_groups
from headstart.heads.logistic import LOGISTIC
from headstart.heads.ridge import RIDGE
from headstart.heads.training_set import TrainingSet
from headstart.stats.accuracy import errors_to_each_side
from headstart.stats.paired import grouped_difference
from headstart.stats.temperature import fit_temperature, log_losses

KINDS: dict[str, HeadKind] = {kind.name: kind for kind in (RIDGE, LDA, CENTROID, LOGISTIC)}
SCORES_AT_ONCE = 4_000_000  # numbers, 32 MB: as many settings at a time; each time reads all vectors anew
ROWS_AT_ONCE = 4096


@dataclass(frozen=True)
class Candidate:
    """A head that was tried: its taps, kind and settings, and its leave-one-group-out log-loss and accuracy.

    ``scaling`` is how its vectors were scaled (see ``TrainingSet.scales``), "" where they were not; ``weight`` its
    share, 0 to 1, of the head that was selected.
    """

    taps: tuple[str, ...]
    kind: str
    scaling: str
    settings: Settings
    log_loss: float = 0.0
    accuracy: float = 0.0
    temperature: float = 1.0
    weight: float = 0.0

    def to_dict(self) -> dict[str, object]:
        """Return the JSON form in ``run.json``."""
        return {
            "taps": list(self.taps),
            "kind": self.kind,
            "scaling": self.scaling,
            **self.settings,
            "log_loss": self.log_loss,
            "accuracy": self.accuracy,
            "weight": self.weight,
        }


@dataclass(frozen=True)
class ScoredCandidate:
    """A candidate, its log-loss [m] and scores [m, k] of the images evaluated, their group left out, and its problem.

    ``problem`` is None for a head that was not solved in closed form.
    """

    candidate: Candidate
    losses: Array = field(repr=False)
    scores: Array = field(repr=False)
    problem: LinearProblem | None = field(repr=False)


@dataclass(frozen=True)
class Trial:
    """All candidates of one kind that were tried on one set of taps, in order. Only the best keeps its scores."""

    candidates: tuple[Candidate, ...]
    best: ScoredCandidate


def try_settings(
    training_set: TrainingSet, taps: tuple[str, ...], scaling: str, problem: LinearProblem, kind: HeadKind
) -> Trial:
    """Evaluate every setting in the grid of a kind of head on the images among the rows of a problem."""
    is_image = problem.rows < training_set.images
    images = problem.rows[is_image]
    candidates: list[Candidate] = []
    best: ScoredCandidate | None = None
    for chunk in _chunks(kind.grid, problem):
        for settings, scores in zip(chunk, kind.held_out(problem, chunk), strict=True):
            candidate = Candidate(taps, kind.name, scaling, settings)
            start = candidates[-1].temperature if candidates else None
            scored = score_candidate(training_set, candidate, scores[is_image], images, problem, start)
            candidates.append(scored.candidate)
            if best is None or scored.candidate.log_loss < best.candidate.log_loss:
                # A copy, so that the scores of the whole chunk can go.
                best = replace(scored, scores=scored.scores.copy())
    assert best is not None
    return Trial(tuple(candidates), best)


def score_candidate(
    training_set: TrainingSet,
    candidate: Candidate,
    scores: Array,
    images: NDArray[np.integer] | None = None,
    problem: LinearProblem | None = None,
    start: float | None = None,
) -> ScoredCandidate:
    """Evaluate held-out scores [m, k] of some images, of all unless stated, at the temperature that suits them best.

    ``start`` is a temperature to begin the search for it at.
    """
    labels = training_set.image_labels if images is None else training_set.image_labels[images]
    temperature = fit_temperature(scores, labels, training_set.smoothing, start)
    losses = log_losses(scores, labels, temperature, training_set.smoothing)
    accuracy = float((scores.argmax(axis=1) == labels).mean())
    evaluated = replace(candidate, log_loss=float(losses.mean()), accuracy=accuracy, temperature=temperature)
    return ScoredCandidate(evaluated, losses, scores, problem)


def score_all_images(training_set: TrainingSet, scored: ScoredCandidate) -> ScoredCandidate:
    """Return the candidate with the scores of all images; the same where it has them already."""
    candidate, problem = scored.candidate, scored.problem
    if problem is None or len(scored.scores) == training_set.images:
        return scored
    scores = np.empty((len(training_set), training_set.targets.classes))
    for rows in chunks_of_groups(training_set.targets.groups, ROWS_AT_ONCE):
        scores[rows] = KINDS[candidate.kind].held_out(problem.at(rows), [candidate.settings])[0]
    scores = scores[: training_set.images]
    return score_candidate(training_set, candidate, scores, None, problem, candidate.temperature)


def tied_with_best(candidates: Sequence[ScoredCandidate], groups: NDArray[np.integer]) -> list[bool]:
    """Return which candidates a paired test over groups cannot distinguish from the one with the least loss (95%)."""
    best = min(candidates, key=lambda scored: scored.candidate.log_loss)
    differences = (grouped_difference(scored.losses, best.losses, groups) for scored in candidates)
    reach = errors_to_each_side(len(np.unique(groups)))
    return [difference <= reach * error for difference, error in differences]


def _chunks(grid: Sequence[Settings], problem: LinearProblem) -> Iterator[Sequence[Settings]]:
    step = max(1, SCORES_AT_ONCE // max(1, len(problem.rows) * problem.targets.classes))
    return (grid[i : i + step] for i in range(0, len(grid), step))
