"""Label issues by confident learning, and outliers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.check.finding import Finding
from headstart.check.quality import MAD_TO_SIGMA
from headstart.data import Dataset
from headstart.features import Features
from headstart.heads.selection import select_head
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas
from headstart.splits.groups import nearest_neighbours

NEIGHBOURS = 10
MAX_DEVIATION = 3.0  # robust standard deviations by which the similarity to the neighbours may be below the median


def find_label_issues(
    dataset: Dataset, features: Features, groups: NDArray[np.int64], workers: int = 1
) -> Iterator[Finding]:
    """Find labels that are probably wrong, by a head on the deepest tap, evaluated by leave-one-group-out.

    There are none to find where all images are of one class or one group.
    """
    items = [dataset.items[i] for i in features.index]
    labelled = np.array([i for i, item in enumerate(items) if item.label is not None], np.int64)
    classes = sorted({str(items[i].label) for i in labelled})
    if len(classes) < 2 or len(np.unique(groups[labelled])) < 2:  # nothing to learn from, or to hold out
        return
    labels = np.array([classes.index(str(items[i].label)) for i in labelled])
    tap = features.deepest_tap
    training_set = TrainingSet.of({tap: features.vectors(labelled)[tap]}, labels, groups[labelled])
    with single_threaded_blas():
        probabilities = select_head(training_set, workers=workers).probabilities
    yield from confident_learning([items[i].path for i in labelled], labels, classes, probabilities)


def confident_learning(
    paths: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[Finding]:
    """Find wrong labels among n images by probabilities [n, k] of heads that were not trained on the image's group.

    Confident learning (Northcutt, Jiang & Chuang 2021, section 3.1): a label is suspect if another class is the most
    probable one and at least as probable as it is on average for the images labelled as that class.
    """
    thresholds = np.ones(len(classes))
    for index in range(len(classes)):
        self_confidence = probabilities[labels == index, index]
        if len(self_confidence):
            thresholds[index] = self_confidence.mean()
    predicted = probabilities.argmax(axis=1)
    is_suspect = (predicted != labels) & (probabilities.max(axis=1) >= thresholds[predicted])
    for i in np.flatnonzero(is_suspect):
        name = classes[predicted[i]]
        p_predicted, p_label = probabilities[i, predicted[i]], probabilities[i, labels[i]]
        why = f"labelled {classes[labels[i]]}, predicted {name} ({p_predicted:.0%})"
        yield Finding("label_issue", (paths[int(i)],), float(p_predicted - p_label), f"review: relabel as {name}?", why)


def find_outliers(dataset: Dataset, features: Features, duplicate_sets: NDArray[np.int64]) -> Iterator[Finding]:
    """Find images whose mean cosine similarity to their 10 nearest neighbours is far below the median of all images.

    Only the nearest neighbours count, since images of a class may form several clusters (Sun et al. 2022,
    "Out-of-distribution detection with deep nearest neighbors"); an image's own duplicates do not. Fewer than 12 images
    have no outliers.
    """
    count = min(NEIGHBOURS, len(features.index) // 4)
    if count < 3:
        return
    _, cosines = nearest_neighbours(features.deepest, duplicate_sets, count, centred=False)
    similarity = cosines.mean(axis=1)
    median = float(np.median(similarity))
    below = similarity[similarity < median]
    sigma = MAD_TO_SIGMA * float(np.median(median - below)) if len(below) else 0.0
    if sigma <= 0:
        return
    deviations = (median - similarity) / sigma
    for i in np.flatnonzero(deviations > MAX_DEVIATION):
        path = dataset.items[features.index[i]].path
        confidence = 1 - MAX_DEVIATION / float(deviations[i]) / 2
        why = f"similarity to its nearest neighbours {similarity[i]:.2f}, median {median:.2f}"
        yield Finding("outlier", (path,), confidence, "review: remove it if it does not belong here", why)
