"""A small renderer: tapered capsules seen by a camera, shaded, with shadows on the ground.

World coordinates are in metres, x to the right, y up, z away from the camera; the ground is y = 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Array = NDArray[np.float32]
Vector = tuple[float, float, float]


@dataclass(frozen=True)
class Capsule:
    """A rod with round ends that tapers from ``start_radius`` to ``end_radius``, in one colour (RGB, 0 to 1)."""

    start: Vector
    end: Vector
    start_radius: float
    end_radius: float
    colour: Vector


@dataclass(frozen=True)
class Camera:
    """A camera at (0, height, -distance) that looks down by ``pitch`` radians.

    ``focal`` length, ``size`` (width, height) and ``centre`` (x, y) are in pixels.
    """

    height: float
    distance: float
    pitch: float
    focal: float
    size: tuple[int, int]
    centre: tuple[float, float]

    def project(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return screen x, y and depth [n, 3] of world points [n, 3]."""
        x, y, z = points[:, 0], points[:, 1] - self.height, points[:, 2] + self.distance
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        depth = np.maximum(z * cos - y * sin, 0.05)
        up = y * cos + z * sin
        return np.stack(
            [self.centre[0] + self.focal * x / depth, self.centre[1] - self.focal * up / depth, depth], axis=1
        )

    def ground(self) -> tuple[Array, Array, NDArray[np.bool_]]:
        """Return world x and z of the ground at every pixel [h, w], and which pixels show ground."""
        width, height = self.size
        across = (np.arange(width) - self.centre[0]) / self.focal
        down = ((self.centre[1] - np.arange(height)) / self.focal)[:, None]
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        slope = down * cos - sin
        is_ground = slope < -1e-3
        depth = np.where(is_ground, -self.height / np.where(is_ground, slope, -1.0), 0.0)
        z = depth * (cos + down * sin) - self.distance
        x = depth * across[None, :]
        return (
            x.astype(np.float32),
            np.broadcast_to(z, x.shape).astype(np.float32),
            np.broadcast_to(is_ground, x.shape),
        )

    def to_camera_axes(self, direction: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return a direction of the world as (right, up, towards the camera)."""
        cos, sin = np.cos(self.pitch), np.sin(self.pitch)
        x, y, z = direction
        return np.array([x, y * cos + z * sin, y * sin - z * cos])


@dataclass(frozen=True)
class Coverage:
    """Window of pixels [h, w] that a capsule may cover.

    ``along`` is the position along its axis, 0 to 1; ``dx`` and ``dy`` the offset from the axis and ``radius``, in
    pixels; ``bulge`` is 0 outside, and rises to 1 on the axis.
    """

    rows: slice
    columns: slice
    along: Array
    dx: Array
    dy: Array
    bulge: Array
    radius: Array


class Canvas:
    """An image being painted, ``colour`` [height, width, 3], 0 to 1, and the ``depth`` of every pixel."""

    def __init__(self, background: Array) -> None:
        self.colour = background
        self.shape = (background.shape[0], background.shape[1])
        self.depth = np.full(background.shape[:2], np.inf, np.float32)

    def draw_capsules(
        self, capsules: Sequence[Capsule], camera: Camera, light: NDArray[np.float64], ambient: float
    ) -> None:
        """Paint capsules, nearer ones over farther ones, shaded by the direction [3] towards the ``light``."""
        lit = camera.to_camera_axes(light).astype(np.float32)
        ends = camera.project(_end_points(capsules))
        for capsule, (start, end) in zip(capsules, ends.reshape(-1, 2, 3), strict=True):
            area = _coverage(start, end, capsule, camera.focal, self.shape)
            if area is None:
                continue
            radius = capsule.start_radius + (capsule.end_radius - capsule.start_radius) * area.along
            depth = start[2] + (end[2] - start[2]) * area.along - area.bulge * radius
            window = self.depth[area.rows, area.columns]
            is_nearer = (area.bulge > 0) & (depth < window)
            normal = area.dx / area.radius * lit[0] - area.dy / area.radius * lit[1] + area.bulge * lit[2]
            shade = ambient + (1 - ambient) * np.clip(0.15 + 0.85 * normal, 0, None)
            shade *= 0.75 + 0.25 * area.bulge  # edges get less light from the sky too
            window[is_nearer] = depth[is_nearer]
            colours = shade[is_nearer][:, None] * np.array(capsule.colour, np.float32)
            self.colour[area.rows, area.columns][is_nearer] = colours

    def draw_shadows(
        self, capsules: Sequence[Capsule], camera: Camera, light: NDArray[np.float64], blur: float
    ) -> None:
        """Darken the ground where capsules hide the light, blurred by pixels. Call it before drawing the capsules."""
        x, y, z = light
        mask = np.zeros(self.depth.shape, np.float32)
        points = _end_points(capsules)
        on_ground = points - points[:, 1:2] / y * np.array([[x, y, z]])
        flattening = max(0.15, float(np.sin(camera.pitch + camera.height / max(camera.distance, 1))))
        for capsule, (start, end) in zip(capsules, camera.project(on_ground).reshape(-1, 2, 3), strict=True):
            area = _coverage(start, end, capsule, camera.focal, self.shape, flattening)
            if area is not None:
                mask[area.rows, area.columns][area.bulge > 0] = 1
        _, _, is_ground = camera.ground()
        blurred = Image.fromarray((mask * is_ground * 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(blur))
        self.colour *= 1 - 0.55 * np.asarray(blurred, np.float32)[..., None] / 255

    def draw_polygon(self, corners: NDArray[np.float64], camera: Camera, colour: Vector, shade: float) -> None:
        """Paint a flat upright polygon, given by its world corners [n, 3], at one depth."""
        screen = camera.project(corners)
        mask = Image.new("L", self.shape[::-1])
        ImageDraw.Draw(mask).polygon([(float(x), float(y)) for x, y, _ in screen], fill=1)
        depth = float(screen[:, 2].mean())
        is_visible = (np.asarray(mask) > 0) & (self.depth > depth)
        self.depth[is_visible] = depth
        self.colour[is_visible] = np.array(colour, np.float32) * shade


def _end_points(capsules: Sequence[Capsule]) -> NDArray[np.float64]:
    """Return [2n, 3], start and end of each capsule in turn."""
    return np.array([point for capsule in capsules for point in (capsule.start, capsule.end)], np.float64)


def _coverage(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    capsule: Capsule,
    focal: float,
    shape: tuple[int, int],
    flattening: float = 1.0,
) -> Coverage | None:
    """Return which pixels of an image of ``shape`` a capsule may cover, or None.

    ``start`` and ``end`` are screen x, y and depth. ``flattening`` below 1 flattens it, as a shadow on the ground.
    """
    height, width = shape
    start_radius = capsule.start_radius * focal / start[2]
    end_radius = capsule.end_radius * focal / end[2]
    reach = max(start_radius, end_radius) + 1
    left, right = min(start[0], end[0]) - reach, max(start[0], end[0]) + reach
    top, bottom = min(start[1], end[1]) - reach, max(start[1], end[1]) + reach
    columns = slice(max(0, int(left)), min(width, int(right) + 2))
    rows = slice(max(0, int(top)), min(height, int(bottom) + 2))
    if columns.start >= columns.stop or rows.start >= rows.stop or reach < 0.3:
        return None
    x = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - np.float32(start[0])
    y = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - np.float32(start[1])
    axis_x, axis_y = end[0] - start[0], end[1] - start[1]
    squared_length = max(axis_x * axis_x + axis_y * axis_y, 1e-6)
    along = np.clip((x * axis_x + y * axis_y) / squared_length, 0, 1).astype(np.float32)
    radius = np.maximum(start_radius + (end_radius - start_radius) * along, 0.5).astype(np.float32)
    dx, dy = x - along * axis_x, (y - along * axis_y) / flattening
    inside = 1 - (dx * dx + dy * dy) / (radius * radius)
    bulge = np.sqrt(np.maximum(inside, 0)).astype(np.float32)
    return Coverage(rows, columns, along, dx, dy, bulge, radius)
