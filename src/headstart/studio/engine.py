"""The engine of a studio: it embeds new images, follows every click by the algebra, and makes the full choice.

Two things are shown, and the state says which: "full" is what ``fit`` chose for exactly these labels; "live" are the
same heads with taps, scaling, penalties and bases held, followed to labels that have changed since. One thread embeds
and fits; a click is followed in the thread of its request.
"""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import DEFAULT_BACKBONE
from headstart.classifier import FitOptions, FitResult, fit_dataset
from headstart.errors import HeadstartError
from headstart.features import FeatureCache
from headstart.features.input_scaling import open_backbone
from headstart.heads.live import MAX_CHANGES, LiveHead
from headstart.heads.training_set import TrainingSet
from headstart.machine import single_threaded_blas
from headstart.studio.embedded import EmbeddedImages, dataset_of, find_named_groups
from headstart.studio.events import Events
from headstart.studio.figures import Figures, make_figures
from headstart.studio.project import Project
from headstart.studio.records import ImageRecord
from headstart.studio.state import State

EMBEDDED_AT_ONCE = 64  # images: then what is known of them is shown
QUIET_SECONDS = 1.0  # without a change, after which the full choice begins
MIN_IMAGES = 2  # of each of two classes


@dataclass(frozen=True)
class FullChoice:
    """The result of a fit to the labels of ``version``; ``ids`` are its training images."""

    result: FitResult
    version: int
    seconds: float
    ids: tuple[str, ...]

    @property
    def held_out(self) -> dict[str, tuple[str, str, int]]:
        """Of each training image the label, the class predicted with its group left out, and the group."""
        evaluation, split = self.result.evaluations["leave_group_out"], self.result.data.split
        names = split.classes
        rows = zip(self.ids, split.labels, evaluation.predictions.predicted, split.groups.index, strict=True)
        return {id: (names[label], names[predicted], int(group)) for id, label, predicted, group in rows}


@dataclass(frozen=True)
class Live:
    """A head that is followed: the images that it knows, in its order, and their groups."""

    head: LiveHead
    ids: tuple[str, ...]
    groups: NDArray[np.int64]
    names: dict[str, int]  # of groups that have a name: their numbers

    def has_room_for(self, count: int) -> bool:
        """Whether so many more images can be followed; else they wait for the full choice."""
        return len(self.ids) - self.head.first + count <= MAX_CHANGES

    def with_images(self, images: EmbeddedImages, records: list[ImageRecord]) -> Live:
        """Return it with further images; one whose group has no name is a group of its own."""
        assert images.features is not None
        rows = np.array([images.rows[record.id] for record in records])
        values = images.features.vectors(rows)
        names, groups, free = dict(self.names), [], int(self.groups.max(initial=-1)) + 1
        for record in records:
            number = free if record.group is None else names.setdefault(record.group, free)
            groups.append(number)
            free = max(free, number + 1)
        ids = (*self.ids, *(record.id for record in records))
        return Live(self.head.with_images(values), ids, np.r_[self.groups, groups].astype(np.int64), names)


class Engine:
    """What is computed of a project. Methods are safe with several threads; ``start`` begins the background work."""

    def __init__(self, project: Project, options: FitOptions | None = None, events: Events | None = None) -> None:
        self.project, self.events = project, events or Events()
        self.options = options or FitOptions(DEFAULT_BACKBONE)
        self.full: FullChoice | None = None
        self.full_state, self.error = "none", ""
        self.images: EmbeddedImages | None = None
        self.revision = 0  # of what is shown, beside the version of the labels
        self._live: Live | None = None
        self._figures: tuple[int, Live, Figures | None] | None = None
        self._lock = threading.RLock()
        self._changed = threading.Condition()
        self._changed_at = 0.0
        self._stopping = False
        self._tried = -1  # the version that the last full choice was begun for
        self._thread = threading.Thread(target=self._work, name="headstart-studio", daemon=True)

    def start(self) -> None:
        """Begin to embed and to fit."""
        self._thread.start()

    def stop(self) -> None:
        """End the background work, and wait for what is under way."""
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        self._thread.join()

    def changed(self, what: str) -> Figures | None:
        """Follow a change of the project; return the figures after it."""
        with self._changed:
            self._changed_at = time.monotonic()
            self._changed.notify_all()
        self.events.send("version", {"version": self.project.state.version, "what": what})
        return self.figures()

    def figures(self) -> Figures | None:
        """Return the figures of the labels as they are now, None where nothing can be said yet."""
        with self._lock:
            state, live = self.project.state, self._live
            if live is None:
                return None
            if self._figures is None or self._figures[0] != state.version or self._figures[1] is not live:
                with single_threaded_blas():
                    self._figures = (state.version, live, _figures(live, state))
            return self._figures[2]

    @property
    def live(self) -> Live | None:
        """The head that is followed."""
        return self._live

    @property
    def shows(self) -> str:
        """Which the figures are: "full", "live", or "none"."""
        if self._live is None:
            return "none"
        return "full" if self.full is not None and self.full.version == self.project.state.version else "live"

    @property
    def embedding(self) -> dict[str, int]:
        """How many images have features, of how many, and how many cannot be read."""
        records, images = self.project.state.records, self.images
        if images is None:
            return {"done": 0, "total": len(records), "failed": 0}
        failed = sum(id in images.errors for id in records)
        return {"done": sum(id in images.rows for id in records), "total": len(records), "failed": failed}

    def wait_for_full(self, version: int, seconds: float) -> FullChoice:
        """Wait for the full choice of a version. Raises HeadstartError where there will be none."""
        with self._changed:
            self._changed_at = 0.0  # at once
            self._changed.notify_all()
            is_done = self._changed.wait_for(lambda: self._is_done(version), seconds)
        if not is_done:
            raise HeadstartError("The full choice is still being made; try again when the page says that it is.")
        full = self.full
        if full is None or full.version != version:
            raise HeadstartError(self.error or self.why_none or "The labels have changed meanwhile; try again.")
        return full

    def _is_done(self, version: int) -> bool:
        is_other = self.project.state.version != version or self._stopping
        return is_other or (self._tried == version and self.full_state in ("done", "failed", "none"))

    @property
    def why_none(self) -> str:
        """Why there can be no full choice of these labels, empty where there can."""
        counts: dict[str, int] = {}
        images = self.images
        for record in self.project.state.records.values():
            is_unread = images is not None and record.id in images.errors
            if record.label is not None and record.split == "train" and not is_unread:
                counts[record.label] = counts.get(record.label, 0) + 1
        is_enough = sum(count >= MIN_IMAGES for count in counts.values()) >= 2
        return "" if is_enough else f"Two classes with {MIN_IMAGES} images each are needed."

    def _work(self) -> None:
        try:
            with self.options.open_cache() as cache:
                self.images = self._open(cache)
                while not self._stopping:
                    if not self._embed_some() and not self._choose():
                        with self._changed:
                            if not self._stopping:
                                self._changed.wait(self._pause())
        except HeadstartError as error:
            self._fail(error)
        except Exception as error:  # the thread must say why it ends
            self._fail(error)
            raise

    def _open(self, cache: FeatureCache | None) -> EmbeddedImages:
        options = self.options
        dataset = dataset_of(self.project, list(self.project.state.records.values()))
        opened = open_backbone(
            options.backbone, options.input_options, (), dataset, precision=options.compute.precision
        )
        self.options = replace(options, backbone=opened.id, input_options=opened.options)
        return EmbeddedImages(opened.backbone, options.compute, cache)

    def _pause(self) -> float | None:
        """Return how long nothing is to be done, None for until something changes."""
        if self._tried == self.project.state.version or self.why_none:
            return None
        return max(0.01, self._changed_at + QUIET_SECONDS - time.monotonic())

    def _embed_some(self) -> bool:
        """Compute the features of a few images that have none; return whether there were any."""
        images = self.images
        assert images is not None
        missing = [
            r for id, r in self.project.state.records.items() if id not in images.rows and id not in images.errors
        ]
        if not missing:
            return False
        some = missing[:EMBEDDED_AT_ONCE]
        images.add(self.project, some)
        with self._lock:
            self._tried = -1
            self.revision += 1
            new = [record for record in some if record.id in images.rows]
            if self._live is not None and new and self._live.has_room_for(len(new)):
                self._live = self._live.with_images(images, new)
        self.events.send("embedding", self.embedding)
        if self._live is not None and len(missing) <= EMBEDDED_AT_ONCE:
            self._send_live()
        return True

    def _choose(self) -> bool:
        """Make the full choice, where labels have changed and nothing has for a moment; return whether it was made."""
        state = self.project.state
        if self._tried == state.version:
            return False
        if self.why_none:
            self._set_state("none", state.version)
            self._tried = state.version
            self._live = None if self.full is None else self._live
            return False
        if time.monotonic() < self._changed_at + QUIET_SECONDS:
            self._set_state("waiting", state.version)
            return False
        self._set_state("running", state.version)
        try:
            self._fit(state)
            self._tried = state.version
            self._set_state("done", state.version)
        except HeadstartError as error:
            self._tried, self.error = state.version, str(error)
            self._set_state("failed", state.version)
        self._send_live()
        return True

    def _fit(self, state: State) -> None:
        """Fit to the labels of a state, and hold the result for the clicks that follow."""
        images = self.images
        assert images is not None
        start = time.perf_counter()
        records = [
            r for r in state.records.values() if r.label is not None and r.split != "test" and r.id in images.rows
        ]
        ids = [record.id for record in records]
        train = [record for record in records if record.split == "train"]
        rows = images.select([r.id for r in train], dataset_of(self.project, train))
        numbers = find_named_groups(rows, train)
        number_of = dict(zip((r.id for r in train), numbers.tolist(), strict=True))
        names = [f"group {number_of.get(id, f'of {id}')}" for id in ids]
        dataset = dataset_of(self.project, records, names)
        result = fit_dataset(dataset, self.options, images.extract(ids))
        split, features = result.data.split, result.data.features
        values, groups = features.vectors(split.train), split.groups.index
        training_set = TrainingSet.of(values, split.labels, groups)
        selected = result.selected
        with single_threaded_blas():
            head = LiveHead.of(training_set, selected.candidates, selected.head.temperature)
        known = [ids[features.index[i]] for i in split.train]
        named = {r.group: int(g) for r, g in zip((state.records[id] for id in known), groups, strict=True) if r.group}
        backbone = result.data.backbone
        if not images.is_of(backbone):  # its scaling, or int8, follows from more images than there were: all anew
            precision = "int8" if backbone.precision == "int8" else self.options.compute.precision
            compute = replace(images.compute, precision=precision)
            self.images, head = EmbeddedImages(backbone, compute, images.cache), None
        live = None if head is None else Live(head, tuple(known), np.asarray(groups, np.int64), named)
        others = images.rows.keys() - known
        later = [r for id, r in self.project.state.records.items() if id in others and r.split == "train"]
        if live is not None and later and live.has_room_for(len(later)):
            live = live.with_images(images, later)
        with self._lock:
            self._live, self.error = live, ""
            self.revision += 1
            self.full = FullChoice(result, state.version, time.perf_counter() - start, tuple(known))

    def _set_state(self, state: str, version: int) -> None:
        if state != self.full_state or state == "done":
            self.full_state = state
            self.events.send("full", {"state": state, "version": version, "error": self.error or None})
        with self._changed:
            self._changed.notify_all()

    def _send_live(self) -> None:
        self.events.send("live", {"version": self.project.state.version, "evaluation": evaluation(self)})

    def _fail(self, error: Exception) -> None:
        self.error = str(error) if isinstance(error, HeadstartError) else f"An error in the program: {error!r}"
        self._stopping = True
        self._set_state("failed", self.project.state.version)


def evaluation(engine: Engine) -> dict[str, object] | None:
    """Return accuracy and interval of the labels as they are now, in the JSON form; None where nothing can be said."""
    figures = engine.figures()
    if figures is None:
        return None
    return {
        "accuracy": figures.accuracy.value,
        "interval": list(figures.accuracy.interval),
        "images": len(figures.ids),
        "groups": len(np.unique(figures.groups)),
        "shows": engine.shows,
    }


def labels_of(live: Live, state: State) -> NDArray[np.int64]:
    """Return the label [n] of each image that a head knows, as a place in the classes; -1 where it is not there."""
    number = {name: i for i, name in enumerate(state.classes)}
    labels = np.full(len(live.ids), -1, np.int64)
    for i, id in enumerate(live.ids):
        record = state.records.get(id)
        if record is not None and record.label is not None and record.split == "train":
            labels[i] = number[record.label]
    return labels


def _figures(live: Live, state: State) -> Figures | None:
    labels = labels_of(live, state)
    held_out = live.head.held_out(labels, live.groups)
    return None if held_out is None else make_figures(held_out, live.ids, labels, live.groups, state.classes)
