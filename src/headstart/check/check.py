"""All checks of a dataset, in all its splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import DEFAULT_BACKBONE
from headstart.check.cells import find_cell_issues, not_recognised
from headstart.check.classes import find_class_issues
from headstart.check.duplicates import find_duplicates
from headstart.check.finding import CERTAINTIES, KINDS, Finding
from headstart.check.labels import confident_learning, find_label_issues, find_outliers
from headstart.check.quality import find_quality_issues
from headstart.data import Dataset
from headstart.data.label_sets import label_matrix
from headstart.errors import DataError
from headstart.features import Compute, FeatureCache, Features, embed
from headstart.features.features import Progress
from headstart.features.input_scaling import open_backbone
from headstart.splits.groups import find_groups
from headstart.splits.nearest import LIMIT
from headstart.splits.pairs import DisjointSets

MAKES_OUTLIERS = ("tiny", "empty", "dark", "bright", "blurred")  # an image is unlike the others for that reason
HIDES_CLASS = ("empty",)  # there is nothing that another label would fit better


@dataclass(frozen=True, eq=False)  # compared and hashed as one object: arrays have no one answer
class CheckResult:
    """The findings, in the order of ``KINDS`` and then surest first, and the group of every image by path.

    A group holds duplicates, images of one scene and images to which the dataset itself gives one group. ``features``
    are those that the images were compared by; ``notes`` are lines that the user must see, about the backbone and about
    labels that are not well recognised.
    """

    findings: tuple[Finding, ...]
    groups: Mapping[str, int]
    features: Features = field(repr=False)
    notes: tuple[str, ...] = ()


def check_dataset(
    dataset: Dataset,
    compute: Compute | None = None,
    *,
    backbone: str = DEFAULT_BACKBONE,
    cache: FeatureCache | None = None,
    progress: Progress | None = None,
) -> CheckResult:
    """Find the issues of a dataset, in which an image may have several labels.

    Features and image statistics are computed in one pass, or read from ``cache``. Images that could be crops of others
    are read a second time. Of more than ``splits.nearest.LIMIT`` images each is compared with its nearest neighbours
    alone, which an index finds. Raises DataError if no image can be read, and what ``features.embed`` raises.
    """
    compute = compute or Compute()
    opened = open_backbone(backbone, None, (), dataset, precision=compute.precision)
    network = opened.backbone
    features = embed(dataset, network, compute, cache=cache, progress=progress)
    if not len(features.index):
        raise DataError(f"None of the {len(dataset)} images of {dataset.uri} can be read; check the files.")
    if len(features.index) > LIMIT:  # what an index finds depends on the order
        features = features.by_content(dataset)
    duplicates, duplicate_sets = find_duplicates(dataset, features)
    groups = _find_groups(dataset, features, duplicate_sets)
    poor = list(find_quality_issues(dataset, features, network.preprocess.min_size))
    about_labels: list[str] = []
    if dataset.is_multi_label:
        found, recognised = find_cell_issues(dataset, features, groups, compute.threads)
        issues = list(_unexplained(found, poor, HIDES_CLASS))
        about_labels = not_recognised(issues, recognised)
    else:
        issues = list(_unexplained(find_label_issues(dataset, features, groups, compute.threads), poor, HIDES_CLASS))
    findings = [
        *_unreadable_images(dataset, features),
        *duplicates,
        *poor,
        *find_class_issues(dataset, features),
        *issues,
        *_unexplained(find_outliers(dataset, features, duplicate_sets), poor, MAKES_OUTLIERS),
    ]
    paths = [dataset.items[i].path for i in features.index]
    notes = [*([] if opened.scaling is None else [opened.scaling.note]), *network.notes, *about_labels]
    return CheckResult(_sorted(findings), dict(zip(paths, groups.tolist(), strict=True)), features, tuple(notes))


def check_from_features(
    dataset: Dataset,
    features: Features,
    classes: Sequence[str],
    probabilities: NDArray[np.float64],
    input_size: tuple[int, int],
) -> tuple[Finding, ...]:
    """Find the issues of a dataset from the features and probabilities of a fit.

    No image is read, so crops are not found. ``probabilities`` [n, k] are those of ``classes`` [k] for the n images of
    ``features``, each predicted by a head that was not trained on the image's group. ``input_size`` is the height and
    width that preprocessing needs (``Preprocess.min_size``). Findings are in the order of ``CheckResult``.
    """
    duplicates, duplicate_sets = find_duplicates(dataset, features, search_crops=False)
    items = [dataset.items[i] for i in features.index]
    class_index = {name: i for i, name in enumerate(classes)}
    labels = np.array([class_index.get(str(item.label), -1) for item in items])
    labelled = np.flatnonzero(labels >= 0)
    paths = [items[i].path for i in labelled]
    poor = list(find_quality_issues(dataset, features, input_size))
    findings = [
        *_unreadable_images(dataset, features),
        *duplicates,
        *poor,
        *find_class_issues(dataset, features),
        *_unexplained(confident_learning(paths, labels[labelled], classes, probabilities[labelled]), poor, HIDES_CLASS),
        *_unexplained(find_outliers(dataset, features, duplicate_sets), poor, MAKES_OUTLIERS),
    ]
    return _sorted(findings)


def _unexplained(findings: Iterable[Finding], poor: Iterable[Finding], kinds: Sequence[str]) -> Iterator[Finding]:
    """Yield the findings in images that are not poor in one of these ways, which would explain them."""
    explained = {path for finding in poor if finding.kind in kinds for path in finding.files}
    return (finding for finding in findings if explained.isdisjoint(finding.files))


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    rank = {kind: i for i, kind in enumerate(KINDS)}

    def position(finding: Finding) -> tuple[int, int, float, tuple[str, ...]]:
        return rank[finding.kind], CERTAINTIES.index(finding.certainty), -finding.confidence, finding.files

    return tuple(sorted(findings, key=position))


def _find_groups(dataset: Dataset, features: Features, duplicate_sets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the group [n] of every image: duplicates, images of one scene, and the groups of the dataset itself."""
    items = [dataset.items[i] for i in features.index]
    labels: NDArray[Any]
    if dataset.is_multi_label:
        values, known = label_matrix(items, dataset.label_names)
        labels = values & known
    else:
        labels = np.unique([str(item.label) for item in items], return_inverse=True)[1]
    scenes = find_groups(features.content_hashes, features.tiny_images, features.deepest, labels).index
    names = [f"group {item.group}" if item.group else f"{i}" for i, item in enumerate(items)]
    named_groups = np.unique(names, return_inverse=True)[1]
    sets = DisjointSets(len(items))
    for groups in (duplicate_sets, scenes, named_groups):
        sets.union_equal_rows(groups[:, None])
    return sets.labels()


def _unreadable_images(dataset: Dataset, features: Features) -> Iterator[Finding]:
    for image in (*dataset.quarantined, *features.quarantined):
        yield Finding("unreadable", (image.path,), "certain", 1.0, "replace or remove it", image.reason)
