"""Choose taps, scaling, kind of head and penalty by how well each predicts images whose group was left out.

The best penalty of every kind of head, on one to three of the deepest taps in two scalings, is a candidate. Candidates
are not chosen between but averaged, since the one with the least held-out loss owes some of that to chance. The average
of affine heads is one affine head. Three rules guard against overfitting when data are few:

- Log-loss is taken against labels smoothed by one unseen group (``stats.temperature.label_smoothing``), so that heads
  without a single held-out error tie, instead of the most overconfident one winning.
- A candidate's weight is ``exp(-groups * loss / 2)``: pseudo-Bayesian model averaging (Geisser & Eddy 1979; Yao et al.
  2018, section 3.2) with half the evidence, since held-out losses depend on each other, and a factor of 1/e for each
  further tap, since the deepest features were trained to be the most general.
- Further taps and scalings are tried only while enough errors are left for them to correct.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from headstart.errors import DataError, OptionError, missing_extra
from headstart.heads.candidates import (
    KINDS,
    Candidate,
    ScoredCandidate,
    Trial,
    score_all_images,
    score_candidate,
    try_settings,
)
from headstart.heads.head import Head, softmax, weigh
from headstart.heads.kinds import HeadKind, LinearProblem
from headstart.heads.lda import LDA
from headstart.heads.mlp import Epoch, HeldOut, Log, MlpConfig, check_mlp, fit_mlp, no_log
from headstart.heads.ood import OodDetector, fit_ood, held_out_ood_scores
from headstart.heads.ridge import RIDGE, check_dropout_rate
from headstart.heads.training_set import MANY_IMAGES, SCALINGS, TrainingSet, tap_sets

CHOICES = ("auto", *KINDS, "mlp")
PACKAGES = {  # that some kinds need: modules, what they are called, and the extra that brings them
    "logistic": ({"sklearn": "scikit-learn"}, "sklearn"),
    "mlp": ({"torch": "PyTorch"}, "torch"),
}
DIRECTIONS = 128  # for each tap; from MANY_IMAGES on candidates are first compared in these
FEW_EVALUATED = 1024
MAX_VECTORS = 2  # sets of taps and scalings that are then compared in all directions
MAX_EVALUATED = 4096  # images by which those with a weight are compared again; more would only cost time
OOD_DIRECTIONS = 512  # of many images, for the OOD score
MIN_WEIGHT = 0.01  # of a candidate in the average; those with less are left out
Array = NDArray[np.float64]


@dataclass(frozen=True)
class HeadOptions:
    """Which heads are tried.

    ``cut`` is "auto" or the taps to use side by side; ``kind`` one of ``CHOICES``; ``dropout`` in [0, 1) fixes the rate
    of closed-form dropout, or of the mlp head; ``seed`` is the random seed; ``mlp`` configures the training
    of an mlp head, which takes the deepest tap unless ``cut`` names others.
    """

    cut: str | tuple[str, ...] = "auto"
    kind: str = "auto"
    dropout: float | None = None
    seed: int = 0
    mlp: MlpConfig = field(default_factory=MlpConfig)

    def __post_init__(self) -> None:
        """Check what can be checked without images. Raises OptionError, MissingExtraError."""
        if self.kind not in CHOICES:
            raise OptionError(f"Unknown head {self.kind!r}; choose one of {', '.join(CHOICES)}.")
        if self.dropout is not None:
            check_dropout_rate(self.dropout)
            if self.kind not in ("auto", "ridge", "mlp"):
                raise OptionError(f"Dropout has no closed form on the {self.kind} head; use --head ridge with it.")
        modules, extra = PACKAGES.get(self.kind, ({}, ""))
        for module, name in modules.items():
            if find_spec(module) is None:
                raise missing_extra(f"The {self.kind} head needs {name}, which is not installed", extra)

    @property
    def mlp_config(self) -> MlpConfig:
        """How an mlp head is trained, with the dropout rate that is fixed, if one is."""
        return self.mlp if self.dropout is None else replace(self.mlp, dropout=self.dropout)

    @property
    def taps(self) -> tuple[str, ...] | None:
        """The taps to use, None for "auto"."""
        if self.cut == "auto":
            return None
        return (self.cut,) if isinstance(self.cut, str) else tuple(self.cut)


@dataclass(frozen=True)
class SelectedHead:
    """The selected head, fitted to all images, and the evidence for it.

    ``probabilities`` [n, k] and ``ood_scores`` [n] are leave-one-group-out predictions for the training images;
    ``candidates`` are all that were tried, each with its weight; ``ood`` detects images unlike these. ``main`` is the
    candidate with the greatest weight and what it was solved for (its problem is None for an mlp head); ``history`` has
    a record for each epoch where the head was trained. ``class_weights`` [k] are those by which ``head`` and
    ``probabilities`` were weighted; the candidates never are.
    """

    head: Head
    probabilities: Array = field(repr=False)
    candidates: tuple[Candidate, ...] = field(repr=False)
    ood: OodDetector = field(repr=False)
    ood_scores: Array = field(repr=False)
    main: ScoredCandidate | None = field(default=None, repr=False)
    history: tuple[Epoch, ...] = field(default=(), repr=False)
    class_weights: Array | None = None

    def weighted(self, weights: Array | None) -> SelectedHead:
        """Return it with the probabilities weighted by ``weights`` [k] (see ``weigh``); the same for None."""
        if weights is None:
            return self
        probabilities = weigh(self.probabilities, weights)
        return replace(self, head=self.head.weighted(weights), probabilities=probabilities, class_weights=weights)

    @property
    def unweighted_head(self) -> Head:
        """The head as it was before it was weighted."""
        return self.head if self.class_weights is None else self.head.weighted(1 / self.class_weights)

    def without_arrays(self) -> SelectedHead:
        """Return it without what the head was solved for, which holds the features of all images."""
        return replace(self, main=None)


@dataclass(frozen=True)
class SelectionResult:
    """The average of the best candidates, itself evaluated as one; those with their weights; and all that were tried.

    ``parts`` have the scores of all images, the greatest weight first. ``deepest`` is the problem of the deepest tap in
    all directions, None where it was not made.
    """

    average: ScoredCandidate
    parts: tuple[ScoredCandidate, ...]
    candidates: tuple[Candidate, ...]
    deepest: LinearProblem | None = field(default=None, repr=False)


def select_head(
    training_set: TrainingSet, options: HeadOptions | None = None, *, workers: int = 1, log: Log = no_log
) -> SelectedHead:
    """Select heads by ``rank_candidates``, fit them to all images and average them to one.

    ``workers`` threads try candidates. ``log`` receives lines of text about the trainings of an mlp head. Raises
    OptionError, DataError, MissingExtraError.
    """
    options = options or HeadOptions()
    if options.kind == "mlp":
        return _train_mlp(training_set, options, log)
    result = rank_candidates(training_set, options, workers=workers)
    with ThreadPoolExecutor(1) as pool:
        ood = pool.submit(fit_detector, training_set, result.average.candidate.taps, result.deepest)
        head = _fit_average(training_set, result)
        probabilities = softmax(result.average.scores / result.average.candidate.temperature)
        return SelectedHead(head, probabilities, result.candidates, *ood.result(), main=result.parts[0])


def rank_candidates(
    training_set: TrainingSet, options: HeadOptions | None = None, *, workers: int = 1
) -> SelectionResult:
    """Try heads and weigh them by their leave-one-group-out log-loss. Raises OptionError, DataError."""
    options = options or HeadOptions()
    _check_options(training_set, options)
    taps = tuple(training_set.values)
    together = [taps[-count:] for count in range(1, min(3, len(taps)) + 1)] if options.taps is None else [options.taps]
    kinds = _kinds(training_set, options)
    has_closed_form = kinds[0].solve_statistics is not None
    scalings = ("dropout",) if options.dropout is not None else SCALINGS if has_closed_form else ("tap",)
    many = has_closed_form and len(training_set) >= MANY_IMAGES
    rows = some_rows(training_set, FEW_EVALUATED) if many else None
    first, *others = [(tap_set, scaling) for tap_set in together for scaling in scalings]
    trials = _try_all(training_set, [first], kinds, rows, workers, in_all_directions=not many)
    if _leaves_enough_errors(min((trial.best for trial in trials), key=_log_loss), training_set, rows):
        trials += _try_all(training_set, others, kinds, rows, workers, in_all_directions=not many)
    parts = _weighted([trial.best for trial in trials], training_set, rows)
    if many:
        rows = some_rows(training_set, MAX_EVALUATED)
        parts = _weighted(_in_all_directions(training_set, parts, kinds, rows), training_set, rows)
    parts = tuple(score_all_images(training_set, part) for part in parts)
    weighted = {_key(part.candidate): part.candidate for part in parts}
    tried = {_key(candidate): candidate for trial in trials for candidate in trial.candidates}
    deepest = None if many or first != (taps[-1:], "tap") else trials[0].best.problem
    return SelectionResult(_average(training_set, parts), parts, tuple({**tried, **weighted}.values()), deepest)


def _in_all_directions(
    training_set: TrainingSet,
    parts: Sequence[ScoredCandidate],
    kinds: Sequence[HeadKind],
    rows: NDArray[np.int64] | None,
) -> list[ScoredCandidate]:
    """Solve candidates again in all directions in which the features vary, with every setting."""
    by_vectors: dict[tuple[tuple[str, ...], str], list[Candidate]] = {}
    for part in parts:
        by_vectors.setdefault((part.candidate.taps, part.candidate.scaling), []).append(part.candidate)
    best = []
    for (taps, scaling), candidates in list(by_vectors.items())[:MAX_VECTORS]:
        problem = training_set.problem(taps, scaling, rows)
        for candidate in candidates:
            kind = next(kind for kind in kinds if kind.name == candidate.kind)
            best.append(try_settings(training_set, taps, scaling, problem, kind).best)
    return best


def rank_tap_sets(training_set: TrainingSet, *, workers: int = 1) -> dict[tuple[str, ...], ScoredCandidate]:
    """Return the best candidate of each tap alone and of the deepest two and three together. Raises DataError."""
    _check_options(training_set, HeadOptions())
    sets = tap_sets(tuple(training_set.values))
    vectors = [(tap_set, scaling) for tap_set in sets for scaling in SCALINGS]
    rows = some_rows(training_set, MAX_EVALUATED)
    trials = _try_all(training_set, vectors, _kinds(training_set, HeadOptions()), rows, workers)
    best = {
        tap_set: min((trial.best for trial in trials if trial.best.candidate.taps == tap_set), key=_log_loss)
        for tap_set in sets
    }
    return {tap_set: score_all_images(training_set, scored) for tap_set, scored in best.items()}


def _kinds(training_set: TrainingSet, options: HeadOptions) -> tuple[HeadKind, ...]:
    """Return the kinds of heads to try, with their grids."""
    if options.dropout is not None:
        return (replace(RIDGE, grid=({"dropout": options.dropout},)),)
    if options.kind != "auto":
        return (KINDS[options.kind],)
    # Between two classes ridge and LDA find the same boundary (Hastie et al. 2009, exercise 4.2).
    return (RIDGE,) if training_set.targets.classes == 2 else (RIDGE, LDA)


def some_rows(training_set: TrainingSet, count: int) -> NDArray[np.int64] | None:
    """Return the rows of about ``count`` images by which candidates are compared, of whole groups; None for all."""
    if len(training_set) <= count:
        return None
    groups = training_set.targets.groups
    numbers, sizes = np.unique(groups, return_counts=True)
    order = np.random.default_rng(0).permutation(len(numbers))
    chosen = order[: max(2, int(np.searchsorted(np.cumsum(sizes[order]), count, side="right")))]
    return np.flatnonzero(np.isin(groups, numbers[chosen]))


def _try_all(
    training_set: TrainingSet,
    vectors: Sequence[tuple[tuple[str, ...], str]],
    kinds: Sequence[HeadKind],
    rows: NDArray[np.int64] | None,
    workers: int,
    *,
    in_all_directions: bool = True,
) -> list[Trial]:
    """Try all kinds of heads on each of several vectors: taps and their scaling."""
    if not vectors:
        return []

    def try_kinds(taps: tuple[str, ...], scaling: str) -> list[Trial]:
        problem = training_set.problem(taps, scaling, rows, None if in_all_directions else DIRECTIONS * len(taps))
        return [try_settings(training_set, taps, scaling, problem, kind) for kind in kinds]

    with ThreadPoolExecutor(workers) as pool:
        return [trial for trials in pool.map(try_kinds, *zip(*vectors, strict=True)) for trial in trials]


def _log_loss(scored: ScoredCandidate) -> float:
    return scored.candidate.log_loss


def _key(candidate: Candidate) -> tuple[object, ...]:
    return candidate.taps, candidate.kind, candidate.scaling, tuple(candidate.settings.items())


def _weighted(
    best: Sequence[ScoredCandidate], training_set: TrainingSet, rows: NDArray[np.int64] | None
) -> tuple[ScoredCandidate, ...]:
    """Return the candidates that take part in the average, with their weights, the greatest first."""
    groups = _count_groups(training_set, rows)
    evidence = np.array([groups * _log_loss(scored) / 2 + len(scored.candidate.taps) for scored in best])
    weights = np.exp(evidence.min() - evidence)
    weights = np.where(weights < MIN_WEIGHT * weights.sum(), 0, weights)
    weights /= weights.sum()
    order = [int(i) for i in np.argsort(-weights, kind="stable") if weights[i] > 0]
    return tuple(replace(best[i], candidate=replace(best[i].candidate, weight=float(weights[i]))) for i in order)


def _average(training_set: TrainingSet, parts: Sequence[ScoredCandidate]) -> ScoredCandidate:
    """Evaluate the average of several candidates; of one alone it is that candidate."""
    if len(parts) == 1:
        return parts[0]
    scores = np.zeros_like(parts[0].scores)
    for part in parts:
        centred = part.scores - part.scores.mean(axis=1, keepdims=True)
        scores += centred * (part.candidate.weight / part.candidate.temperature)
    candidates = [part.candidate for part in parts]
    kinds = {candidate.kind for candidate in candidates}
    scalings = {candidate.scaling for candidate in candidates}
    in_common = set.intersection(*(set(candidate.settings.items()) for candidate in candidates))
    average = Candidate(
        max((candidate.taps for candidate in candidates), key=len),
        kinds.pop() if len(kinds) == 1 else "average",
        scalings.pop() if len(scalings) == 1 else "",
        dict(in_common),
        weight=1.0,
    )
    return score_candidate(training_set, average, scores)


def _fit_average(training_set: TrainingSet, result: SelectionResult) -> Head:
    """Fit every part to all images and average them to one affine map of the taps' own vectors."""
    average = result.average.candidate
    start, starts = 0, {}
    for tap in average.taps:
        starts[tap] = start
        start += training_set.values[tap].shape[1]
    weights, bias = np.zeros((start, training_set.targets.classes)), np.zeros(training_set.targets.classes)
    for part in result.parts:
        candidate, problem = part.candidate, part.problem
        assert problem is not None
        part_weights, part_bias = KINDS[candidate.kind].solve(problem, candidate.settings)
        part_weights = part_weights * problem.basis.vectors.scales[:, None]
        if len(result.parts) > 1:
            factor = candidate.weight / candidate.temperature
            part_weights = (part_weights - part_weights.mean(axis=1, keepdims=True)) * factor
            part_bias = (part_bias - part_bias.mean()) * factor
        weights[starts[candidate.taps[0]] :] += part_weights  # the last of the average's taps
        bias += part_bias
    return Head(
        average.kind,
        average.taps,
        weights.astype(np.float32),
        bias.astype(np.float32),
        average.temperature,
        settings=dict(average.settings),
    )


def rank_mlp(training_set: TrainingSet, options: HeadOptions, log: Log = no_log) -> tuple[ScoredCandidate, HeldOut]:
    """Evaluate an mlp head by ``check_mlp``; nothing is selected. Raises OptionError, DataError."""
    _check_options(training_set, options)
    return check_mlp(
        training_set, options.taps or tuple(training_set.values)[-1:], options.mlp_config, options.seed, log
    )


def _train_mlp(training_set: TrainingSet, options: HeadOptions, log: Log) -> SelectedHead:
    """Train an mlp head on all images, after folds of groups have shown how good it is."""
    scored, held_out = rank_mlp(training_set, options, log)
    taps, temperature = scored.candidate.taps, scored.candidate.temperature
    layers, history = fit_mlp(training_set.matrix(taps), training_set.targets, options.mlp_config, options.seed)
    log(f"mlp head, on all images: {len(history)} epochs, training accuracy {history[-1].accuracy:.1%}")
    candidate = replace(scored.candidate, settings={**scored.candidate.settings, "epochs": len(history)})
    hidden_layer = (layers.hidden_weights, layers.hidden_bias)
    head = Head("mlp", taps, layers.weights, layers.bias, temperature, hidden_layer, dict(candidate.settings))
    ood, curve = fit_detector(training_set, taps), tuple(held_out.add_to(history))
    return SelectedHead(head, softmax(scored.scores / temperature), (candidate,), *ood, history=curve)


def _check_options(training_set: TrainingSet, options: HeadOptions) -> None:
    for tap in options.taps or ():
        if tap not in training_set.values:
            raise OptionError(f"Unknown cut {tap!r}; this backbone has {', '.join(training_set.values)}.")
    if len(np.unique(training_set.targets.labels)) < 2:
        raise DataError("All images are of one class; a classifier needs images of at least two classes.")
    if len(np.unique(training_set.targets.groups)) < 2:
        raise DataError(
            "All images are in one group, so that no accuracy can be measured on a group left out; add images of other "
            "scenes, or treat every image as a group of its own with --group-by none."
        )


def fit_detector(
    training_set: TrainingSet, taps: tuple[str, ...], problem: LinearProblem | None = None
) -> tuple[OodDetector, Array]:
    """Fit the OOD detector to the deepest of the head's taps, and compute the held-out OOD scores.

    ``problem`` is that of the tap, where there is one already.
    """
    if problem is None:
        directions = OOD_DIRECTIONS if len(training_set) >= MANY_IMAGES else None
        problem = training_set.problem(taps[-1:], "tap", np.zeros(0, np.int64), directions)
    scores = held_out_ood_scores(problem.basis, training_set.targets.groups)
    width = sum(training_set.values[tap].shape[1] for tap in taps[:-1])
    return fit_ood(problem.basis).behind(width), scores[: training_set.images]


def _leaves_enough_errors(scored: ScoredCandidate, training_set: TrainingSet, rows: NDArray[np.int64] | None) -> bool:
    """Return whether a richer head could show an improvement: whether at least two groups' worth of errors are left."""
    return (1 - scored.candidate.accuracy) * _count_groups(training_set, rows) >= 2


def _count_groups(training_set: TrainingSet, rows: NDArray[np.int64] | None) -> int:
    """Count the groups that are evaluated."""
    return len(np.unique(training_set.targets.groups[slice(None) if rows is None else rows]))
