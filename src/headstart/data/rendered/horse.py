"""Horses of random build, colour and pose, as capsules. Lengths are in metres, angles in radians."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from headstart.data.rendered.body import Leg, chain, cloth_colour, natural_colour, sphere
from headstart.data.rendered.canvas import Capsule, Vector

GAITS = {"stand": 0.25, "walk": 0.35, "trot": 0.25, "graze": 0.15}  # with their probabilities
LEG_SWING = {"stand": 0.06, "walk": 0.38, "trot": 0.6, "graze": 0.15}
EYE = (0.04, 0.03, 0.03)
SADDLE = (0.25, 0.14, 0.08)
NECK_ROOT = (0.55, 1.30, 0.0)
SIDES = (-1, 1)


@dataclass(frozen=True)
class Horse:
    """Build and colours of one horse, the same in all of its images. Sizes are relative to an average horse."""

    coat: Vector
    mane: Vector
    has_blanket: bool
    has_saddle: bool
    has_socks: bool
    scale: float
    girth: float
    leg_length: float
    neck_length: float
    tail_length: float
    sock_colour: Vector
    blanket_colour: Vector
    hoof_colour: Vector


def random_horse(rng: np.random.Generator) -> Horse:
    """Draw a horse."""
    coat = natural_colour(rng)
    return Horse(  # the arguments are drawn in this order
        coat=coat,
        mane=coat if rng.random() < 0.4 else natural_colour(rng),
        has_blanket=rng.random() < 0.45,
        has_saddle=rng.random() < 0.3,
        has_socks=rng.random() < 0.4,
        scale=rng.uniform(0.85, 1.12),
        girth=rng.uniform(0.88, 1.12),
        leg_length=rng.uniform(0.92, 1.08),
        neck_length=rng.uniform(0.9, 1.15),
        tail_length=rng.uniform(0.7, 1.1),
        sock_colour=natural_colour(rng),
        blanket_colour=cloth_colour(rng),
        hoof_colour=natural_colour(rng),
    )


def pose_horse(horse: Horse, rng: np.random.Generator) -> list[Capsule]:
    """Return the capsules of a horse in a random pose."""
    gait = str(rng.choice(list(GAITS), p=list(GAITS.values())))
    return [
        *_trunk(horse),
        *_neck_and_head(horse, gait, rng),
        *_tail(horse, rng),
        *_legs(horse, gait, rng),
        *_tack(horse),
    ]


def _trunk(horse: Horse) -> list[Capsule]:
    girth, coat = horse.girth, horse.coat
    return [
        Capsule((-0.50, 1.18, 0), (0.42, 1.14, 0), 0.30 * girth, 0.29 * girth, coat),
        Capsule((-0.58, 1.22, 0.10), (-0.62, 1.10, 0.12), 0.22 * girth, 0.19 * girth, coat),
        Capsule((-0.58, 1.22, -0.10), (-0.62, 1.10, -0.12), 0.22 * girth, 0.19 * girth, coat),
        Capsule((0.50, 1.20, 0), (0.52, 1.06, 0), 0.25 * girth, 0.22 * girth, coat),
    ]


def _neck_and_head(horse: Horse, gait: str, rng: np.random.Generator) -> list[Capsule]:
    """Return neck, head and mane; a grazing horse reaches down."""
    grazing = gait == "graze"
    rise = rng.uniform(-0.95, -0.7) if grazing else rng.uniform(0.45, 1.05)
    length = 0.72 * horse.neck_length * (1.15 if grazing else 1)
    root = NECK_ROOT
    poll = (root[0] + length * np.cos(rise), root[1] + length * np.sin(rise), rng.normal(0, 0.05))
    bend = (
        (root[0] + poll[0]) / 2 - 0.04 * np.sin(rise),
        (root[1] + poll[1]) / 2 + 0.05 * np.cos(rise),
        poll[2] / 2,
    )
    nod = -rng.uniform(1.0, 1.35) if grazing else rise - rng.uniform(1.1, 1.5)
    muzzle = (poll[0] + 0.50 * np.cos(nod), poll[1] + 0.50 * np.sin(nod), poll[2] * 1.4)
    return [
        *chain([root, bend, poll], [0.23, 0.17, 0.125], horse.coat),
        *_head(horse, poll, muzzle),
        *_mane(horse, poll, rise),
    ]


def _head(horse: Horse, poll: Vector, muzzle: Vector) -> list[Capsule]:
    """Return the head between ``poll``, the top of the neck, and ``muzzle``, with ears and eyes."""
    coat = horse.coat
    cheek = (0.6 * poll[0] + 0.4 * muzzle[0], 0.6 * poll[1] + 0.4 * muzzle[1], 0.6 * poll[2] + 0.4 * muzzle[2])
    capsules = [
        Capsule(poll, cheek, 0.125, 0.12, coat),
        Capsule(cheek, muzzle, 0.115, 0.075, coat),
        sphere(muzzle, 0.078, (coat[0] * 0.6, coat[1] * 0.6, coat[2] * 0.6)),
    ]
    for side in SIDES:
        ear = (poll[0] - 0.02, poll[1] + 0.06, poll[2] + side * 0.07)
        tip = (ear[0] + 0.02, ear[1] + 0.16, ear[2] + side * 0.03)
        capsules.append(Capsule(ear, tip, 0.045, 0.008, coat))
        brow = tuple(p + 0.35 * (m - p) for p, m in zip(poll, muzzle, strict=True))
        capsules.append(sphere((brow[0], brow[1] + 0.05, brow[2] + side * 0.105), 0.022, EYE))
    return capsules


def _mane(horse: Horse, poll: Vector, rise: float) -> list[Capsule]:
    capsules = []
    for i in range(7):
        share = i / 6
        crest = tuple(r + share * (p - r) for r, p in zip(NECK_ROOT, poll, strict=True))
        strand = (crest[0] - 0.16 * np.sin(max(rise, 0.2)), crest[1] + 0.13 * np.cos(rise) + 0.03, crest[2])
        end = (strand[0] - 0.05, strand[1] - 0.14, strand[2] + 0.06)
        capsules.append(Capsule(strand, end, 0.055, 0.03, horse.mane))
    return capsules


def _tail(horse: Horse, rng: np.random.Generator) -> list[Capsule]:
    lift = rng.uniform(0.05, 0.3)
    wag = rng.normal(0, 0.12)
    points = [
        (-0.80, 1.30, 0.0),
        (-0.94 - lift, 1.18, wag / 3),
        (-1.0 - lift, 0.9, wag),
        (-0.98 - lift, 1.25 - 0.75 * horse.tail_length, wag),
    ]
    return chain(points, [0.06, 0.075, 0.085, 0.03], horse.mane)


def _legs(horse: Horse, gait: str, rng: np.random.Generator) -> list[Capsule]:
    swing = LEG_SWING[gait]
    phase = rng.uniform(0, 2 * np.pi)
    shin_colour = horse.sock_colour if horse.has_socks else horse.coat
    capsules = []
    for is_hind in (False, True):
        leg = Leg(
            lengths=(0.46 * horse.leg_length, 0.44 * horse.leg_length, 0.09),
            radii=(0.17 if is_hind else 0.13, 0.072, 0.048, 0.065),
            colours=(horse.coat, shin_colour, horse.hoof_colour),
            foot_pitch=-np.pi / 2 + 0.5,
        )
        for side in SIDES:
            leg_phase = (
                phase
                + np.pi * (side > 0)
                + (np.pi if is_hind else 0) * (gait == "trot")
                + (np.pi / 2) * is_hind * (gait == "walk")
            )
            angle = swing * np.sin(leg_phase) + rng.normal(0, 0.03)
            knee_bend = max(0.0, np.cos(leg_phase)) * swing * 1.4
            hip = (-0.60 if is_hind else 0.44, 1.05, side * 0.16)
            capsules += leg.capsules(hip, angle + 0.12 * is_hind, knee_bend + 0.18 * is_hind)
    return capsules


def _tack(horse: Horse) -> list[Capsule]:
    """Return blanket and saddle, if the horse has them."""
    capsules = []
    if horse.has_blanket:
        girth = horse.girth
        capsules.append(Capsule((-0.42, 1.20, 0), (0.12, 1.19, 0), 0.312 * girth, 0.308 * girth, horse.blanket_colour))
    if horse.has_saddle:
        capsules += chain([(-0.16, 1.47, 0), (0.0, 1.43, 0), (0.16, 1.49, 0)], [0.10, 0.09, 0.07], SADDLE)
    return capsules
