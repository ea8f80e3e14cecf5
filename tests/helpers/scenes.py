"""Generated images of scenes, copies and bursts: features, pixels, classes."""

import numpy as np

COUNT, WIDTH, BURSTS = 1200, 320, 100  # images, channels, and images with two more of their scene


def random_images(count, seed=0):
    """Images of 16 x 16 pixels [n, 768] without anything in common."""
    return np.random.default_rng(seed).integers(0, 256, (count, 768), np.uint8)


def scenes(seed=0):
    """Features, classes [n], tiny images and hashes of images, some of one scene and some copies of one another.

    Returned in a random order, with the scene [n] of each.
    """
    rng = np.random.default_rng(seed)
    spread = np.geomspace(1, 0.05, WIDTH)
    own = rng.normal(size=(COUNT, WIDTH)) * spread
    scene = np.arange(COUNT)
    for further in (1, 2):
        rows = np.arange(BURSTS) + further * BURSTS
        own[rows] = own[:BURSTS] + 0.4 * own[rows]
        scene[rows] = np.arange(BURSTS)
    labels = scene % 6
    features = (own + rng.normal(size=(6, WIDTH))[labels] * spread).astype(np.float32)
    tiny = random_images(COUNT)
    tiny[BURSTS : BURSTS + 20] = tiny[:20]  # equal pixels
    tiny[BURSTS + 20 : BURSTS + 40] = tiny[20:40].reshape(-1, 16, 16, 3)[:, :, ::-1].reshape(20, 768)
    tiny[BURSTS + 40 : BURSTS + 60] = np.clip(tiny[40:60].astype(int) + rng.integers(-6, 7, (20, 768)), 0, 255)
    tiny[-5:] = 128  # plain
    order = rng.permutation(COUNT)
    hashes = rng.integers(0, 256, (COUNT, 32), np.uint8)
    return features[order], labels[order], tiny[order], hashes, scene[order]


def shot(rng):
    """Tiny images, features of 400 frames of one shot in 20 bursts that are nearer to themselves, and 4,000 others."""
    base, features = rng.integers(40, 216, (1, 768)).astype(float), rng.normal(size=(1, 320))
    frames, vectors = [], []
    for _ in range(20):
        burst, place = base + 4.5 * rng.normal(size=(1, 768)), features + 0.15 * rng.normal(size=(1, 320))
        frames.append(burst + 0.8 * rng.normal(size=(20, 768)))
        vectors.append(place + 0.02 * rng.normal(size=(20, 320)))
    tiny = np.concatenate([*frames, rng.integers(0, 256, (4000, 768))])
    others = rng.normal(size=(4000, 320))
    return np.rint(tiny).clip(0, 255).astype(np.uint8), np.concatenate([*vectors, others]).astype(np.float32)


def partition(index):
    """The sets of images as a set of tuples."""
    return {tuple(np.flatnonzero(index == i)) for i in np.unique(index)}


class Rows:
    """Vectors that are all in memory."""

    def __init__(self, vectors):
        self.vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)

    def __getitem__(self, rows):
        return self.vectors[rows]
