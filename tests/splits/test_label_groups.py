"""Groups of images with several labels: bursts that were planted are found, whichever labels their frames have."""

import numpy as np
import pytest

from headstart.splits.groups import find_groups
from headstart.splits.scenes import may_be_one_scene


def bursts(seed, scene=2.5, count=60, size=4, k=5, d=200):
    """Return features, labels and the burst of each image: an animal may leave, so that a frame has no label."""
    rng = np.random.default_rng(seed)
    burst = np.repeat(np.arange(count), size)
    labels = (rng.random((count, k)) < 0.3)[burst]
    labels[rng.random(len(labels)) < 0.15] = False
    effects = rng.normal(size=(k, d))
    own = scene * rng.normal(size=(count, d))[burst]
    return labels @ effects * 2 + own + rng.normal(size=(len(burst), d)) + 3, labels, burst


def find(features, labels):
    rng = np.random.default_rng(9)
    n = len(features)
    hashes = rng.integers(0, 256, (n, 32), np.uint8)
    tiny_images = rng.integers(0, 256, (n, 768), np.uint8)
    return find_groups(hashes, tiny_images, features.astype(np.float16), labels)


@pytest.mark.parametrize("seed", range(3))
def test_planted_bursts_are_found(seed):
    features, labels, burst = bursts(seed)
    groups = find(features, labels).index
    same, together = burst[:, None] == burst[None, :], groups[:, None] == groups[None, :]
    np.fill_diagonal(same, False)
    np.fill_diagonal(together, False)
    assert (same & together).sum() / same.sum() > 0.9
    assert (same & together).sum() / together.sum() > 0.9


def test_images_without_scenes_stay_alone():
    features, labels, _ = bursts(0, scene=0.0)
    assert find(features, labels).count > 0.95 * len(features)


def test_groups_are_those_of_classes_where_each_image_has_one_label():
    rng = np.random.default_rng(4)
    labels = np.arange(120) % 3
    burst = np.arange(120) // 6
    features = (
        2 * rng.normal(size=(3, 100))[labels] + 2.5 * rng.normal(size=(20, 100))[burst] + rng.normal(size=(120, 100))
    )
    by_class = find(features, labels)
    by_label = find(features, np.eye(3, dtype=bool)[labels])
    same = by_class.index[:, None] == by_class.index[None, :]
    assert ((by_label.index[:, None] == by_label.index[None, :]) == same).mean() > 0.99


def test_which_images_may_be_of_one_scene():
    labels = np.array([[1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0]], bool)
    expected = [[1, 1, 0, 1], [1, 1, 0, 1], [0, 0, 1, 1], [1, 1, 1, 1]]
    assert may_be_one_scene(labels, labels).astype(int).tolist() == expected
    assert may_be_one_scene(np.array([0, 1]), np.array([1, 1])).tolist() == [[False, False], [True, True]]


def test_no_group_holds_more_than_half_of_a_label():
    features, labels, _ = bursts(1, count=10)
    labels[:, 0] = np.arange(len(labels)) < 4  # one burst
    groups = find(features, labels).index
    assert np.bincount(groups[labels[:, 0]]).max() <= 2
