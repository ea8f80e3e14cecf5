"""Augmented copies: found by registration, and unrelated images are not."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.images.augment import AUGMENTATIONS, random_affine, warp
from headstart.splits.copies import copy_correlations
from headstart.splits.groups import find_groups
from headstart.splits.scenes import COPY_CORRELATION


def photo(rng, size=96):
    """An image [size, size, 3] with the spectrum of a photograph: amplitudes fall as 1 / frequency."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.fftfreq(size)) * size
    amplitude = 1 / np.maximum(frequency, 1) ** 1.2
    mixed = rng.normal(size=(3, 3)) + 2  # channels of a photograph go together
    noise = np.tensordot(mixed, rng.normal(size=(3, size, size)), axes=1)
    image = np.fft.ifft2(np.fft.fft2(noise) * amplitude).real.transpose(1, 2, 0)
    image = 127 + 50 * (image - image.mean()) / image.std()
    return np.clip(image, 0, 255).astype(np.uint8)


def tiny(images):
    """Images as 16 x 16 pixels [n, 768]."""
    shrunk = [np.asarray(Image.fromarray(image).resize((16, 16), Image.Resampling.BOX)) for image in images]
    return np.stack(shrunk).reshape(len(images), -1)


def view(image, rng, augmentation="lesson"):
    """An augmented copy of an image, brighter or darker, mirrored every other time."""
    warped = warp(image, random_affine(AUGMENTATIONS[augmentation], *image.shape[:2], rng))
    if rng.random() < 0.5:
        warped = warped[:, ::-1]
    return np.clip(warped * rng.uniform(0.8, 1.1) + rng.uniform(-10, 10), 0, 255).astype(np.uint8)


def test_an_image_and_its_mirror_image_correlate_perfectly():
    rng = np.random.default_rng(0)
    image = photo(rng)
    images = tiny([image, image, np.ascontiguousarray(image[:, ::-1])])
    np.testing.assert_allclose(copy_correlations(images, np.array([[0, 1], [0, 2], [2, 1]])), 1, atol=1e-3)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 10_000), st.integers(-3, 3), st.integers(-3, 3))
def test_two_views_of_a_scene_shifted_by_whole_pixels_are_copies(seed, down, across):
    """What they share is equal, so the correlation is 1; what only one of them shows does not count."""
    rng = np.random.default_rng(seed)
    large = np.asarray(Image.fromarray(photo(rng)).resize((24, 24), Image.Resampling.BOX))
    first, second = large[4:20, 4:20], large[4 + down : 20 + down, 4 + across : 20 + across]
    images = np.stack([first, second]).reshape(2, -1)
    assert copy_correlations(images, np.array([[0, 1]]))[0] > 0.99
    assert copy_correlations(images, np.array([[1, 0]]))[0] > 0.99


def test_views_are_copies_and_other_images_are_not():
    rng = np.random.default_rng(1)
    originals = [photo(rng) for _ in range(80)]
    images = tiny(originals + [view(image, rng) for image in originals] + [view(image, rng) for image in originals])
    rows = np.arange(80)
    of_views = copy_correlations(images, np.stack([rows, rows + 80], axis=1))
    assert (of_views >= COPY_CORRELATION).mean() >= 0.8
    others = copy_correlations(images, np.stack([rows, (rows + 1) % 80 + 80], axis=1))
    assert (others < COPY_CORRELATION).all()


def test_plain_images_and_no_pairs_are_no_copies():
    images = np.full((2, 768), 90, np.uint8)
    assert copy_correlations(images, np.array([[0, 1]])).tolist() == [0]
    assert copy_correlations(images, np.empty((0, 2), int)).tolist() == []


@pytest.mark.parametrize("places_are_shared", [False, True])
def test_augmented_copies_are_one_group_and_bursts_too(places_are_shared):
    """Thirty photographs with two views each, and ten bursts of four frames: the features know only roughly.

    Copies are near neighbours, no more; frames of a burst are alike. If both classes share their places, the features
    of all images hold those, too.
    """
    rng = np.random.default_rng(3)
    images, source = [], []
    for number in range(30):
        image = photo(rng)
        images += [image, view(image, rng), view(image, rng)]
        source += [number] * 3
    for number in range(30, 40):
        scene = photo(rng, 104)
        for _ in range(4):
            top, left = rng.integers(0, 8, 2)
            frame = scene[top : top + 96, left : left + 96] * rng.uniform(0.9, 1.05)
            images.append(np.clip(frame + rng.normal(0, 4, frame.shape), 0, 255).astype(np.uint8))
            source.append(number)
    source = np.array(source)
    labels = source % 2
    own, noise = rng.normal(size=(40, 128)), rng.normal(size=(len(source), 128))
    features = own[source] + np.where(source < 30, 0.9, 0.1)[:, None] * noise + 3 * rng.normal(size=(2, 128))[labels]
    if places_are_shared:
        features += 0.8 * rng.normal(size=(4, 128))[source // 2 % 4]
    hashes = np.arange(len(source))[:, None].repeat(32, axis=1).astype(np.uint8)
    groups = find_groups(hashes, tiny(images), features, labels)
    is_pair = (source[:, None] == source[None, :]) & ~np.eye(len(source), dtype=bool)
    is_kept = groups.index[:, None] == groups.index[None, :]
    is_burst = source >= 30
    assert is_kept[is_burst][:, is_burst][is_pair[is_burst][:, is_burst]].mean() >= 0.95
    assert is_kept[~is_burst][:, ~is_burst][is_pair[~is_burst][:, ~is_burst]].mean() >= 0.75
    assert is_kept[~is_pair & ~np.eye(len(source), dtype=bool)].mean() < 0.005
