"""A small renderer: tapered capsules seen by a camera, lit, with shadows on the ground.

World units are metres, x to the right, y up, z away from the camera; the ground is y = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Array = NDArray[np.float32]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Capsule:
    """A rod with round ends from ``start`` to ``end``, of radius ``r0`` to ``r1``, in one colour (RGB, 0 to 1)."""

    start: Vector
    end: Vector
    r0: float
    r1: float
    colour: Vector


@dataclass(frozen=True)
class Camera:
    """At (0, height, -distance), looking down by ``pitch`` radians; ``focal`` and the size are in pixels."""

    height: float
    distance: float
    pitch: float
    focal: float
    size: tuple[int, int]  # width, height
    middle: tuple[float, float]

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Screen x, y and depth [n, 3] of world points [n, 3]."""
        x, y, z = points[:, 0], points[:, 1] - self.height, points[:, 2] + self.distance
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        depth = np.maximum(z * cos - y * sin, 0.05)
        up = y * cos + z * sin
        return np.stack(
            [self.middle[0] + self.focal * x / depth, self.middle[1] - self.focal * up / depth, depth], axis=1
        )

    def ground(self) -> tuple[Array, Array, NDArray[np.bool_]]:
        """World x and z of the ground at every pixel [h, w], and where there is ground at all."""
        width, height = self.size
        across = (np.arange(width) - self.middle[0]) / self.focal
        down = ((self.middle[1] - np.arange(height)) / self.focal)[:, None]
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        falling = down * cos - sin
        seen = falling < -1e-3
        far = np.where(seen, -self.height / np.where(seen, falling, -1.0), 0.0)
        z = far * (cos + down * sin) - self.distance
        x = far * across[None, :]
        return x.astype(np.float32), np.broadcast_to(z, x.shape).astype(np.float32), np.broadcast_to(seen, x.shape)

    def light(self, towards: NDArray[np.float64]) -> NDArray[np.float64]:
        """A direction of the world as (right, up, towards the camera)."""
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        x, y, z = towards
        return np.array([x, y * cos + z * sin, y * sin - z * cos])


class Canvas:
    """A picture in the making [height, width, 3], 0 to 1, with the depth of every pixel."""

    def __init__(self, background: Array) -> None:
        self.colour = background
        self.shape = (background.shape[0], background.shape[1])
        self.depth = np.full(background.shape[:2], np.inf, np.float32)

    def capsules(
        self, parts: Sequence[Capsule], camera: Camera, towards_light: NDArray[np.float64], ambient: float
    ) -> None:
        """Paint capsules, nearer ones over farther ones, shaded as round bodies."""
        lit = camera.light(towards_light).astype(np.float32)
        ends = camera.project(np.array([p for part in parts for p in (part.start, part.end)], np.float64))
        for part, (first, second) in zip(parts, ends.reshape(-1, 2, 3), strict=True):
            found = _coverage(first, second, part, camera.focal, self.shape)
            if found is None:
                continue
            rows, columns, along, dx, dy, bulge, radius = found
            depth = first[2] + (second[2] - first[2]) * along - bulge * (part.r0 + (part.r1 - part.r0) * along)
            window = self.depth[rows, columns]
            nearer = (bulge > 0) & (depth < window)
            normal = dx / radius * lit[0] - dy / radius * lit[1] + bulge * lit[2]
            shade = ambient + (1 - ambient) * np.clip(0.15 + 0.85 * normal, 0, None)
            shade *= 0.75 + 0.25 * bulge  # edges turn away from the sky too
            window[nearer] = depth[nearer]
            self.colour[rows, columns][nearer] = shade[nearer][:, None] * np.array(part.colour, np.float32)

    def shadows(
        self, parts: Sequence[Capsule], camera: Camera, towards_light: NDArray[np.float64], soft: float
    ) -> None:
        """Darken the ground where capsules hide the light. Paint this before the bodies."""
        x, y, z = towards_light
        mask = np.zeros(self.depth.shape, np.float32)
        points = np.array([p for part in parts for p in (part.start, part.end)], np.float64)
        fallen = points - points[:, 1:2] / y * np.array([[x, y, z]])
        squash = max(0.15, float(np.sin(camera.pitch + camera.height / max(camera.distance, 1))))
        for part, (first, second) in zip(parts, camera.project(fallen).reshape(-1, 2, 3), strict=True):
            found = _coverage(first, second, part, camera.focal, self.shape, squash)
            if found is not None:
                rows, columns, bulge = found[0], found[1], found[5]
                mask[rows, columns][bulge > 0] = 1
        _, _, seen = camera.ground()
        blurred = Image.fromarray((mask * seen * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(soft))
        self.colour *= 1 - 0.55 * np.asarray(blurred, np.float32)[..., None] / 255

    def board(self, corners: NDArray[np.float64], camera: Camera, colour: Vector, shade: float) -> None:
        """Paint a flat upright rectangle or triangle by its world corners [n, 3]."""
        from PIL import ImageDraw

        screen = camera.project(corners)
        mask = Image.new("L", self.shape[::-1])
        ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y, _ in screen], fill=1)
        depth = float(screen[:, 2].mean())
        inside = (np.asarray(mask) > 0) & (self.depth > depth)
        self.depth[inside] = depth
        self.colour[inside] = np.array(colour, np.float32) * shade


def _coverage(
    first: NDArray[np.float64], second: NDArray[np.float64], part: Capsule, focal: float, shape: tuple[int, int],
    squash: float = 1.0,
) -> tuple[slice, slice, Array, Array, Array, Array, Array] | None:  # fmt: skip
    """The window of pixels a capsule may cover: place along it, offset from its axis, bulge (0 outside, 1 on the
    axis) and radius in pixels. ``squash`` flattens it, as shadows lie flat."""
    height, width = shape
    s0, s1 = part.r0 * focal / first[2], part.r1 * focal / second[2]
    reach = max(s0, s1) + 1
    left, right = min(first[0], second[0]) - reach, max(first[0], second[0]) + reach
    top, bottom = min(first[1], second[1]) - reach, max(first[1], second[1]) + reach
    columns = slice(max(0, int(left)), min(width, int(right) + 2))
    rows = slice(max(0, int(top)), min(height, int(bottom) + 2))
    if columns.start >= columns.stop or rows.start >= rows.stop or reach < 0.3:
        return None
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(first[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(first[1])
    ax, ay = second[0] - first[0], second[1] - first[1]
    along = np.clip((x * ax + y * ay) / max(ax * ax + ay * ay, 1e-6), 0, 1).astype(np.float32)
    radius = np.maximum(s0 + (s1 - s0) * along, 0.5).astype(np.float32)
    dx, dy = x - along * ax, (y - along * ay) / squash
    inside = 1 - (dx * dx + dy * dy) / (radius * radius)
    return rows, columns, along, dx, dy, np.sqrt(np.maximum(inside, 0)).astype(np.float32), radius
