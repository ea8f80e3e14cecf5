"""What the other pictures say of a label, and pictures that belong to no class."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.check.finding import Finding
from headstart.data import Dataset
from headstart.features.features import Features
from headstart.heads import select
from headstart.splits.groups import nearest_neighbours

NEIGHBOURS = 10
FAR = 3.0  # robust deviations below the others' similarity


def suspects(dataset: Dataset, features: Features, groups: NDArray[np.int64]) -> Iterator[Finding]:
    """Labels that a classifier, with the picture's group left out, holds for wrong.

    Confident learning (Northcutt, Jiang & Chuang 2021, section 3.1): a picture is suspect if another class is the most
    probable one and at least as probable as it is on average for that class's own pictures.
    """
    items = [dataset.items[i] for i in features.index]
    labelled = np.array([i for i, item in enumerate(items) if item.label is not None], np.int64)
    classes = sorted({str(items[i].label) for i in labelled})
    if len(classes) < 2:
        return
    labels = np.array([classes.index(str(items[i].label)) for i in labelled])
    values = features.vectors(labelled)
    deepest = list(values)[-1]
    chosen = select({deepest: values[deepest]}, labels, groups[labelled]).probabilities
    yield from disagreements([items[i].path for i in labelled], labels, classes, chosen)


def disagreements(
    paths: Sequence[str], labels: NDArray[np.int64], classes: Sequence[str], probabilities: NDArray[np.float64]
) -> Iterator[Finding]:
    """The same of n pictures by probabilities [n, k] that somebody made with each picture's group left out."""
    picked = (probabilities[labels == c, c] for c in range(len(classes)))
    own = np.array([some.mean() if len(some) else 1.0 for some in picked])
    best = probabilities.argmax(axis=1)
    for i in np.flatnonzero((best != labels) & (probabilities.max(axis=1) >= own[best])):
        answer, label = probabilities[i, best[i]], probabilities[i, labels[i]]
        name = classes[best[i]]
        why = f"labelled {classes[labels[i]]}, looks like {name} ({answer:.0%})"
        yield Finding("label_suspect", (paths[int(i)],), float(answer - label), f"look: relabel as {name}?", why)


def foreign(dataset: Dataset, features: Features, families: NDArray[np.int64]) -> Iterator[Finding]:
    """Pictures unlike all others: the mean cosine of features with the 10 nearest is far below the usual.

    The nearest neighbours, since pictures of a class may form several clusters (Sun et al. 2022, "Out-of-distribution
    detection with deep nearest neighbors"); copies of the picture itself do not count.
    """
    count = min(NEIGHBOURS, len(features.index) // 4)
    if count < 3:
        return
    deepest = features.values[list(features.values)[-1]]
    near = nearest_neighbours(deepest, families, count, centred=False)[1].mean(axis=1)
    middle = float(np.median(near))
    below = near[near < middle]
    spread = 1.4826 * float(np.median(middle - below)) if len(below) else 0.0
    if spread <= 0:
        return
    for i, far in enumerate((middle - near) / spread):
        if far > FAR:
            yield Finding(
                "outlier", (dataset.items[features.index[i]].path,), 1 - FAR / float(far) / 2,
                "look: does it belong here? else drop it", f"similarity {near[i]:.2f}, usual {middle:.2f}",
            )  # fmt: skip
