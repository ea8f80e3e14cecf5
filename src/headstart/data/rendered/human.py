"""Humans of random build, dress and pose, as capsules. Lengths are in metres, angles in radians."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headstart.data.rendered.body import NATURAL, Leg, chain, cloth_colour, natural_colour, sphere
from headstart.data.rendered.canvas import Capsule, Vector

ACTIONS = {"stand": 0.3, "walk": 0.3, "run": 0.15, "wave": 0.15, "arms up": 0.1}  # with their probabilities
LEG_SWING = {"stand": 0.05, "walk": 0.42, "run": 0.8, "wave": 0.06, "arms up": 0.1}
GARMENTS = {"trousers": 0.5, "shorts": 0.15, "skirt": 0.2, "dress": 0.15}  # of the lower body, with probabilities
EYE = (0.05, 0.04, 0.04)
HIP = 0.95  # heights above the ground
WAIST = 1.10
CHEST = 1.36
SHOULDER = 1.42
NECK = 1.52
HEAD = 1.66
SIDES = (-1, 1)


@dataclass(frozen=True)
class Human:
    """Build, dress and colours of one human, the same in all images. Sizes are relative to an average human."""

    skin: Vector
    garment: str
    has_sleeves: bool
    has_long_hair: bool
    has_hat: bool
    scale: float
    girth: float
    leg_length: float
    shoulder_width: float
    hair: Vector
    shirt: Vector
    garment_colour: Vector
    shoes: Vector
    hat: Vector

    @property
    def has_bare_thighs(self) -> bool:
        """Whether the thighs, below a skirt or dress, have the colour of the skin."""
        return self.garment in ("skirt", "dress")

    @property
    def lower_colour(self) -> Vector:
        """The colour of the hips; a dress is in one colour."""
        return self.shirt if self.garment == "dress" else self.garment_colour


def random_human(rng: np.random.Generator) -> Human:
    """Draw a human."""
    tone = np.clip(np.array(NATURAL[rng.integers(1, 7)]) * rng.uniform(0.9, 1.1), 0, 1)
    skin = (float(tone[0]), float(tone[1]), float(tone[2]))
    garment = str(rng.choice(list(GARMENTS), p=list(GARMENTS.values())))
    has_sleeves = rng.random() < 0.6
    has_long_hair = rng.random() < 0.4
    has_hat = rng.random() < 0.2
    scale = rng.uniform(0.88, 1.1)
    girth = rng.uniform(0.85, 1.25)
    leg_length = rng.uniform(0.95, 1.06)
    shoulder_width = rng.uniform(0.9, 1.15)
    # Some are dressed in one colour, as a horse is in that of its coat.
    uniform = _unlike_skin(skin, natural_colour, rng) if rng.random() < 0.35 else None
    return Human(  # the arguments are drawn in this order
        skin=skin,
        garment=garment,
        has_sleeves=has_sleeves,
        has_long_hair=has_long_hair,
        has_hat=has_hat,
        scale=scale,
        girth=girth,
        leg_length=leg_length,
        shoulder_width=shoulder_width,
        hair=natural_colour(rng),
        shirt=uniform or _unlike_skin(skin, cloth_colour, rng),
        garment_colour=uniform or _unlike_skin(skin, cloth_colour, rng),
        shoes=uniform or natural_colour(rng),
        hat=cloth_colour(rng),
    )


def _unlike_skin(skin: Vector, draw: Callable[[np.random.Generator], Vector], rng: np.random.Generator) -> Vector:
    """Draw a colour that cannot be mistaken for bare skin."""
    while True:
        colour = draw(rng)
        if max(abs(a - b) for a, b in zip(colour, skin, strict=True)) > 0.15:
            return colour


def pose_human(human: Human, rng: np.random.Generator) -> list[Capsule]:
    """Return the capsules of a human in a random pose."""
    action = str(rng.choice(list(ACTIONS), p=list(ACTIONS.values())))
    lean = rng.normal(0, 0.04) + (0.15 if action == "run" else 0)
    capsules = [*_trunk(human, lean), *_head(human, lean, rng), *_limbs(human, action, lean, rng)]
    if human.has_bare_thighs:
        hem = rng.uniform(0.45, 0.75)
        waistband = (_forward(1.0, lean), 1.0, 0)
        capsules.append(Capsule(waistband, (0, hem, 0), 0.15 * human.girth, 0.25, human.lower_colour))
    return capsules


def _forward(height: float, lean: float) -> float:
    """Return how far forward the body is at a height, leaning by an angle from the hip."""
    return float((height - HIP) * np.sin(lean))


def _trunk(human: Human, lean: float) -> list[Capsule]:
    girth = human.girth
    shirt = human.shirt
    lower = human.lower_colour
    waist = (_forward(WAIST, lean), WAIST, 0)
    chest = (_forward(CHEST, lean), CHEST, 0)
    x_shoulder = _forward(SHOULDER, lean)
    z_shoulder = _half_shoulders(human) * 0.8
    x_neck = _forward(NECK, lean)
    return [
        Capsule((0, HIP, -0.07), (0, HIP, 0.07), 0.135 * girth, 0.135 * girth, lower),
        Capsule((0, HIP, 0), waist, 0.15 * girth, 0.135 * girth, shirt if human.garment == "skirt" else lower),
        Capsule(waist, chest, 0.135 * girth, 0.155 * girth, shirt),
        Capsule((x_shoulder, SHOULDER, -z_shoulder), (x_shoulder, SHOULDER, z_shoulder), 0.085, 0.085, shirt),
        Capsule((x_neck, 1.45, 0), (x_neck, 1.57, 0), 0.055, 0.05, human.skin),
    ]


def _half_shoulders(human: Human) -> float:
    return 0.19 * human.shoulder_width


def _head(human: Human, lean: float, rng: np.random.Generator) -> list[Capsule]:
    """Return face, eyes, hair and hat."""
    nod = rng.normal(0.02, 0.04)
    x = _forward(HEAD, lean)
    capsules = [
        Capsule((x + nod, 1.61, 0), (x + nod / 2, 1.70, 0), 0.078, 0.098, human.skin),
        Capsule((x + nod + 0.09, 1.645, 0), (x + nod + 0.105, 1.63, 0), 0.016, 0.02, human.skin),
        Capsule((x - 0.015, 1.735, 0), (x - 0.045, 1.68, 0), 0.098, 0.09, human.hair),
    ]
    capsules += [sphere((x + nod / 2 + 0.09, 1.69, side * 0.035), 0.012, EYE) for side in SIDES]
    if human.has_long_hair:
        strand = [(x - 0.05, 1.70, 0), (x - 0.09, 1.55, 0), (x - 0.10, 1.38, 0)]
        capsules += chain(strand, [0.09, 0.085, 0.05], human.hair)
    if human.has_hat:
        capsules.append(Capsule((x, 1.78, 0), (x - 0.005, 1.80, 0), 0.105, 0.09, human.hat))
        capsules.append(Capsule((x + 0.12, 1.765, 0), (x + 0.17, 1.755, 0), 0.03, 0.02, human.hat))
    return capsules


def _limbs(human: Human, action: str, lean: float, rng: np.random.Generator) -> list[Capsule]:
    """Return legs and arms, which swing against each other."""
    swing = LEG_SWING[action]
    phase = rng.uniform(0, 2 * np.pi)
    thigh_colour = human.skin if human.has_bare_thighs else human.lower_colour
    leg = Leg(
        lengths=(0.43 * human.leg_length, 0.42 * human.leg_length, 0.15),
        radii=(0.095 * human.girth, 0.065 * human.girth, 0.045, 0.04),
        colours=(thigh_colour, thigh_colour if human.garment == "trousers" else human.skin, human.shoes),
        foot_pitch=0.0,
    )
    capsules = []
    for side in SIDES:
        leg_phase = phase + np.pi * (side > 0)
        knee_bend = max(0.05, np.cos(leg_phase)) * swing * (1.6 if action == "run" else 1.0)
        capsules += leg.capsules((0, HIP, side * 0.09 * human.girth), swing * np.sin(leg_phase), knee_bend)
        arm_swing = -swing * 0.9 * np.sin(leg_phase) + rng.normal(0, 0.05)
        elbow_bend = rng.uniform(0.1, 0.4) + (1.2 if action == "run" else 0)
        if action == "arms up" or (action == "wave" and side > 0):
            arm_swing = rng.uniform(2.4, 3.0)
            elbow_bend = rng.uniform(-0.5, 0.4)
        spread = rng.uniform(0.02, 0.12) + (0.1 if action in ("wave", "arms up") else 0)
        shoulder = (_forward(SHOULDER, lean), SHOULDER, side * (_half_shoulders(human) + 0.02))
        capsules += _arm(human, shoulder, arm_swing, elbow_bend, side * spread)
    return capsules


def _arm(human: Human, shoulder: Vector, swing: float, elbow_bend: float, spread: float) -> list[Capsule]:
    """Return upper arm, forearm and hand; ``spread`` is how far the elbow is to the side of the shoulder."""
    x, y, z = shoulder
    elbow = (x + 0.29 * np.sin(swing), y - 0.29 * np.cos(swing), z + spread)
    forearm = swing + elbow_bend
    wrist = (elbow[0] + 0.25 * np.sin(forearm), elbow[1] - 0.25 * np.cos(forearm), elbow[2] + spread * 0.4)
    hand = (wrist[0] + 0.07 * np.sin(forearm), wrist[1] - 0.07 * np.cos(forearm), wrist[2])
    return [
        Capsule(shoulder, elbow, 0.062, 0.046, human.shirt),
        Capsule(elbow, wrist, 0.045, 0.034, human.shirt if human.has_sleeves else human.skin),
        Capsule(wrist, hand, 0.036, 0.042, human.skin),
    ]
