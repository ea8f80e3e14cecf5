"""Label issues by confident learning, and outliers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.check.finding import Finding
from headstart.data import Dataset
from headstart.features import Features
from headstart.heads.selection import select_head
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas
from headstart.splits import clusters
from headstart.splits.groups import nearest_neighbours

NEIGHBOURS = 10
TAPS = 3  # the deepest, at whose distances outliers are found
MIN_TAIL = 3.5  # of an outlier: see ``find_outliers``
MIN_ACCURACY = 0.92  # of held-out predictions, from which on a label that contradicts them is probably wrong


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
    probable one and at least as probable as it is on average for the images labelled as that class. Where the
    predictions are often wrong, images that are hard to classify are as suspect as wrong labels.
    """
    thresholds = np.ones(len(classes))
    for index in range(len(classes)):
        self_confidence = probabilities[labels == index, index]
        if len(self_confidence):
            thresholds[index] = self_confidence.mean()
    predicted = probabilities.argmax(axis=1)
    is_suspect = (predicted != labels) & (probabilities.max(axis=1) >= thresholds[predicted])
    certainty = "likely" if len(labels) and (predicted == labels).mean() >= MIN_ACCURACY else "possible"
    for i in np.flatnonzero(is_suspect):
        name = classes[predicted[i]]
        p_predicted, p_label = probabilities[i, predicted[i]], probabilities[i, labels[i]]
        why = f"labelled {classes[labels[i]]}, predicted {name} with probability {p_predicted:.0%}"
        action, confidence = f"review: relabel as {name}?", float(p_predicted - p_label)
        yield Finding("label_issue", (paths[int(i)],), certainty, confidence, action, why, name)


def find_outliers(dataset: Dataset, features: Features, duplicate_sets: NDArray[np.int64]) -> Iterator[Finding]:
    """Find images that are far from their nearest neighbours, at several depths of the backbone at once.

    The distance is one minus the mean cosine similarity to the 10 nearest images, multiplied over the three deepest
    taps. Only the nearest neighbours count, since images of a class may form several clusters (Sun et al. 2022,
    "Out-of-distribution detection with deep nearest neighbors"); an image's own duplicates do not. Of many images
    they are sought in a part that is spread evenly (``splits.groups.nearest_neighbours``), and those of outliers again
    in all.

    The limit allows for heavy tails: an exponential tail is drawn through the distances that a quarter and a tenth of
    the images exceed, and the largest of n distances is expected at n times the probability equal to 1. An outlier is
    MIN_TAIL scales of that tail beyond it. Fewer than 12 images have no outliers.
    """
    count = min(NEIGHBOURS, len(features.index) // 4)
    if count < 3:
        return
    distances, cosines = _distances(features, duplicate_sets, count)
    quarter, tenth = np.quantile(distances, [0.75, 0.9])
    scale = (tenth - quarter) / np.log(0.25 / 0.1)
    if scale <= 0:
        return
    median, expected = float(np.median(cosines)), np.log(0.1 * len(distances))  # the latter of the largest, in scales
    tail = (distances - tenth) / scale - expected
    outliers = np.flatnonzero(tail > MIN_TAIL)
    if len(distances) > clusters.LIMIT and len(outliers):  # those of a rare kind may be few in a part
        distances[outliers], cosines[outliers] = _distances(features, duplicate_sets, count, outliers)
        tail = (distances - tenth) / scale - expected
    for i in outliers[tail[outliers] > MIN_TAIL]:
        path = dataset.items[features.index[i]].path
        confidence = 1 - MIN_TAIL / float(tail[i]) / 2
        why = f"similarity {cosines[i]:.2f} to the images most like it; half of all images have {median:.2f} or more"
        yield Finding("outlier", (path,), "likely", confidence, "review: remove it if it does not belong here", why)


def _distances(
    features: Features, duplicate_sets: NDArray[np.int64], count: int, images: NDArray[np.int64] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.floating]]:
    """Return how far images [m] are from the ``count`` nearest over the deepest taps, and the deepest's mean cosine."""
    distances: NDArray[np.float64] = np.ones(1)
    cosines: NDArray[np.floating] = np.empty(0)
    for values in list(features.values.values())[-TAPS:]:
        nearest = nearest_neighbours(values, duplicate_sets, count, images=images, centred=False)[1]
        cosines = nearest.mean(axis=1)
        distances = distances * (1 - cosines)
    return distances, cosines
