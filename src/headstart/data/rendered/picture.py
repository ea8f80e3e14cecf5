"""One picture of a sample set: a figure, a pose, a place, a camera."""

from __future__ import annotations

import zlib

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.rendered.bodies import figure, posed
from headstart.data.rendered.paint import Camera, Canvas, Capsule
from headstart.data.rendered.scene import background, clutter

FINE = 2  # rendered at twice the size, then shrunk, for smooth edges


def picture(kind: str, number: int, pose: int, seed: int) -> Image.Image:
    """The picture ``pose`` of figure ``number``; the same arguments give the same pixels."""
    body = figure(kind, np.random.default_rng([seed, zlib.crc32(kind.encode()), number]))
    rng = np.random.default_rng([seed, zlib.crc32(kind.encode()), number, pose + 1])
    parts = posed(body, rng)
    width, height = (int(v) for v in rng.integers(160, 301, 2))
    if max(width, height) > 1.4 * min(width, height):
        width = height = min(width, height)
    camera = _camera(rng, parts, (width * FINE, height * FINE))
    light = np.array([rng.normal(0, 0.8), rng.uniform(0.7, 1.6), -rng.uniform(0.0, 1.2)])
    light /= np.linalg.norm(light)
    ambient = float(rng.uniform(0.3, 0.6))
    canvas = Canvas(background(rng, camera))
    things = clutter(rng, canvas, camera, float(rng.uniform(0.7, 1.0)))
    canvas.shadows([*parts, *things], camera, light, soft=rng.uniform(1, 5) * FINE)
    canvas.capsules([*things, *parts], camera, light, ambient)
    exposure = rng.uniform(0.85, 1.15) * np.clip(1 + rng.normal(0, 0.05, 3), 0.85, 1.15)
    grain = rng.normal(0, 0.012, canvas.colour.shape[:2])[..., None]
    pixels = np.clip(canvas.colour * exposure + grain, 0, 1) * 255
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height), Image.Resampling.BOX)


def _camera(rng: np.random.Generator, parts: list[Capsule], size: tuple[int, int]) -> Camera:
    """A camera that shows the figure at a random size and place: by its outline, so equal for tall and long ones."""
    height, distance = float(rng.uniform(0.5, 2.4)), float(rng.uniform(4.5, 11))
    pitch = float(np.arctan2(height - 0.85, distance)) + float(rng.normal(0, 0.02))
    share = rng.uniform(0.5, 0.8)  # of the picture, the geometric mean of the outline's sides
    ends = np.array([p for part in parts for p in (part.start, part.end)])
    radii = np.array([r for part in parts for r in (part.r0, part.r1)])

    def outline(focal: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        seen = Camera(height, distance, pitch, focal, size, (size[0] / 2, size[1] / 2)).project(ends)
        reach = (radii * focal / seen[:, 2])[:, None]
        return (seen[:, :2] - reach).min(axis=0), (seen[:, :2] + reach).max(axis=0)

    low, high = outline(1000.0)  # everything grows with the focal length alike
    across, down = (high - low) / size
    focal = 1000.0 * min(share / float(np.sqrt(across * down)), 0.94 / across, 0.94 / down)
    low, high = outline(focal)
    room = np.maximum((np.array(size) - (high - low)) / 2, 0) * 0.9
    move = np.array(size) / 2 - (low + high) / 2 + rng.uniform(-1, 1, 2) * room
    return Camera(height, distance, pitch, focal, size, (size[0] / 2 + float(move[0]), size[1] / 2 + float(move[1])))
