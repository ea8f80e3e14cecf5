"""One image of a sample dataset: a figure in a pose, in a scene, seen by a camera."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from headstart.data.rendered.body import place_on_ground
from headstart.data.rendered.canvas import Camera, Canvas, Capsule
from headstart.data.rendered.horse import pose_horse, random_horse
from headstart.data.rendered.human import pose_human, random_human
from headstart.data.rendered.scene import background, clutter

OVERSAMPLING = 2  # rendered at twice the size and then reduced, for smooth edges


def render_image(kind: str, figure: int, number: int, seed: int) -> Image.Image:
    """Render image ``number`` of a figure of the class ``kind``; the same arguments give the same pixels."""
    kind_code = zlib.crc32(kind.encode())
    figure_rng = np.random.default_rng([seed, kind_code, figure])
    rng = np.random.default_rng([seed, kind_code, figure, number + 1])
    body = _standing_figure(kind, figure_rng, rng)
    width, height = (int(side) for side in rng.integers(160, 301, 2))
    if max(width, height) > 1.4 * min(width, height):
        width = height = min(width, height)
    camera = _random_camera(rng, body, (width * OVERSAMPLING, height * OVERSAMPLING))
    light = np.array([rng.normal(0, 0.8), rng.uniform(0.7, 1.6), -rng.uniform(0.0, 1.2)])
    light /= np.linalg.norm(light)
    ambient = float(rng.uniform(0.3, 0.6))
    canvas = Canvas(background(rng, camera))
    objects = clutter(rng, canvas, camera, float(rng.uniform(0.7, 1.0)))
    canvas.draw_shadows([*body, *objects], camera, light, blur=rng.uniform(1, 5) * OVERSAMPLING)
    canvas.draw_capsules([*objects, *body], camera, light, ambient)
    exposure = rng.uniform(0.85, 1.15) * np.clip(1 + rng.normal(0, 0.05, 3), 0.85, 1.15)
    grain = rng.normal(0, 0.012, canvas.colour.shape[:2])[..., None]
    pixels = np.clip(canvas.colour * exposure + grain, 0, 1) * 255
    return Image.fromarray(pixels.astype(np.uint8)).resize((width, height), Image.Resampling.BOX)


def _standing_figure(kind: str, figure_rng: np.random.Generator, rng: np.random.Generator) -> list[Capsule]:
    """Return the capsules of a figure, drawn by ``figure_rng``, in a pose, drawn by ``rng``."""
    if kind == "horses":
        horse = random_horse(figure_rng)
        return place_on_ground(pose_horse(horse, rng), horse.scale, rng)
    human = random_human(figure_rng)
    return place_on_ground(pose_human(human, rng), human.scale, rng)


def _random_camera(rng: np.random.Generator, body: Sequence[Capsule], size: tuple[int, int]) -> Camera:
    """Draw a camera that shows the figure at a random size and place.

    The size is that of the figure's outline, so that it is the same for upright and for long figures.
    """
    height = float(rng.uniform(0.5, 2.4))
    distance = float(rng.uniform(4.5, 11))
    pitch = float(np.arctan2(height - 0.85, distance)) + float(rng.normal(0, 0.02))
    share = rng.uniform(0.5, 0.8)  # of the image's side: the geometric mean of the sides of the outline
    ends = np.array([point for capsule in body for point in (capsule.start, capsule.end)])
    radii = np.array([radius for capsule in body for radius in (capsule.start_radius, capsule.end_radius)])
    image_centre = (size[0] / 2, size[1] / 2)

    def outline(focal: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the smallest and largest screen (x, y) of the figure."""
        screen = Camera(height, distance, pitch, focal, size, image_centre).project(ends)
        reach = (radii * focal / screen[:, 2])[:, None]
        return (screen[:, :2] - reach).min(axis=0), (screen[:, :2] + reach).max(axis=0)

    low, high = outline(1000.0)  # everything grows in proportion to the focal length
    across, down = (high - low) / size
    focal = 1000.0 * min(share / float(np.sqrt(across * down)), 0.94 / across, 0.94 / down)
    low, high = outline(focal)
    room = np.maximum((np.array(size) - (high - low)) / 2, 0) * 0.9
    shift = np.array(size) / 2 - (low + high) / 2 + rng.uniform(-1, 1, 2) * room
    centre = (image_centre[0] + float(shift[0]), image_centre[1] + float(shift[1]))
    return Camera(height, distance, pitch, focal, size, centre)
