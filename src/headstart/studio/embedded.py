"""The features of a project's images, computed once each and put together for a fit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Dataset, Item, Quarantined
from headstart.data.label_sets import label_matrix
from headstart.features import Compute, FeatureCache, Features, embed
from headstart.features.extractor import load_backbone_graph
from headstart.features.runtime import Graph
from headstart.heads.integers import stack_rows
from headstart.splits.groups import find_groups
from headstart.splits.pairs import DisjointSets
from headstart.studio.label_sets import labelled_item, names_in_cells
from headstart.studio.project import Project
from headstart.studio.records import ImageRecord


@dataclass
class EmbeddedImages:
    """Features by image id; ``errors`` say of images that cannot be read why. Used by one thread at a time."""

    backbone: Backbone
    compute: Compute
    cache: FeatureCache | None
    features: Features | None = None
    rows: dict[str, int] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)
    _graphs: dict[tuple[str, Compute], Graph] = field(default_factory=dict)

    def add(self, project: Project, records: Sequence[ImageRecord]) -> None:
        """Compute the features of images that have none yet."""
        dataset = dataset_of(project, records)
        found = embed(dataset, self.backbone, self.compute, cache=self.cache, load=self._load)
        start = 0 if self.features is None else len(self.features.index)
        for i, place in enumerate(found.index):
            self.rows[records[place].id] = start + i
        reasons = {image.path: image.reason for image in found.quarantined}
        self.errors |= {r.id: reasons[_path(project, r)] for r in records if _path(project, r) in reasons}
        if len(found.index):
            self.features = found if self.features is None else _joined(self.features, found)

    def select(self, ids: Sequence[str], dataset: Dataset) -> Features:
        """Return the features of the images of a dataset, whose ids are given in its order."""
        assert self.features is not None
        places = [i for i, id in enumerate(ids) if id in self.rows]
        rows = np.array([self.rows[ids[i]] for i in places], np.int64)
        unread = [(i, id) for i, id in enumerate(ids) if id in self.errors]
        return replace(
            self.features,
            values=self.features.vectors(rows),
            tiny_images=self.features.tiny_images[rows],
            image_stats=self.features.image_stats[rows],
            content_hashes=self.features.content_hashes[rows],
            index=np.array(places, np.int64),
            quarantined=tuple(Quarantined(dataset.items[i].path, self.errors[id]) for i, id in unread),
        )

    def is_of(self, backbone: Backbone) -> bool:
        """Whether the features are what a backbone gives."""
        ours = self.backbone
        return (backbone.sha256, backbone.preprocess.fingerprint) == (ours.sha256, ours.preprocess.fingerprint)

    def extract(self, ids: Sequence[str]) -> Callable[..., Features]:
        """Return what ``fit_dataset`` calls for the features of a dataset of these images: those that are there."""

        def extract(dataset: Dataset, backbone: Backbone, compute: Compute, **options: Any) -> Features:
            is_ours = self.is_of(backbone) and compute.resolve() == self.compute.resolve()
            if not is_ours or len(dataset) != len(ids) or options.get("view") is not None:
                return embed(dataset, backbone, compute, **options)
            return self.select(ids, dataset)

        return extract

    def _load(self, backbone: Backbone, compute: Compute) -> Graph:
        """Load a graph once: a burst of a camera comes a few images at a time."""
        key = (backbone.id, compute)
        if key not in self._graphs:
            self._graphs[key] = load_backbone_graph(backbone, compute)
        return self._graphs[key]


def dataset_of(project: Project, records: Sequence[ImageRecord], groups: Sequence[str | None] | None = None) -> Dataset:
    """Return images as a dataset whose paths are those of the table; ``groups`` take the place of their own."""
    items = tuple(
        labelled_item(
            Item(_path(project, r), r.label, r.split, r.group if groups is None else groups[i], key=i), r.labels
        )
        for i, r in enumerate(records)
    )
    classes = tuple(sorted({record.label for record in records if record.label is not None}))
    names = names_in_cells(record.labels for record in records)
    folder, uri = str(project.folder.parent), str(project.table)
    return Dataset(
        *(uri, items, classes, (), (), lambda key: project.read(records[key]), folder, "table"), label_names=names
    )


def find_named_groups(features: Features, records: Sequence[ImageRecord]) -> NDArray[np.int64]:
    """Return the group [n] of each image: copies, images of one scene, and those whose group has a name.

    A fit of a table takes named groups alone; here images that came before the camera's bursts have scenes too.
    """
    labels: NDArray[Any] = np.unique([str(record.label) for record in records], return_inverse=True)[1]
    names_of_labels = names_in_cells(record.labels for record in records)
    if names_of_labels:
        values, known = label_matrix([labelled_item(Item("", None, ""), r.labels) for r in records], names_of_labels)
        labels = values & known
    scenes = find_groups(features.content_hashes, features.tiny_images, features.deepest, labels).index
    names = [f"group {record.group}" if record.group else str(i) for i, record in enumerate(records)]
    sets = DisjointSets(len(records))
    for groups in (scenes, np.unique(names, return_inverse=True)[1]):
        sets.union_equal_rows(groups[:, None])
    return sets.labels()


def _path(project: Project, record: ImageRecord) -> str:
    return f"{project.folder.name}/{record.path}"


def _joined(first: Features, second: Features) -> Features:
    """Put the features of further images behind the others."""
    return replace(
        first,
        values={tap: stack_rows([value, second.values[tap]]) for tap, value in first.values.items()},
        tiny_images=np.concatenate([first.tiny_images, second.tiny_images]),
        image_stats=np.concatenate([first.image_stats, second.image_stats]),
        content_hashes=np.concatenate([first.content_hashes, second.content_hashes]),
        index=np.arange(len(first.index) + len(second.index)),
    )
