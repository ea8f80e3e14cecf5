"""Scenes: ground, sky or wall, and clutter. They are drawn without knowing whether a horse or a human stands there."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from headstart.data.rendered.body import cloth_colour, natural_colour, sphere
from headstart.data.rendered.canvas import Array, Camera, Canvas, Capsule, Vector

# Colours of the ground, each with the contrast of its texture.
GROUNDS = (
    ((0.30, 0.45, 0.18), 0.30),
    ((0.42, 0.55, 0.25), 0.30),
    ((0.78, 0.68, 0.46), 0.15),
    ((0.90, 0.91, 0.94), 0.06),
    ((0.33, 0.33, 0.35), 0.12),
    ((0.45, 0.34, 0.24), 0.25),
    ((0.62, 0.60, 0.55), 0.12),
    ((0.55, 0.40, 0.26), 0.18),
)
WALLS = ("plain", "stripes", "bricks", "checks")


def noise(rng: np.random.Generator, size: int = 256, octaves: int = 5) -> Array:
    """Draw fractal noise [size, size] that tiles without a seam, about -1 to 1."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = 4 * 2**octave
        grid = rng.normal(size=(cells, cells)).astype(np.float32)
        position = np.arange(size) * cells / size
        low = position.astype(int) % cells
        high = (low + 1) % cells
        share = (position % 1).astype(np.float32)
        share = share * share * (3 - 2 * share)
        rows = grid[low] * (1 - share[:, None]) + grid[high] * share[:, None]
        total += (rows[:, low] * (1 - share) + rows[:, high] * share) * 0.6**octave
    return np.asarray(total / 2, np.float32)


def background(rng: np.random.Generator, camera: Camera) -> Array:
    """Draw the ground and what is behind it, [height, width, 3], 0 to 1."""
    width, height = camera.size
    x, z, is_ground = camera.ground()
    texture = noise(rng)
    ground_colour, contrast = GROUNDS[rng.integers(len(GROUNDS))]
    colour = np.clip(np.array(ground_colour) * rng.uniform(0.75, 1.2) + rng.normal(0, 0.03, 3), 0, 1)

    def sample(scale: float) -> Array:
        values: Array = texture[(z * scale).astype(int) % 256, (x * scale).astype(int) % 256]
        return values

    fade = 1 / (1 + np.maximum(z + camera.distance, 0) / 15)  # distant texture averages out
    pattern = contrast * (0.6 * sample(60) + 0.5 * sample(11)) * fade
    if rng.random() < 0.25:  # tiles or boards
        side = rng.uniform(0.3, 1.0)
        check = ((x / side).astype(int) + (z / side).astype(int) * int(rng.random() < 0.5)) % 2
        pattern = pattern * 0.4 + rng.uniform(0.05, 0.2) * check * fade
    image = (colour * (1 + pattern[..., None])).astype(np.float32)
    behind = _wall(rng, width, height, texture) if rng.random() < 0.35 else _sky(rng, camera, texture, is_ground)
    image[~is_ground] = behind[~is_ground]
    if rng.random() < 0.35:  # a wall or hedge stands some metres behind
        far = z > rng.uniform(3, 9)
        image[far & is_ground] = behind[far & is_ground] * 0.95
    return np.asarray(np.clip(image, 0, 1), np.float32)


def _sky(rng: np.random.Generator, camera: Camera, texture: Array, is_ground: NDArray[np.bool_]) -> Array:
    """Draw a sky with clouds, and hills or trees on the horizon, [height, width, 3]."""
    width, height = camera.size
    hue = rng.uniform(0.52, 0.62) if rng.random() < 0.75 else rng.uniform(0, 0.15)
    top = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.6), rng.uniform(0.55, 0.95)))
    bottom = np.clip(top * 0.5 + 0.5 * rng.uniform(0.7, 1.0), 0, 1)
    share = np.linspace(0, 1, height)[:, None, None] ** 0.8
    sky = np.broadcast_to(top * (1 - share) + bottom * share, (height, width, 3)).astype(np.float32).copy()
    stretch = np.add.outer((np.arange(height) * 1.4).astype(int) * 256, (np.arange(width) * 0.5).astype(int))
    clouds = np.clip(texture[(stretch // 256) % 256, stretch % 256] * 1.3 - rng.uniform(0, 0.6), 0, 1)[..., None]
    sky = sky * (1 - 0.8 * clouds) + 0.95 * 0.8 * clouds
    horizon = int(np.argmax(is_ground.any(axis=1))) if is_ground.any() else height
    for _ in range(rng.integers(0, 3)):  # hills or a row of trees
        steps = np.interp(np.arange(width), np.linspace(0, width, 9), rng.uniform(0, 1, 9))
        rough = texture[rng.integers(256), np.arange(width) % 256] * rng.uniform(0, 0.5)
        tops = horizon - height * (rng.uniform(0.02, 0.2) * steps + 0.02 * rough + 0.01)
        hill = np.array(colorsys.hsv_to_rgb(rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.7)))
        sky[np.arange(height)[:, None] > tops] = hill
    return np.asarray(sky, np.float32)


def _wall(rng: np.random.Generator, width: int, height: int, texture: Array) -> Array:
    """Draw a wall, plain or with stripes, bricks or checks, [height, width, 3]."""
    colour = np.array(cloth_colour(rng)) * 0.6 + 0.3
    rows, columns = np.mgrid[:height, :width]
    kind = WALLS[rng.integers(len(WALLS))]
    side = rng.uniform(8, 40)
    pattern = np.zeros((height, width), np.float32)
    if kind == "stripes":
        pattern = 0.12 * np.sign(np.sin(columns / side * np.pi)).astype(np.float32)
    elif kind == "bricks":
        course = (rows / (side * 0.5)).astype(int)
        joint = (rows % (side * 0.5) < 1.5) | ((columns + (course % 2) * side / 2) % side < 1.5)
        pattern = np.where(joint, -0.25, 0).astype(np.float32)
    elif kind == "checks":
        pattern = 0.1 * np.sign(np.sin(columns / side * np.pi) * np.sin(rows / side * np.pi)).astype(np.float32)
    stain = texture[rows // 2 % 256, columns // 2 % 256] * 0.08
    brightness = np.linspace(rng.uniform(0.8, 1.1), rng.uniform(0.8, 1.1), width)
    return np.asarray(colour * ((1 + pattern + stain) * brightness)[..., None], np.float32)


def clutter(rng: np.random.Generator, canvas: Canvas, camera: Camera, shade: float) -> list[Capsule]:
    """Draw up to five objects, most of them beside or behind the centre, and return their capsules.

    Houses, which are no capsules, are painted on ``canvas``.
    """
    capsules: list[Capsule] = []
    for _ in range(rng.integers(0, 6)):
        in_front = rng.random() < 0.2
        z = rng.uniform(-0.45, -0.2) * camera.distance if in_front else rng.uniform(0.1, 1.8) * camera.distance
        reach = (camera.distance + z) * camera.size[0] / camera.focal / 2
        x = float(rng.choice([-1, 1]) * rng.uniform(0.55, 1.1) * reach)
        kind = str(rng.choice(["tree", "bush", "rock", "fence", "post", "ball", "house"]))
        if in_front and kind in ("tree", "house", "fence"):
            kind = "bush"
        if kind == "house":
            _draw_house(rng, canvas, camera, (x, 0, z + camera.distance), shade)
        else:
            capsules += _object(kind, rng, x, z)
    return capsules


def _object(kind: str, rng: np.random.Generator, x: float, z: float) -> list[Capsule]:
    """Draw an object that stands at (x, z) on the ground."""
    leaf_colour = colorsys.hsv_to_rgb(rng.uniform(0.15, 0.42), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.6))
    colour = natural_colour(rng)
    if kind == "tree":
        return _tree(rng, x, z, colour, leaf_colour)
    if kind == "bush":
        size = rng.uniform(0.15, 0.45)
        return [
            sphere(
                (x + rng.normal(0, size), size * rng.uniform(0.4, 1.1), z), size * rng.uniform(0.4, 0.8), leaf_colour
            )
            for _ in range(8)
        ]
    if kind == "rock":
        size = rng.uniform(0.1, 0.4)
        return [Capsule((x - size, size * 0.4, z), (x + size * 0.6, size * 0.5, z), size, size * 0.8, colour)]
    if kind == "fence":
        posts = [Capsule((x + i * 0.9, 0, z), (x + i * 0.9, 1.1, z), 0.05, 0.05, colour) for i in range(-3, 4)]
        rails = [Capsule((x - 2.7, y, z), (x + 2.7, y, z), 0.035, 0.035, colour) for y in (0.45, 0.9)]
        return posts + rails
    if kind == "post":
        height = rng.uniform(0.8, 2.6)
        knob = sphere((x, height, z), rng.uniform(0.06, 0.2), cloth_colour(rng))
        return [Capsule((x, 0, z), (x, height, z), 0.06, 0.05, colour), knob]
    size = rng.uniform(0.1, 0.35)
    return [sphere((x, size, z), size, cloth_colour(rng))]


def _tree(rng: np.random.Generator, x: float, z: float, trunk_colour: Vector, leaf_colour: Vector) -> list[Capsule]:
    height = rng.uniform(1.5, 3.5)
    crown = rng.uniform(0.5, 1.1)
    capsules = [Capsule((x, 0, z), (x + rng.normal(0, 0.2), height, z), 0.16, 0.08, trunk_colour)]
    for _ in range(9):
        centre = (x + rng.normal(0, crown / 2), height + rng.normal(0, crown / 3), z + rng.normal(0, 0.3))
        capsules.append(sphere(centre, crown * rng.uniform(0.4, 0.8), leaf_colour))
    return capsules


def _draw_house(rng: np.random.Generator, canvas: Canvas, camera: Camera, place: Vector, shade: float) -> None:
    """Paint wall, roof and two windows of a house at ``place``."""
    x, _, z = place
    half_width = rng.uniform(1, 3)
    eaves = rng.uniform(1.2, 3)
    left, right = x - half_width, x + half_width
    wall = np.array([[left, 0, z], [right, 0, z], [right, eaves, z], [left, eaves, z]])
    ridge = eaves + rng.uniform(0.4, 1.2)
    roof = np.array([[x - half_width * 1.1, eaves, z], [x + half_width * 1.1, eaves, z], [x, ridge, z]])
    canvas.draw_polygon(wall, camera, cloth_colour(rng), shade)
    canvas.draw_polygon(roof, camera, natural_colour(rng), shade)
    pane = np.array([[-0.15, -0.2, -0.05], [0.15, -0.2, -0.05], [0.15, 0.2, -0.05], [-0.15, 0.2, -0.05]])
    for side in (-0.5, 0.5):
        window = pane + np.array([x + side * half_width, eaves * 0.6, z])
        canvas.draw_polygon(window, camera, (0.25, 0.3, 0.35), shade)
