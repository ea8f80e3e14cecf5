"""Articulated figures: horses and humans of random build, dress and pose, as capsules.

A figure is drawn once (``horse``, ``human``); each of its pictures then gives it another pose and another turn.
Coats, clothes, skin and hair come from the same palettes for both, so that no colour tells them apart.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.data.rendered.paint import Capsule, Vector

NATURAL = (
    (0.10, 0.08, 0.08), (0.24, 0.14, 0.09), (0.38, 0.22, 0.12), (0.52, 0.32, 0.18), (0.66, 0.44, 0.28),
    (0.80, 0.62, 0.42), (0.90, 0.78, 0.62), (0.94, 0.92, 0.88), (0.62, 0.61, 0.60), (0.36, 0.36, 0.38),
)  # fmt: skip


def natural(rng: np.random.Generator) -> Vector:
    """A colour of coats, skin, hair and plain cloth alike."""
    base = np.array(NATURAL[rng.integers(len(NATURAL))])
    r, g, b = np.clip(base * rng.uniform(0.85, 1.15) + rng.normal(0, 0.02, 3), 0.03, 1)
    return float(r), float(g), float(b)


def dyed(rng: np.random.Generator) -> Vector:
    """A colour of cloth: any hue, or a natural one."""
    if rng.random() < 0.5:
        return natural(rng)
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.95))
    return r, g, b


def _unlike(skin: Vector, draw: Callable[[np.random.Generator], Vector], rng: np.random.Generator) -> Vector:
    """A colour that nobody takes for bare skin."""
    while True:
        colour = draw(rng)
        if max(abs(a - b) for a, b in zip(colour, skin, strict=True)) > 0.15:
            return colour


@dataclass(frozen=True)
class Figure:
    """What stays the same in every picture of one figure: its kind, its build and its colours."""

    kind: str
    build: dict[str, float]
    colours: dict[str, Vector]
    wears: frozenset[str]


def figure(kind: str, rng: np.random.Generator) -> Figure:
    """A new horse or human."""
    if kind == "horses":
        coat = natural(rng)
        mane = coat if rng.random() < 0.4 else natural(rng)
        wears = {name for name, share in (("blanket", 0.45), ("saddle", 0.3), ("socks", 0.4)) if rng.random() < share}
        build = {
            "scale": rng.uniform(0.85, 1.12), "girth": rng.uniform(0.88, 1.12), "legs": rng.uniform(0.92, 1.08),
            "neck": rng.uniform(0.9, 1.15), "tail": rng.uniform(0.7, 1.1),
        }  # fmt: skip
        return Figure(
            kind, build, {"coat": coat, "mane": mane, "socks": natural(rng), "cloth": dyed(rng), "hoof": natural(rng)},
            frozenset(wears),
        )  # fmt: skip
    tone = np.clip(np.array(NATURAL[rng.integers(1, 7)]) * rng.uniform(0.9, 1.1), 0, 1)
    skin = (float(tone[0]), float(tone[1]), float(tone[2]))
    below = rng.choice(["trousers", "shorts", "skirt", "dress"], p=[0.5, 0.15, 0.2, 0.15])
    wears = {str(below)} | {
        n for n, share in (("sleeves", 0.6), ("long hair", 0.4), ("hat", 0.2)) if rng.random() < share
    }
    build = {
        "scale": rng.uniform(0.88, 1.1), "girth": rng.uniform(0.85, 1.25), "legs": rng.uniform(0.95, 1.06),
        "shoulders": rng.uniform(0.9, 1.15),
    }  # fmt: skip
    one = _unlike(skin, natural, rng) if rng.random() < 0.35 else None  # in one colour, as a horse is in its coat
    colours = {
        "skin": skin, "hair": natural(rng), "shirt": one or _unlike(skin, dyed, rng),
        "below": one or _unlike(skin, dyed, rng), "shoes": one or natural(rng), "hat": dyed(rng),
    }  # fmt: skip
    return Figure(kind, build, colours, frozenset(wears))


def posed(body: Figure, rng: np.random.Generator) -> list[Capsule]:
    """The figure in a random pose, turned at random, standing on the ground at the origin."""
    parts = _horse(body, rng) if body.kind == "horses" else _human(body, rng)
    turn = rng.uniform(0, 2 * np.pi)
    cos, sin, scale = np.cos(turn), np.sin(turn), body.build["scale"]
    lowest = min(min(p.start[1] - p.r0, p.end[1] - p.r1) for p in parts)

    def place(point: Vector) -> Vector:
        x, y, z = point[0] * scale, (point[1] - lowest) * scale, point[2] * scale
        return float(x * cos - z * sin), float(y), float(x * sin + z * cos)

    return [Capsule(place(p.start), place(p.end), p.r0 * scale, p.r1 * scale, p.colour) for p in parts]


def _leg(
    hip: Vector, swing: float, bend: float, lengths: tuple[float, float, float], radii: tuple[float, ...],
    colours: tuple[Vector, Vector, Vector], foot: float,
) -> list[Capsule]:  # fmt: skip
    """Thigh, shin and foot; angles from straight down, forward positive; ``foot`` is its pitch from level."""
    x, y, z = hip
    knee = (x + lengths[0] * np.sin(swing), y - lengths[0] * np.cos(swing), z)
    shin = swing - bend
    ankle = (knee[0] + lengths[1] * np.sin(shin), knee[1] - lengths[1] * np.cos(shin), z)
    toe = (ankle[0] + lengths[2] * np.cos(shin + foot), ankle[1] + lengths[2] * np.sin(shin + foot), z)
    return [
        Capsule(hip, knee, radii[0], radii[1], colours[0]),
        Capsule(knee, ankle, radii[1], radii[2], colours[1]),
        Capsule(ankle, toe, radii[2] * 1.05, radii[3], colours[2]),
    ]


def _chain(points: list[Vector], radii: list[float], colour: Vector) -> list[Capsule]:
    return [Capsule(points[i], points[i + 1], radii[i], radii[i + 1], colour) for i in range(len(points) - 1)]


def _horse(body: Figure, rng: np.random.Generator) -> list[Capsule]:
    c, b = body.colours, body.build
    g, gait = b["girth"], rng.choice(["stand", "walk", "trot", "graze"], p=[0.25, 0.35, 0.25, 0.15])
    parts = [
        Capsule((-0.50, 1.18, 0), (0.42, 1.14, 0), 0.30 * g, 0.29 * g, c["coat"]),
        Capsule((-0.58, 1.22, 0.10), (-0.62, 1.10, 0.12), 0.22 * g, 0.19 * g, c["coat"]),
        Capsule((-0.58, 1.22, -0.10), (-0.62, 1.10, -0.12), 0.22 * g, 0.19 * g, c["coat"]),
        Capsule((0.50, 1.20, 0), (0.52, 1.06, 0), 0.25 * g, 0.22 * g, c["coat"]),
    ]
    rise = rng.uniform(-0.95, -0.7) if gait == "graze" else rng.uniform(0.45, 1.05)
    length = 0.72 * b["neck"] * (1.15 if gait == "graze" else 1)
    root = (0.55, 1.30, 0.0)
    poll = (root[0] + length * np.cos(rise), root[1] + length * np.sin(rise), rng.normal(0, 0.05))
    middle = (
        (root[0] + poll[0]) / 2 - 0.04 * np.sin(rise), (root[1] + poll[1]) / 2 + 0.05 * np.cos(rise), poll[2] / 2,
    )  # fmt: skip
    parts += _chain([root, middle, poll], [0.23, 0.17, 0.125], c["coat"])
    nod = rise - rng.uniform(1.1, 1.5) if gait != "graze" else -rng.uniform(1.0, 1.35)
    muzzle = (poll[0] + 0.50 * np.cos(nod), poll[1] + 0.50 * np.sin(nod), poll[2] * 1.4)
    cheek = (0.6 * poll[0] + 0.4 * muzzle[0], 0.6 * poll[1] + 0.4 * muzzle[1], 0.6 * poll[2] + 0.4 * muzzle[2])
    coat = c["coat"]
    parts += [
        Capsule(poll, cheek, 0.125, 0.12, c["coat"]),
        Capsule(cheek, muzzle, 0.115, 0.075, c["coat"]),
        Capsule(muzzle, muzzle, 0.078, 0.078, (coat[0] * 0.6, coat[1] * 0.6, coat[2] * 0.6)),
    ]
    for side in (-1, 1):
        ear = (poll[0] - 0.02, poll[1] + 0.06, poll[2] + side * 0.07)
        parts.append(Capsule(ear, (ear[0] + 0.02, ear[1] + 0.16, ear[2] + side * 0.03), 0.045, 0.008, c["coat"]))
        eye = tuple(p + 0.35 * (m - p) for p, m in zip(poll, muzzle, strict=True))
        spot = (eye[0], eye[1] + 0.05, eye[2] + side * 0.105)
        parts.append(Capsule(spot, spot, 0.022, 0.022, (0.04, 0.03, 0.03)))
    for i in range(7):
        share = i / 6
        top = tuple(r + share * (p - r) for r, p in zip(root, poll, strict=True))
        back = (top[0] - 0.16 * np.sin(max(rise, 0.2)), top[1] + 0.13 * np.cos(rise) + 0.03, top[2])
        parts.append(Capsule(back, (back[0] - 0.05, back[1] - 0.14, back[2] + 0.06), 0.055, 0.03, c["mane"]))
    lift, wag = rng.uniform(0.05, 0.3), rng.normal(0, 0.12)
    dock = (-0.80, 1.30, 0.0)
    parts += _chain(
        [dock, (-0.94 - lift, 1.18, wag / 3), (-1.0 - lift, 0.9, wag), (-0.98 - lift, 1.25 - 0.75 * b["tail"], wag)],
        [0.06, 0.075, 0.085, 0.03], c["mane"],
    )  # fmt: skip
    swing = {"stand": 0.06, "graze": 0.15, "walk": 0.38, "trot": 0.6}[str(gait)]
    phase = rng.uniform(0, 2 * np.pi)
    lower = c["socks"] if "socks" in body.wears else c["coat"]
    for hind in (False, True):
        for side in (-1, 1):
            at = (
                phase
                + np.pi * (side > 0)
                + (np.pi if hind else 0) * (gait == "trot")
                + (np.pi / 2) * hind * (gait == "walk")
            )
            angle = swing * np.sin(at) + rng.normal(0, 0.03)
            fold = max(0.0, np.cos(at)) * swing * 1.4
            parts += _leg(
                (-0.60 if hind else 0.44, 1.05, side * 0.16), angle + 0.12 * hind, fold + 0.18 * hind,
                (0.46 * b["legs"], 0.44 * b["legs"], 0.09), (0.17 if hind else 0.13, 0.072, 0.048, 0.065),
                (c["coat"], lower, c["hoof"]), -np.pi / 2 + 0.5,
            )  # fmt: skip
    if "blanket" in body.wears:
        parts.append(Capsule((-0.42, 1.20, 0), (0.12, 1.19, 0), 0.312 * g, 0.308 * g, c["cloth"]))
    if "saddle" in body.wears:
        parts += _chain([(-0.16, 1.47, 0), (0.0, 1.43, 0), (0.16, 1.49, 0)], [0.10, 0.09, 0.07], (0.25, 0.14, 0.08))
    return parts


def _human(body: Figure, rng: np.random.Generator) -> list[Capsule]:
    c, b, w = body.colours, body.build, body.wears
    g, act = b["girth"], rng.choice(["stand", "walk", "run", "wave", "arms up"], p=[0.3, 0.3, 0.15, 0.15, 0.1])
    lean = rng.normal(0, 0.04) + (0.15 if act == "run" else 0)
    hip, waist, chest, neck = 0.95, 1.10, 1.36, 1.52

    def up(y: float) -> float:
        return float((y - hip) * np.sin(lean))

    shirt, below = c["shirt"], c["shirt"] if "dress" in w else c["below"]
    leg = c["skin"] if w & {"skirt", "dress"} else below
    shin = leg if "trousers" in w else c["skin"]
    wide = 0.19 * b["shoulders"]
    parts = [
        Capsule((0, hip, -0.07), (0, hip, 0.07), 0.135 * g, 0.135 * g, below),
        Capsule((0, hip, 0), (up(waist), waist, 0), 0.15 * g, 0.135 * g, below if "skirt" not in w else shirt),
        Capsule((up(waist), waist, 0), (up(chest), chest, 0), 0.135 * g, 0.155 * g, shirt),
        Capsule((up(1.42), 1.42, -wide * 0.8), (up(1.42), 1.42, wide * 0.8), 0.085, 0.085, shirt),
        Capsule((up(neck), 1.45, 0), (up(neck), 1.57, 0), 0.055, 0.05, c["skin"]),
    ]
    nod, x = rng.normal(0.02, 0.04), up(1.66)
    parts += [
        Capsule((x + nod, 1.61, 0), (x + nod / 2, 1.70, 0), 0.078, 0.098, c["skin"]),
        Capsule((x + nod + 0.09, 1.645, 0), (x + nod + 0.105, 1.63, 0), 0.016, 0.02, c["skin"]),
        Capsule((x - 0.015, 1.735, 0), (x - 0.045, 1.68, 0), 0.098, 0.09, c["hair"]),
    ]
    for side in (-1, 1):
        spot = (x + nod / 2 + 0.09, 1.69, side * 0.035)
        parts.append(Capsule(spot, spot, 0.012, 0.012, (0.05, 0.04, 0.04)))
    if "long hair" in w:
        parts += _chain([(x - 0.05, 1.70, 0), (x - 0.09, 1.55, 0), (x - 0.10, 1.38, 0)], [0.09, 0.085, 0.05], c["hair"])
    if "hat" in w:
        parts.append(Capsule((x, 1.78, 0), (x - 0.005, 1.80, 0), 0.105, 0.09, c["hat"]))
        parts += [Capsule((x + 0.12, 1.765, 0), (x + 0.17, 1.755, 0), 0.03, 0.02, c["hat"])]
    swing = {"stand": 0.05, "wave": 0.06, "arms up": 0.1, "walk": 0.42, "run": 0.8}[str(act)]
    phase = rng.uniform(0, 2 * np.pi)
    for side in (-1, 1):
        at = phase + np.pi * (side > 0)
        fold = max(0.05, np.cos(at)) * swing * (1.6 if act == "run" else 1.0)
        parts += _leg(
            (0, hip, side * 0.09 * g), swing * np.sin(at), fold, (0.43 * b["legs"], 0.42 * b["legs"], 0.15),
            (0.095 * g, 0.065 * g, 0.045, 0.04), (leg, shin, c["shoes"]), 0.0,
        )  # fmt: skip
        arm = -swing * 0.9 * np.sin(at) + rng.normal(0, 0.05)
        bend = rng.uniform(0.1, 0.4) + (1.2 if act == "run" else 0)
        if act == "arms up" or (act == "wave" and side > 0):
            arm, bend = rng.uniform(2.4, 3.0), rng.uniform(-0.5, 0.4)
        spread = rng.uniform(0.02, 0.12) + (0.1 if act in ("wave", "arms up") else 0)
        parts += _arm((up(1.42), 1.42, side * (wide + 0.02)), side, arm, bend, spread, c, "sleeves" in w)
    if w & {"skirt", "dress"}:
        hem = rng.uniform(0.45, 0.75)
        parts.append(Capsule((up(1.0), 1.0, 0), (0, hem, 0), 0.15 * g, 0.25, below))
    return parts


def _arm(
    shoulder: Vector, side: int, swing: float, bend: float, spread: float, c: dict[str, Vector], sleeves: bool
) -> list[Capsule]:
    x, y, z = shoulder
    elbow = (x + 0.29 * np.sin(swing), y - 0.29 * np.cos(swing), z + side * spread)
    fore = swing + bend
    wrist = (elbow[0] + 0.25 * np.sin(fore), elbow[1] - 0.25 * np.cos(fore), elbow[2] + side * spread * 0.4)
    hand = (wrist[0] + 0.07 * np.sin(fore), wrist[1] - 0.07 * np.cos(fore), wrist[2])
    return [
        Capsule(shoulder, elbow, 0.062, 0.046, c["shirt"]),
        Capsule(elbow, wrist, 0.045, 0.034, c["shirt"] if sleeves else c["skin"]),
        Capsule(wrist, hand, 0.036, 0.042, c["skin"]),
    ]
