"""What the page shows, made of a report and of a run.json that may lack anything or hold it in another form."""

from __future__ import annotations

import base64
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from headstart.report import charts
from headstart.report.charts import Point
from headstart.report.data import Evidence, Measured, Report, Told, unsure, worst
from headstart.report.matrix import TITLES, Matrix, matrix
from headstart.stats.accuracy import disjoint

TRIED = 25  # candidates listed
LAST = 160  # characters of a path that the script shows, the last
NAMES = 200  # characters of a name that are written
SHORT = {"validation": "held out", "leave_group_out": "group left out"}
HOW = {
    "validation": "These pictures had no part in training, nor in any choice.",
    "leave_group_out": (
        "Each training picture was answered by a head that had seen neither it nor any picture of its group; copies "
        "and pictures of one scene make a group."
    ),
}
KINDS = {
    "leak": ("Leaks", "The same picture in two splits: what is measured on it is too good."),
    "conflicting_labels": ("Conflicting labels", "The same picture in two classes."),
    "label_suspect": ("Suspect labels", "Another class is as probable as it is for that class's own pictures."),
    "exact_duplicate": ("Exact duplicates", "The same file more than once."),
    "near_duplicate": ("Near duplicates", "The same picture re-encoded, resized or mirrored."),
    "outlier": ("Foreign pictures", "Unlike all others: do they belong here?"),
    "unreadable": ("Unreadable", "Left out, with the reason."),
    "tiny": ("Tiny", "Far smaller than the network wants them."),
    "odd_shape": ("Odd shapes", "Much longer than wide, or wider than long."),
    "dark": ("Dark", "Nearly black."),
    "bright": ("Bright", "Nearly white."),
    "blurred": ("Blurred", "Far less detail than the others have."),
    "grey": ("Without colour", "Where nearly all others have some."),
    "empty_class": ("Small classes", "Too few pictures to learn or to measure."),
    "imbalance": ("Uneven classes", "One class has many times the pictures of another."),
}
MAX_PAIRS = 50
COLOURS = 8  # that the map tells apart


def clip(text: str, most: int = NAMES) -> str:
    """A text of at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def plain(text: str) -> str:
    """A name on one line: what cannot be seen, or turns the writing round, is shown as a box."""
    return "".join(c if c.isprintable() else " " if c.isspace() else "\N{WHITE SQUARE}" for c in text)


@dataclass(frozen=True)
class Headline:
    """One accuracy: the set it was measured on, the numbers, and the chart of its interval."""

    name: str
    title: str
    how: str
    correct: int
    count: int
    value: float
    low: float
    high: float
    method: str
    chart: Markup


@dataclass(frozen=True)
class Tried:
    """A head that was tried."""

    taps: str
    head: str
    settings: str
    loss: float
    accuracy: float
    chosen: bool


class View:
    """What the template shows, made of a report and a run that may be damaged."""

    def __init__(self, report: Report, run: Mapping[str, Any]) -> None:
        self.report = report
        self.run = run
        self.names = [clip(plain(name)) for name in report.classes]
        self.titles, self.short, self.kinds = TITLES, SHORT, KINDS
        self.worst, self.unsure = worst(report.pictures), unsure(report.pictures)
        self.thumbnails_told: set[int] = set()

    def first_time(self, place: int) -> bool:
        """Whether a thumbnail is written here; later the script copies it."""
        if place in self.thumbnails_told or place not in self.report.thumbnails:
            return False
        self.thumbnails_told.add(place)
        return True

    def get(self, *path: str) -> Any:
        """A value of the run; None where there is none."""
        value: Any = self.run
        for name in path:
            value = value.get(name) if isinstance(value, Mapping) else None
        return value

    def number(self, *path: str) -> float | None:
        """A finite number of the run, or None."""
        return _number(self.get(*path))

    def text(self, *path: str) -> str:
        """A text of the run on one line, or an empty one."""
        value = self.get(*path)
        return clip(plain(value)) if isinstance(value, str) else ""

    @property
    def headlines(self) -> list[Headline]:
        """The accuracies that run.json tells, the one on held-out pictures first."""
        found = []
        for name in TITLES:
            told = [self.number("accuracy", name, key) for key in ("correct", "count", "value")]
            between = _interval(self.get("accuracy", name, "interval"))
            if between is None or None in told:
                continue
            correct, count, value = (float(v) for v in told if v is not None)
            low, high = between
            if count > 0 and 0 <= low <= value <= high <= 1:
                found.append(
                    Headline(name, TITLES[name], HOW[name], int(correct), int(count), value, low, high,
                             self.text("accuracy", name, "method"), charts.interval(value, low, high))
                )  # fmt: skip
        return found

    @property
    def disjoint(self) -> bool:
        """Whether the two headlines' intervals do not overlap."""
        found = self.headlines
        return len(found) == 2 and disjoint(*((one.low, one.high) for one in found))

    @property
    def matrices(self) -> list[Matrix]:
        """A confusion matrix for each set of pictures."""
        return [matrix(m, i, self.report) for i, m in enumerate(self.report.measured)]

    @property
    def mistakes(self) -> int:
        """How many of all pictures measured were answered wrong."""
        return sum(count for m in self.report.measured for truth, answer, count in m.confusion if truth != answer)

    @property
    def facts(self) -> list[tuple[str, str]]:
        """The strip below the headline."""
        train, held = self.number("images", "train"), self.number("images", "validation")
        groups, largest = self.number("groups", "count"), self.number("groups", "largest")
        found = [("Classes", f"{self.report.known:,}")]
        if train is not None:
            more = f" + {held:,.0f} held out" if held else ""
            found.append(("Pictures", f"{train:,.0f} to learn from{more}"))
        if groups is not None and largest is not None:
            found.append(("Groups", f"{groups:,.0f}, the largest of {largest:,.0f}"))
        tuned = ", fine-tuned" if self.get("fine_tuning", "kept") == "fine-tuned" else ""
        found.append(("Network", self.text("backbone", "id") + tuned))
        cut = self.get("cut")
        taps = ", ".join(map(str, cut)) if isinstance(cut, list) else ""
        found.append(("Head", f"{self.text('head', 'kind')} on {clip(plain(taps))}"))
        seconds = self.number("seconds", "total")
        if seconds is not None:
            found.append(("Time", f"{seconds:.1f} s"))
        return [(name, value) for name, value in found if value]

    @property
    def findings(self) -> list[tuple[str, str, str, int, list[Told]]]:
        """Kinds of findings: key, title, what it means, how many, and those told."""
        by_kind = defaultdict(list)
        for told in self.report.findings:
            by_kind[told.kind].append(told)
        return [
            (kind, *KINDS[kind], self.report.counts.get(kind, len(by_kind[kind])), by_kind[kind])
            for kind in KINDS if by_kind[kind]
        ]  # fmt: skip

    @property
    def evidence(self) -> list[tuple[str, list[tuple[Evidence, str]]]]:
        """Evidence maps with the overlay of each, mistakes and typical pictures apart."""
        parts: dict[str, list[tuple[Evidence, str]]] = {"Mistakes": [], "Typical pictures": []}
        for each in self.report.evidence:
            picture = self.report.pictures[each.picture]
            wrong = picture.truth != picture.answer
            parts["Mistakes" if wrong else "Typical pictures"].append((each, _overlay(each.grid)))
        return [(title, some) for title, some in parts.items() if some]

    @property
    def reliability(self) -> Markup:
        """The chart of claims."""
        return charts.reliability([(m.name, m.reliability) for m in self.report.measured])

    @property
    def risk(self) -> Markup:
        """The chart of mistakes by coverage."""
        return charts.risk([(m.name, m.risk) for m in self.report.measured])

    def coverage(self, measured: Measured) -> list[tuple[float, float]]:
        """Risk at round coverages: the last point of the curve up to each."""
        found = []
        for share in (0.5, 0.75, 0.9, 0.95, 1.0):
            below = [point for point in measured.risk if point[0] <= share + 1e-9]
            if below:
                found.append((share, below[-1][1]))
        return found

    def claims(self, measured: Measured) -> tuple[float, float]:
        """What the model claimed on average, and the share that was right."""
        count = sum(b.count for b in measured.reliability) or 1
        claimed = sum(b.claimed * b.count for b in measured.reliability) / count
        return claimed, sum(b.right * b.count for b in measured.reliability) / count

    @property
    def learning(self) -> tuple[Markup, list[tuple[Point, bool]]] | None:
        """The learning curve: its chart, and its points with whether each is only expected; None where run has none."""
        points = _points(self.get("learning_curve", "points"))
        expected = _points([self.get("learning_curve", "expectation")])
        if len(points) < 2:
            return None
        return charts.learning(points, expected), [*((p, False) for p in points), *((p, True) for p in expected)]

    @property
    def tried(self) -> tuple[list[Tried], int]:
        """The best setting of each cut and head, by held-out log-loss, and how many were tried in all."""
        listed = self.get("candidates")
        best: dict[tuple[str, str], Tried] = {}
        count = 0
        for each in listed if isinstance(listed, list) else []:
            one = self._candidate(each)
            if one is not None:
                count += 1
                key = (one.taps, one.head)
                if key not in best or (one.chosen, -one.loss) > (best[key].chosen, -best[key].loss):
                    best[key] = one
        return sorted(best.values(), key=lambda t: t.loss)[:TRIED], count

    def _candidate(self, each: Any) -> Tried | None:
        if not isinstance(each, Mapping) or not isinstance(each.get("taps"), list):
            return None
        loss, accuracy = _number(each.get("log_loss")), _number(each.get("accuracy"))
        if loss is None or accuracy is None:
            return None
        settings = {k: v for k, v in each.items() if k not in ("taps", "kind", "log_loss", "accuracy")}
        head = self.get("head")
        own = {k: v for k, v in head.items() if k not in ("kind", "temperature")} if isinstance(head, Mapping) else {}
        chosen = each["taps"] == self.get("cut") and each.get("kind") == self.get("head", "kind") and settings == own
        kind = str(each.get("kind")) + (" on random features" if "expansion" in settings else "")
        told = ", ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in settings.items())
        taps = " + ".join(map(str, each["taps"]))
        return Tried(clip(plain(taps)), clip(plain(kind)), clip(plain(told)), loss, accuracy, chosen)

    @property
    def details(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """What it was made of, in tables of names and values."""
        data = [
            ("Name", PurePosixPath(self.text("data", "uri")).name),
            ("Fingerprint", self.text("data", "fingerprint")),
            ("To learn from", _count(self.number("images", "train"))),
            ("Held out", _count(self.number("images", "validation"))),
            ("Groups found by", self.text("groups", "method")),
            *((f"Skipped: {name}", value) for name, value in self._pairs("images", "skipped")),
        ]
        model = [
            ("Network", self.text("backbone", "id")),
            ("Licence of the network", self.text("backbone", "licence")),
            ("SHA-256 of the network", self.text("backbone", "sha256")),
            *((f"Head: {name}", value) for name, value in self._pairs("head")),
            ("Fine-tuning: kept", self.text("fine_tuning", "kept")),
            ("Fine-tuning: trained from", self.text("fine_tuning", "unfrozen_from")),
            ("Runtime", " ".join(self.text("runtime", k) for k in ("name", "version", "precision"))),
            ("Seed", _count(self.number("seed"))),
        ]
        times = [
            ("Fit in all", self._seconds("total")),
            ("Decoding, all threads", self._seconds("decode")),
            ("Network, all threads", self._seconds("features")),
            ("Choosing the head", self._seconds("head")),
            ("This report", f"{self.report.seconds:.2f} s"),
            ("From the cache", _count(self.number("cache", "hits"))),
            ("Computed", _count(self.number("cache", "misses"))),
        ]
        tables = [("Data", data), ("Model", model), ("Timings", times), ("Versions", self._pairs("versions"))]
        return [(title, [(clip(k), clip(v)) for k, v in rows if v.strip()]) for title, rows in tables if rows]

    def _pairs(self, *path: str) -> list[tuple[str, str]]:
        """An object of the run as names and values to write."""
        value = self.get(*path)
        items = list(value.items())[:MAX_PAIRS] if isinstance(value, Mapping) else []
        return [(plain(str(k)), f"{v:.4g}" if isinstance(v, float) else plain(str(v))) for k, v in items if v == v]

    def _seconds(self, name: str) -> str:
        value = self.number("seconds", name)
        return "" if value is None else f"{value:.2f} s"

    @property
    def by_class(self) -> list[tuple[int, int, int, float, int]]:
        """Of each class with pictures on the map: how many, how many right, mean claim, and whom it is taken for."""
        rows, pictures = [], self.report.pictures
        taken: dict[int, Counter[int]] = defaultdict(Counter)
        for p in pictures:
            taken[p.truth][p.answer] += 1
        sure: dict[int, float] = defaultdict(float)
        for p in pictures:
            sure[p.truth] += p.truth_sure
        for c in sorted(taken, key=lambda c: taken[c][c] / taken[c].total())[:50]:
            others = Counter({k: n for k, n in taken[c].items() if k != c}).most_common(1)
            rows.append((c, taken[c].total(), taken[c][c], sure[c] / taken[c].total(), others[0][0] if others else -1))
        return rows

    @property
    def coloured(self) -> list[int]:
        """The classes that have a colour of their own on the map: those with the most mistakes."""
        missed = Counter(p.truth for p in self.report.pictures if p.truth != p.answer)
        sizes = Counter(p.truth for p in self.report.pictures)
        order = sorted(sizes, key=lambda c: (-missed[c], -sizes[c], c))
        return sorted(order[:COLOURS])

    def for_script(self) -> dict[str, object]:
        """What the script needs: columns of numbers and names."""
        p = self.report.pictures
        used = {c for each in p for c in (each.truth, each.answer)}
        return {
            "classes": [name if c in used else "" for c, name in enumerate(self.names)],
            "path": [path if len(path) <= LAST else "…" + path[1 - LAST :] for path in (plain(e.path) for e in p)],
            "measured": [each.measured for each in p],
            "truth": [each.truth for each in p],
            "answer": [each.answer for each in p],
            "sure": [round(100 * each.sure, 1) for each in p],
            "layouts": [{"x": each.x, "y": each.y} for each in self.report.layouts],
            "side": self.report.side,
            "columns": self.report.columns,
            "coloured": self.coloured,
            "sets": [SHORT[name] for name in SHORT],
        }


def _overlay(grid: Sequence[Sequence[float]]) -> str:
    """A picture of the grid to lie over the other: blue where it speaks for the answer, orange where against."""
    values = np.array(grid)
    share = values / max(float(np.abs(values).max()), 1e-12)
    pixels = np.empty((*share.shape, 4), np.uint8)
    pixels[..., :3] = np.where(share[..., None] > 0, (0, 90, 200), (230, 110, 0))
    pixels[..., 3] = np.rint(165 * np.abs(share)).astype(np.uint8)
    # Enlarged here, by premultiplied colours: browsers would mix the colours of clear places in.
    large = Image.fromarray(pixels).resize((share.shape[1] * 8, share.shape[0] * 8), Image.Resampling.BICUBIC)
    stream = io.BytesIO()
    large.save(stream, "PNG", optimize=False)
    return "data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii")


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 1e15:
        return None
    return float(value)


def _count(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}"


def _interval(value: Any) -> tuple[float, float] | None:
    if not isinstance(value, list) or len(value) != 2:
        return None
    low, high = (_number(v) for v in value)
    return None if low is None or high is None else (low, high)


def _points(listed: Any) -> list[Point]:
    """Points of a learning curve that can be drawn, by count."""
    found = []
    for each in listed if isinstance(listed, list) else []:
        if isinstance(each, Mapping):
            count, accuracy = _number(each.get("pictures")), _number(each.get("accuracy"))
            if count is not None and accuracy is not None and 1 <= count < 1e9 and 0 <= accuracy <= 1:
                low, high = _interval(each.get("interval")) or (accuracy, accuracy)
                found.append(Point(int(count), accuracy, min(1, max(0, low)), min(1, max(0, high))))
    return sorted(found, key=lambda p: p.count)[:100]
