"""Places: ground, sky or wall, light, clutter. None of it knows whether a horse or a human will stand there."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray

from headstart.data.rendered.bodies import dyed, natural
from headstart.data.rendered.paint import Array, Camera, Canvas, Capsule, Vector

GROUNDS = (
    ((0.30, 0.45, 0.18), 0.30), ((0.42, 0.55, 0.25), 0.30), ((0.78, 0.68, 0.46), 0.15), ((0.90, 0.91, 0.94), 0.06),
    ((0.33, 0.33, 0.35), 0.12), ((0.45, 0.34, 0.24), 0.25), ((0.62, 0.60, 0.55), 0.12), ((0.55, 0.40, 0.26), 0.18),
)  # fmt: skip


def noise(rng: np.random.Generator, size: int = 256, octaves: int = 5) -> Array:
    """A square of noise that repeats without a seam [size, size], about -1 to 1, coarse and fine together."""
    total = np.zeros((size, size), np.float32)
    for octave in range(octaves):
        cells = 4 * 2**octave
        grid = rng.normal(size=(cells, cells)).astype(np.float32)
        at = np.arange(size) * cells / size
        low, share = at.astype(int) % cells, (at % 1).astype(np.float32)
        share = share * share * (3 - 2 * share)
        high = (low + 1) % cells
        rows = grid[low] * (1 - share[:, None]) + grid[high] * share[:, None]
        total += (rows[:, low] * (1 - share) + rows[:, high] * share) * 0.6**octave
    return np.asarray(total / 2, np.float32)


def background(rng: np.random.Generator, camera: Camera) -> Array:
    """Ground and what is behind it [height, width, 3], 0 to 1."""
    width, height = camera.size
    x, z, seen = camera.ground()
    texture = noise(rng)
    plain, rough = GROUNDS[rng.integers(len(GROUNDS))]
    colour = np.clip(np.array(plain) * rng.uniform(0.75, 1.2) + rng.normal(0, 0.03, 3), 0, 1)

    def sample(scale: float) -> Array:
        found: Array = texture[(z * scale).astype(int) % 256, (x * scale).astype(int) % 256]
        return found

    fade = 1 / (1 + np.maximum(z + camera.distance, 0) / 15)  # far texture averages out
    pattern = rough * (0.6 * sample(60) + 0.5 * sample(11)) * fade
    if rng.random() < 0.25:  # tiles or boards
        side = rng.uniform(0.3, 1.0)
        check = ((x / side).astype(int) + (z / side).astype(int) * int(rng.random() < 0.5)) % 2
        pattern = pattern * 0.4 + rng.uniform(0.05, 0.2) * check * fade
    picture = (colour * (1 + pattern[..., None])).astype(np.float32)
    behind = _wall(rng, width, height, texture) if rng.random() < 0.35 else _sky(rng, width, height, texture, seen)
    picture[~seen] = behind[~seen]
    if rng.random() < 0.35:  # a wall or hedge stands some metres behind
        far = z > rng.uniform(3, 9)
        picture[far & seen] = behind[far & seen] * 0.95
    return np.asarray(np.clip(picture, 0, 1), np.float32)


def _sky(rng: np.random.Generator, width: int, height: int, texture: Array, seen: NDArray[np.bool_]) -> Array:
    hue = rng.uniform(0.52, 0.62) if rng.random() < 0.75 else rng.uniform(0, 0.15)
    top = np.array(colorsys.hsv_to_rgb(hue, rng.uniform(0.05, 0.6), rng.uniform(0.55, 0.95)))
    low = np.clip(top * 0.5 + 0.5 * rng.uniform(0.7, 1.0), 0, 1)
    share = np.linspace(0, 1, height)[:, None, None] ** 0.8
    sky = np.broadcast_to(top * (1 - share) + low * share, (height, width, 3)).astype(np.float32).copy()
    stretch = np.add.outer((np.arange(height) * 1.4).astype(int) * 256, (np.arange(width) * 0.5).astype(int))
    clouds = np.clip(texture[(stretch // 256) % 256, stretch % 256] * 1.3 - rng.uniform(0, 0.6), 0, 1)[..., None]
    sky = sky * (1 - 0.8 * clouds) + 0.95 * 0.8 * clouds
    horizon = int(np.argmax(seen.any(axis=1))) if seen.any() else height
    for _ in range(rng.integers(0, 3)):  # hills or a row of trees
        steps = np.interp(np.arange(width), np.linspace(0, width, 9), rng.uniform(0, 1, 9))
        rough = texture[rng.integers(256), np.arange(width) % 256] * rng.uniform(0, 0.5)
        tops = horizon - height * (rng.uniform(0.02, 0.2) * steps + 0.02 * rough + 0.01)
        hill = np.array(colorsys.hsv_to_rgb(rng.uniform(0.2, 0.6), rng.uniform(0.1, 0.5), rng.uniform(0.25, 0.7)))
        sky[np.arange(height)[:, None] > tops] = hill
    return np.asarray(sky, np.float32)


def _wall(rng: np.random.Generator, width: int, height: int, texture: Array) -> Array:
    colour = np.array(dyed(rng)) * 0.6 + 0.3
    rows, columns = np.mgrid[:height, :width]
    kind, side = rng.integers(4), rng.uniform(8, 40)
    pattern = np.zeros((height, width), np.float32)
    if kind == 1:
        pattern = 0.12 * np.sign(np.sin(columns / side * np.pi)).astype(np.float32)
    elif kind == 2:  # bricks
        row = (rows / (side * 0.5)).astype(int)
        joint = (rows % (side * 0.5) < 1.5) | ((columns + (row % 2) * side / 2) % side < 1.5)
        pattern = np.where(joint, -0.25, 0).astype(np.float32)
    elif kind == 3:
        pattern = 0.1 * np.sign(np.sin(columns / side * np.pi) * np.sin(rows / side * np.pi)).astype(np.float32)
    stain = texture[rows // 2 % 256, columns // 2 % 256] * 0.08
    slope = np.linspace(rng.uniform(0.8, 1.1), rng.uniform(0.8, 1.1), width)
    return np.asarray(colour * ((1 + pattern + stain) * slope)[..., None], np.float32)


def clutter(rng: np.random.Generator, canvas: Canvas, camera: Camera, shade: float) -> list[Capsule]:
    """Things that stand about, most of them beside or behind the middle. Houses are painted at once."""
    parts: list[Capsule] = []
    for _ in range(rng.integers(0, 6)):
        front = rng.random() < 0.2
        z = rng.uniform(-0.45, -0.2) * camera.distance if front else rng.uniform(0.1, 1.8) * camera.distance
        reach = (camera.distance + z) * camera.size[0] / camera.focal / 2
        x = float(rng.choice([-1, 1]) * rng.uniform(0.55, 1.1) * reach)
        kind = rng.choice(["tree", "bush", "rock", "fence", "post", "ball", "house"])
        if front and kind in ("tree", "house", "fence"):
            kind = "bush"
        if kind == "house":
            _house(rng, canvas, camera, x, z + camera.distance, shade)
        else:
            parts += _thing(str(kind), rng, x, z)
    return parts


def _thing(kind: str, rng: np.random.Generator, x: float, z: float) -> list[Capsule]:
    leaf = colorsys.hsv_to_rgb(rng.uniform(0.15, 0.42), rng.uniform(0.2, 0.7), rng.uniform(0.2, 0.6))
    plain = natural(rng)

    def ball(dx: float, y: float, dz: float, r: float, colour: Vector) -> Capsule:
        return Capsule((x + dx, y, z + dz), (x + dx, y, z + dz), r, r, colour)

    if kind == "tree":
        tall, crown = rng.uniform(1.5, 3.5), rng.uniform(0.5, 1.1)
        trunk = Capsule((x, 0, z), (x + rng.normal(0, 0.2), tall, z), 0.16, 0.08, plain)
        leaves = [
            ball(
                rng.normal(0, crown / 2), tall + rng.normal(0, crown / 3), rng.normal(0, 0.3),
                crown * rng.uniform(0.4, 0.8), leaf,
            )
            for _ in range(9)
        ]  # fmt: skip
        return [trunk, *leaves]
    if kind == "bush":
        size = rng.uniform(0.15, 0.45)
        return [
            ball(rng.normal(0, size), size * rng.uniform(0.4, 1.1), 0, size * rng.uniform(0.4, 0.8), leaf)
            for _ in range(8)
        ]
    if kind == "rock":
        size = rng.uniform(0.1, 0.4)
        return [Capsule((x - size, size * 0.4, z), (x + size * 0.6, size * 0.5, z), size, size * 0.8, plain)]
    if kind == "fence":
        posts = [Capsule((x + i * 0.9, 0, z), (x + i * 0.9, 1.1, z), 0.05, 0.05, plain) for i in range(-3, 4)]
        rails = [Capsule((x - 2.7, y, z), (x + 2.7, y, z), 0.035, 0.035, plain) for y in (0.45, 0.9)]
        return posts + rails
    if kind == "post":
        tall = rng.uniform(0.8, 2.6)
        return [
            Capsule((x, 0, z), (x, tall, z), 0.06, 0.05, plain),
            ball(0, tall, 0, rng.uniform(0.06, 0.2), dyed(rng)),
        ]
    size = rng.uniform(0.1, 0.35)
    return [ball(0, size, 0, size, dyed(rng))]


def _house(rng: np.random.Generator, canvas: Canvas, camera: Camera, x: float, z: float, shade: float) -> None:
    wide, tall = rng.uniform(1, 3), rng.uniform(1.2, 3)
    wall = np.array([[x - wide, 0, z], [x + wide, 0, z], [x + wide, tall, z], [x - wide, tall, z]])
    roof = np.array([[x - wide * 1.1, tall, z], [x + wide * 1.1, tall, z], [x, tall + rng.uniform(0.4, 1.2), z]])
    canvas.board(wall, camera, dyed(rng), shade)
    canvas.board(roof, camera, natural(rng), shade)
    pane = np.array([[-0.15, -0.2, -0.05], [0.15, -0.2, -0.05], [0.15, 0.2, -0.05], [-0.15, 0.2, -0.05]])
    for place in (-0.5, 0.5):
        canvas.board(pane + np.array([x + place * wide, tall * 0.6, z]), camera, (0.25, 0.3, 0.35), shade)
