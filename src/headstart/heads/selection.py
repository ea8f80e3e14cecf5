"""Choose taps, kind of head and penalty by how well each predicts images whose group was left out.

Candidates are compared by held-out log-loss. Two rules guard against overfitting the selection when data are few:

- Log-loss is taken against labels smoothed by one unseen group (``stats.temperature.label_smoothing``), so that heads
  without a single held-out error tie, instead of the most overconfident one winning.
- Of tap sets that a paired test over groups cannot distinguish from the best at 95% (a rule in the spirit of Breiman et
  al. 1984, section 3.4.3), the earliest in a fixed order of preference is taken: the last tap alone first, since the
  deepest features were trained to be the most general, then more taps, then shallower ones.

Every tap is tried alone. Taps together, dropout and random features are tried only while enough errors are left for
them to correct.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
    score_candidate,
    try_dropout,
    try_kinds,
    try_random_features,
)
from headstart.heads.eigenbasis import Eigenbasis
from headstart.heads.head import Head, softmax
from headstart.heads.mlp import Epoch, MlpConfig, fit_mlp, held_out_mlp
from headstart.heads.ood import OodDetector, fit_ood, held_out_ood_scores
from headstart.heads.ridge import check_dropout_rate
from headstart.heads.training_set import TrainingSet
from headstart.stats.accuracy import Z95
from headstart.stats.paired import grouped_difference

CHOICES = ("auto", *KINDS, "mlp")
PACKAGES = {  # that some kinds need: modules, what they are called, and the extra that brings them
    "logistic": ({"sklearn": "scikit-learn"}, "sklearn"),
    "mlp": ({"torch": "PyTorch", "sklearn": "scikit-learn"}, "torch"),
}
MANY_IMAGES = 4096  # from here on memory is saved at the cost of a little time
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
    def taps(self) -> tuple[str, ...] | None:
        """The taps to use, None for "auto"."""
        if self.cut == "auto":
            return None
        return (self.cut,) if isinstance(self.cut, str) else tuple(self.cut)


@dataclass(frozen=True)
class SelectedHead:
    """The selected head, fitted to all images, and the evidence for it.

    ``probabilities`` [n, k] and ``ood_scores`` [n] are leave-one-group-out predictions for the training images;
    ``candidates`` are all that were tried; ``ood`` detects images unlike these. ``basis`` is that in which the head was
    solved (None for an mlp head); ``history`` has a record for each epoch where the head was trained.
    """

    head: Head
    probabilities: Array = field(repr=False)
    candidates: tuple[Candidate, ...] = field(repr=False)
    ood: OodDetector = field(repr=False)
    ood_scores: Array = field(repr=False)
    basis: Eigenbasis | None = field(default=None, repr=False)
    history: tuple[Epoch, ...] = field(default=(), repr=False)

    def without_arrays(self) -> SelectedHead:
        """Return it without the basis, which holds the features of all images."""
        return replace(self, basis=None)


@dataclass(frozen=True)
class SelectionResult:
    """The candidate that was selected, the best of each tap set without dropout and random features, and all tried."""

    selected: ScoredCandidate
    best: Mapping[tuple[str, ...], ScoredCandidate]
    candidates: tuple[Candidate, ...]


def select_head(training_set: TrainingSet, options: HeadOptions | None = None, *, workers: int = 1) -> SelectedHead:
    """Select a head by ``rank_candidates`` and fit it to all images. ``workers`` threads try candidates.

    Raises OptionError, DataError, MissingExtraError.
    """
    options = options or HeadOptions()
    if options.kind == "mlp":
        return _train_mlp(training_set, options)
    result = rank_candidates(training_set, options, workers=workers)
    selected = result.selected
    taps = selected.candidate.taps
    plain = result.best[taps]
    basis = None if "dropout" in plain.candidate.settings else plain.basis
    with ThreadPoolExecutor(1) as pool:
        ood = pool.submit(_fit_ood, training_set, taps, basis)
        head = _fit_head(training_set, selected)
        probabilities = softmax(selected.scores / selected.candidate.temperature)
        return SelectedHead(head, probabilities, result.candidates, *ood.result(), basis=selected.basis)


def rank_candidates(
    training_set: TrainingSet, options: HeadOptions | None = None, *, workers: int = 1
) -> SelectionResult:
    """Try heads and select one by its leave-one-group-out log-loss. Raises OptionError, DataError."""
    options = options or HeadOptions()
    _check_options(training_set, options)
    taps, groups = tuple(training_set.values), training_set.image_groups
    kind, dropout = options.kind, options.dropout

    with ThreadPoolExecutor(workers) as pool:

        def try_tap_sets(tap_sets: Sequence[tuple[str, ...]]) -> list[Trial]:
            return list(pool.map(lambda tap_set: try_kinds(training_set, tap_set, kind, dropout), tap_sets))

        single = [(tap,) for tap in reversed(taps)]
        trials = try_tap_sets(single if options.taps is None else [options.taps])
        selected = _first_not_worse([trial.best for trial in trials], groups)
        if options.taps is None and _leaves_enough_errors(selected, groups):
            together = [taps[-count:] for count in range(2, min(3, len(taps)) + 1)]
            # Of many images one tap set after the other: two at a time need twice the memory.
            batches = [[tap_set] for tap_set in together] if len(training_set) >= MANY_IMAGES else [together]
            for batch in batches:
                trials += try_tap_sets(batch)
            order = [single[0], *together, *single[1:]]
            selected = _first_not_worse([trial.best for trial in trials], groups, order)
        best = {trial.best.candidate.taps: trial.best for trial in trials}
        if kind in ("auto", "ridge") and dropout is None and _leaves_enough_errors(selected, groups):
            # One after the other: each needs several square matrices as wide as the number of features.
            taps = selected.candidate.taps
            refined = [try_dropout(training_set, taps), try_random_features(training_set, taps, options.seed)]
            selected = _first_not_worse([selected, *(trial.best for trial in refined)], groups)
            trials += refined
    candidates = tuple(candidate for trial in trials for candidate in trial.candidates)
    return SelectionResult(selected, best, candidates)


def tied_with_best(candidates: Sequence[ScoredCandidate], groups: NDArray[np.integer]) -> list[bool]:
    """Return which candidates a paired test over groups cannot distinguish from the one with the least loss (95%)."""
    best = min(candidates, key=lambda scored: scored.candidate.log_loss)
    differences = (grouped_difference(scored.losses, best.losses, groups) for scored in candidates)
    return [difference <= Z95 * error for difference, error in differences]


def _train_mlp(training_set: TrainingSet, options: HeadOptions) -> SelectedHead:
    """Train an mlp head on all images, after folds of groups have shown how good it is; nothing is selected."""
    _check_options(training_set, options)
    config = options.mlp if options.dropout is None else replace(options.mlp, dropout=options.dropout)
    taps = options.taps or (list(training_set.values)[-1],)
    x = np.concatenate([np.asarray(training_set.values[tap], np.float32) for tap in taps], axis=1)
    scores = held_out_mlp(x, training_set.targets, config, options.seed)
    layers, history = fit_mlp(x, training_set.targets, config, options.seed)
    settings: dict[str, float | str] = {
        "hidden": config.hidden,
        "dropout": config.dropout,
        "optimizer": config.optimizer,
        "learning_rate": config.learning_rate,
        "epochs": len(history),
    }
    scored = score_candidate(training_set, None, taps, "mlp", settings, scores)
    temperature = scored.candidate.temperature
    hidden_layer = (layers.hidden_weights, layers.hidden_bias)
    head = Head("mlp", taps, layers.weights, layers.bias, temperature, hidden_layer, settings)
    probabilities = softmax(scored.scores / temperature)
    ood, ood_scores = _fit_ood(training_set, taps, None)
    return SelectedHead(head, probabilities, (scored.candidate,), ood, ood_scores, history=tuple(history))


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


def _fit_ood(training_set: TrainingSet, taps: tuple[str, ...], basis: Eigenbasis | None) -> tuple[OodDetector, Array]:
    """Fit the OOD detector and compute the held-out OOD scores; ``basis`` where it is that of ``taps``."""
    basis = basis or Eigenbasis.of(training_set.vectors(taps))
    return fit_ood(basis), held_out_ood_scores(basis, training_set.targets.groups)[: training_set.images]


def _leaves_enough_errors(scored: ScoredCandidate, groups: NDArray[np.integer]) -> bool:
    """Return whether enough errors are left for a richer head to show an improvement: at least two groups' worth."""
    return (1 - scored.candidate.accuracy) * len(np.unique(groups)) >= 2


def _first_not_worse(
    candidates: Sequence[ScoredCandidate], groups: NDArray[np.integer], order: Sequence[tuple[str, ...]] = ()
) -> ScoredCandidate:
    """Return the best of the first tap set that is not significantly worse than the best of all.

    Tap sets are in ``order``, or else in the order of the candidates. Random features count as a richer set than the
    same taps without.
    """
    positions = {taps: position for position, taps in enumerate(order)}
    by_set: dict[tuple[tuple[str, ...], bool], ScoredCandidate] = {}
    for scored in candidates:
        key = (scored.candidate.taps, scored.candidate.has_random_features)
        if key not in by_set or scored.candidate.log_loss < by_set[key].candidate.log_loss:
            by_set[key] = scored
    best_of_each_set = [by_set[key] for key in sorted(by_set, key=lambda key: positions.get(key[0], 0))]
    return next(
        scored for scored, tied in zip(best_of_each_set, tied_with_best(best_of_each_set, groups), strict=True) if tied
    )


def _fit_head(training_set: TrainingSet, selected: ScoredCandidate) -> Head:
    """Fit the selected head to all images, with its scales folded into weights on the taps' own vectors."""
    candidate, basis = selected.candidate, selected.basis
    assert basis is not None
    weights, bias = KINDS[candidate.kind].solve(basis, training_set.targets, candidate.settings)
    scales, hidden_layer = basis.vectors.scales, None
    if basis.vectors.random_features is None:
        weights = weights * scales[:, None]
    else:
        hidden_weights, hidden_bias = basis.vectors.random_features
        hidden_layer = ((scales[:, None] * hidden_weights).astype(np.float32), hidden_bias.astype(np.float32))
    return Head(
        candidate.kind,
        candidate.taps,
        weights.astype(np.float32),
        bias.astype(np.float32),
        candidate.temperature,
        hidden_layer,
        dict(candidate.settings),
    )
