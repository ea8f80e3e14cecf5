"""What the figures of both classes share: palettes, limbs made of capsules, and standing on the ground.

Coats, clothes, skin and hair have the same palettes, so that no colour gives the class away. The order in which random
numbers are drawn decides what a seed renders.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from headstart.data.rendered.canvas import Capsule, Vector

NATURAL = (
    (0.10, 0.08, 0.08),
    (0.24, 0.14, 0.09),
    (0.38, 0.22, 0.12),
    (0.52, 0.32, 0.18),
    (0.66, 0.44, 0.28),
    (0.80, 0.62, 0.42),
    (0.90, 0.78, 0.62),
    (0.94, 0.92, 0.88),
    (0.62, 0.61, 0.60),
    (0.36, 0.36, 0.38),
)


def natural_colour(rng: np.random.Generator) -> Vector:
    """Draw a colour of coats, skin, hair and undyed cloth."""
    base = np.array(NATURAL[rng.integers(len(NATURAL))])
    r, g, b = np.clip(base * rng.uniform(0.85, 1.15) + rng.normal(0, 0.02, 3), 0.03, 1)
    return float(r), float(g), float(b)


def cloth_colour(rng: np.random.Generator) -> Vector:
    """Draw a colour of cloth: any hue, or a natural one."""
    if rng.random() < 0.5:
        return natural_colour(rng)
    r, g, b = colorsys.hsv_to_rgb(rng.random(), rng.uniform(0.3, 0.9), rng.uniform(0.25, 0.95))
    return r, g, b


@dataclass(frozen=True)
class Leg:
    """Proportions and colours of a leg.

    ``lengths`` in metres of thigh, shin and foot, ``colours`` of the same; ``radii`` at hip, knee, ankle and toe;
    ``foot_pitch`` is the angle in radians of the foot from level.
    """

    lengths: tuple[float, float, float]
    radii: tuple[float, float, float, float]
    colours: tuple[Vector, Vector, Vector]
    foot_pitch: float

    def capsules(self, hip: Vector, swing: float, knee_bend: float) -> list[Capsule]:
        """Return thigh, shin and foot; angles are in radians from straight down, forward positive."""
        x, y, z = hip
        knee = (x + self.lengths[0] * np.sin(swing), y - self.lengths[0] * np.cos(swing), z)
        shin = swing - knee_bend
        ankle = (knee[0] + self.lengths[1] * np.sin(shin), knee[1] - self.lengths[1] * np.cos(shin), z)
        foot = shin + self.foot_pitch
        toe = (ankle[0] + self.lengths[2] * np.cos(foot), ankle[1] + self.lengths[2] * np.sin(foot), z)
        return [
            Capsule(hip, knee, self.radii[0], self.radii[1], self.colours[0]),
            Capsule(knee, ankle, self.radii[1], self.radii[2], self.colours[1]),
            Capsule(ankle, toe, self.radii[2] * 1.05, self.radii[3], self.colours[2]),
        ]


def chain(points: Sequence[Vector], radii: Sequence[float], colour: Vector) -> list[Capsule]:
    """Return capsules from each point to the next, in one colour."""
    return [Capsule(points[i], points[i + 1], radii[i], radii[i + 1], colour) for i in range(len(points) - 1)]


def sphere(centre: Vector, radius: float, colour: Vector) -> Capsule:
    """Return a capsule of no length."""
    return Capsule(centre, centre, radius, radius, colour)


def place_on_ground(capsules: Sequence[Capsule], scale: float, rng: np.random.Generator) -> list[Capsule]:
    """Scale a figure, rotate it by a random angle about the vertical, and stand it on the ground at the origin."""
    angle = rng.uniform(0, 2 * np.pi)
    cos, sin = np.cos(angle), np.sin(angle)
    lowest = min(min(c.start[1] - c.start_radius, c.end[1] - c.end_radius) for c in capsules)

    def place(point: Vector) -> Vector:
        x, y, z = point[0] * scale, (point[1] - lowest) * scale, point[2] * scale
        return float(x * cos - z * sin), float(y), float(x * sin + z * cos)

    return [
        Capsule(place(c.start), place(c.end), c.start_radius * scale, c.end_radius * scale, c.colour) for c in capsules
    ]
