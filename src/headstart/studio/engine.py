"""The engine of a studio: it embeds new images, follows every click by the algebra, and makes the full choice.

Two things are shown, and the state says which: "full" is what ``fit`` chose for exactly these labels; "live" are the
same heads with taps, scaling, penalties and bases held, followed to labels that have changed since. One thread embeds
and fits; a click is followed in the thread of its request.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np

from headstart.backbones import DEFAULT_BACKBONE
from headstart.classifier import FitOptions
from headstart.errors import HeadstartError
from headstart.features import FeatureCache
from headstart.features.input_scaling import open_backbone
from headstart.heads.live import LiveHead
from headstart.machine import single_threaded_blas
from headstart.studio.choice import FullChoice, fit_images
from headstart.studio.embedded import EmbeddedImages, dataset_of, find_named_groups
from headstart.studio.events import Events
from headstart.studio.figures import Figures, make_figures
from headstart.studio.guesses import Guesses, guess
from headstart.studio.label_counts import LabelCounts, label_counts, of_learned_labels
from headstart.studio.label_figures import LabelFigures, label_figures
from headstart.studio.live import Live, labels_of
from headstart.studio.project import Project
from headstart.studio.records import ImageRecord
from headstart.studio.state import State

EMBEDDED_AT_ONCE = 64  # images: then what is known of them is shown
QUIET_SECONDS = 1.0  # without a change, after which the full choice begins
MIN_IMAGES = 2  # of each of two classes


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
        self._figures: tuple[int, int, Live, Figures | LabelFigures | None] | None = None
        self._counts: tuple[int, int, LabelCounts] | None = None
        self._guesses: tuple[FullChoice, int, Guesses] | None = None
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

    def changed(self, what: str) -> Figures | LabelFigures | None:
        """Follow a change of the project; return the figures after it."""
        with self._changed:
            self._changed_at = time.monotonic()
            self._changed.notify_all()
        self.events.send("version", {"version": self.project.state.version, "what": what})
        return self.figures()

    def figures(self) -> Figures | LabelFigures | None:
        """Return the figures of the labels as they are now, None where nothing can be said yet."""
        with self._lock:
            state, live, revision = self.project.state, self._live, self.revision
            if live is None:
                return None
            known = self._figures
            if known is None or known[:2] != (state.version, revision) or known[2] is not live:
                with single_threaded_blas():
                    if self.project.multi_label:
                        live = self._live = self._with_labelled(live, state)
                        figures: Figures | LabelFigures | None = self._label_figures(live, state)
                    else:
                        figures = self._class_figures(live, state)
                known = self._figures = (state.version, revision, live, figures)
            return known[3]

    def _with_labelled(self, live: Live, state: State) -> Live:
        """Follow images too that somebody has labelled since, where there is room."""
        images, ids = self.images, set(live.ids)
        if images is None or images.features is None:
            return live
        count = len(images.features.index)  # another thread may be adding images
        new = [r for r in state.records.values() if self._is_taken(r) and r.id not in ids]
        new = [r for r in new if images.rows.get(r.id, count) < count]
        return live.with_images(images, new) if new and live.has_room_for(len(new)) else live

    def guesses(self) -> Guesses | None:
        """Return what the model of the last full choice says of all images, None where there is none."""
        with self._lock:
            images, full = self.images, self.full
            if images is None or images.features is None or full is None:
                return None
            known, count = self._guesses, len(images.features.index)
            if known is None or known[0] is not full or known[1] != count:
                with single_threaded_blas():
                    known = self._guesses = (full, count, guess(full, images))
            return known[2]

    def _class_figures(self, live: Live, state: State) -> Figures | None:
        labels = labels_of(live, state)
        assert isinstance(live.head, LiveHead)
        held_out = live.head.held_out(labels, live.groups)
        if held_out is None:
            return None
        unlabelled = [id for id, record in state.records.items() if record.label is None]
        guesses = self.guesses() if unlabelled else None
        others = None if guesses is None else guesses.only(unlabelled)
        return make_figures(held_out, live.ids, labels, live.groups, state.classes, others)

    def _label_figures(self, live: Live, state: State) -> LabelFigures | None:
        guesses, full = self.guesses(), self.full
        return None if guesses is None or full is None else label_figures(live, state, full, guesses, self.label_counts)

    @property
    def live(self) -> Live | None:
        """The head that is followed."""
        return self._live

    @property
    def shows(self) -> str:
        """Which the figures are: "full", "live", "last" (what the last full choice predicts), or "none"."""
        if self._live is None:
            return "none"
        if self.full is not None and self.full.version == self.project.state.version:
            return "full"
        figures = self.figures() if self.project.multi_label else None
        return "last" if isinstance(figures, LabelFigures) and not figures.is_followed else "live"

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
        state, errors = self.project.state, {} if self.images is None else self.images.errors
        if self.project.multi_label:
            return self.label_counts.why_none
        counts: dict[str, int] = {}
        for record in state.records.values():
            if record.label is not None and record.split == "train" and record.id not in errors:
                counts[record.label] = counts.get(record.label, 0) + 1
        is_enough = sum(count >= MIN_IMAGES for count in counts.values()) >= 2
        return "" if is_enough else f"Two classes with {MIN_IMAGES} images each are needed."

    @property
    def label_counts(self) -> LabelCounts:
        """How many images have each label, where images may have several."""
        state, errors = self.project.state, {} if self.images is None else self.images.errors
        counts = self._counts
        if counts is None or counts[:2] != (state.version, len(errors)):
            counts = self._counts = (state.version, len(errors), label_counts(state, errors))
        return counts[2]

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
            live_ids = set() if self._live is None else set(self._live.ids)  # a request may have been first
            new = [r for r in some if r.id in images.rows and r.id not in live_ids and self._is_taken(r)]
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
        records = [r for r in state.records.values() if r.is_labelled and r.split != "test" and r.id in images.rows]
        records.sort(key=lambda record: record.split != "train")  # as a fit orders them
        ids = [record.id for record in records]
        train = [record for record in records if record.split == "train"]
        dataset = dataset_of(self.project, records, self._group_names(images, records, train))
        if self.project.multi_label:
            dataset = of_learned_labels(dataset, label_counts(state, images.errors))
        fitted = fit_images(dataset, self.options, images.extract(ids))
        known = [ids[fitted.features.index[i]] for i in fitted.rows]
        pairs = zip((state.records[id] for id in known), fitted.groups, strict=True)
        named = {r.group: int(g) for r, g in pairs if r.group}
        backbone, head = fitted.backbone, fitted.head
        if not images.is_of(backbone):  # its scaling, or int8, follows from more images than there were: all anew
            precision = "int8" if backbone.precision == "int8" else self.options.compute.precision
            compute = replace(images.compute, precision=precision)
            self.images, head = EmbeddedImages(backbone, compute, images.cache), None
        is_shown = head is not None or (self.project.multi_label and self.images is images)
        live = Live(head, tuple(known), np.asarray(fitted.groups, np.int64), named) if is_shown else None
        others = images.rows.keys() - known
        later = [r for id, r in self.project.state.records.items() if id in others and r.split == "train"]
        later = [record for record in later if self._is_taken(record)]
        if live is not None and later and live.has_room_for(len(later)):
            live = live.with_images(images, later)
        with self._lock:
            self._live, self.error = live, ""
            self.revision += 1
            self.full = FullChoice(fitted.result, state.version, time.perf_counter() - start, tuple(known))

    def _group_names(
        self, images: EmbeddedImages, records: list[ImageRecord], train: list[ImageRecord]
    ) -> list[str | None] | None:
        """Return the group of each record by name, None where a fit of the table finds the same groups by itself.

        Images that are not for training have the names that the table gives them.
        """
        if self.project.multi_label and not any(record.group for record in records):
            return None
        rows = images.select([r.id for r in train], dataset_of(self.project, train))
        numbers = find_named_groups(rows, train)
        number_of = dict(zip((r.id for r in train), numbers.tolist(), strict=True))
        return [f"group {number_of[r.id]}" if r.id in number_of else r.group for r in records]

    def _is_taken(self, record: ImageRecord) -> bool:
        """Whether what is followed may hold an image: of several labels those that somebody has labelled."""
        return not self.project.multi_label or (record.is_labelled and record.split == "train")

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
    """Return how good the labels as they are now are predicted, in the JSON form; None where nothing can be said.

    It is the accuracy, or, of several labels an image, the mean average precision, with its interval.
    """
    figures = engine.figures()
    return None if figures is None else {**figures.evaluation(), "shows": engine.shows}
