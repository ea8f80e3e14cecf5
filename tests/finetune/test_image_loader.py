"""The images of training. Needs no PyTorch."""

from types import SimpleNamespace

import numpy as np
import pytest

from headstart.finetune import image_loader
from headstart.finetune.image_loader import ImageLoader, Views
from headstart.images.augment import AUGMENTATIONS
from headstart.images.preprocess import Preprocess


def test_evaluation_gets_the_pixels_of_the_frozen_path(builtin_fit):
    data = builtin_fit.data
    indices = data.features.index[data.split.train]
    images = ImageLoader(data.dataset, indices, data.backbone.preprocess, 2)
    rows = np.linspace(0, len(indices) - 1, 8).astype(int)
    [(_, pixels)] = images.batches([rows])
    np.testing.assert_array_equal(pixels, builtin_fit.model.golden.pixels)
    size = (data.backbone.preprocess.height, data.backbone.preprocess.width)
    first, same, different = (
        Views.draw("light", len(indices), size, seed, 1).apply(pixels[3], 3) for seed in (0, 0, 1)
    )
    assert (first == same).all()
    assert (first != different).any()


def test_views_are_drawn_from_the_ranges_of_the_augmentation():
    size, settings = (100, 80), AUGMENTATIONS["lesson"]
    views = Views.draw("lesson", 4000, size, 0, 1)
    assert views.is_mirrored.mean() == pytest.approx(0.5, abs=0.03)
    corner, right, down = (views.matrices @ point for point in ([49.5, 39.5, 1], [49.5, 40.5, 1], [50.5, 39.5, 1]))
    shift = corner[:, :2] - [49.5, 39.5]  # of the centre, which the shift, turned by the rotation, moves
    assert np.abs(np.linalg.norm(shift, axis=1)).max() <= np.hypot(20, 16)
    assert np.abs(shift.mean(0)).max() < 0.5
    across = (right - corner)[:, :2]
    angle = np.rad2deg(np.arctan2(-across[:, 0], across[:, 1]))
    assert np.abs(angle).max() < settings.rotation + settings.shear + 1e-6
    assert np.percentile(angle, [5, 95]) == pytest.approx([-36, 36], abs=1.5)  # of a uniform range of 40 to both sides
    zoom = np.linalg.norm(across, axis=1)
    assert (zoom.min(), zoom.max()) == pytest.approx((0.8, 1.2), abs=0.01)
    assert zoom.mean() == pytest.approx(1, abs=0.01)
    assert (down != right).any()
    assert Views.draw("none", 4, size, 0, 1) is None
    assert not Views.draw("flip", 9, size, 0, 1).matrices.std(axis=0).any()


def test_images_beyond_the_budget_are_decoded_anew(monkeypatch):
    monkeypatch.setattr(image_loader, "memory_budget", lambda: 2 * 4 * 4 * 3)
    reads, pixels = [], np.arange(3 * 48, dtype=np.uint8).reshape(3, 4, 4, 3)

    def read(index):
        reads.append(index)
        return pixels[index]

    images = ImageLoader(SimpleNamespace(read=read), range(3), Preprocess(4, 4, crop=1.0), 1)
    for _ in range(2):
        batches = list(images.batches([np.array([2, 0]), np.array([1])], finish=lambda batch: batch + 1))
        np.testing.assert_array_equal(batches[0][1], pixels[[2, 0]] + 1)
        np.testing.assert_array_equal(batches[1][1], pixels[[1]] + 1)
    assert sorted(reads) == [0, 1, 2, 2]


@pytest.mark.parametrize(("processes", "kept"), [(1, 9), (2, 5), (3, 3), (4, 2), (20, 0)])
def test_processes_share_the_budget(monkeypatch, processes, kept):
    monkeypatch.setattr(image_loader, "memory_budget", lambda: 10 * 4 * 4 * 3)
    reads = []
    pixels = np.arange(9 * 48).astype(np.uint8).reshape(9, 4, 4, 3)
    dataset = SimpleNamespace(read=lambda index: reads.append(index) or pixels[index])
    images = ImageLoader(dataset, range(9), Preprocess(4, 4, crop=1.0), 1, processes)
    for _ in range(3):
        np.testing.assert_array_equal([images.load(row) for row in range(9)], pixels)
    assert np.bincount(reads).tolist() == [1] * kept + [3] * (9 - kept)


@pytest.mark.parametrize(
    ("limit", "machine", "budget"),
    [
        ("8000\n", 40_960, 2000),  # a container
        ("max\n", 40_960, 10_240),
        ("", 40_960, 10_240),
        (None, 40_960, 10_240),
        ("99999999999999999999\n", 40_960, 10_240),
        ("8000\n", None, 2000),
        (None, None, 2 * 2**30),
    ],
)
def test_the_budget_is_a_quarter_of_what_machine_and_container_allow(monkeypatch, tmp_path, limit, machine, budget):
    def sysconf(name):
        if machine is None:
            raise ValueError("unrecognized configuration name")
        return {"SC_PHYS_PAGES": machine // 4096, "SC_PAGE_SIZE": 4096}[name]

    monkeypatch.setattr(image_loader.os, "sysconf", sysconf)
    monkeypatch.setattr(image_loader, "MEMORY_LIMIT", tmp_path / "memory.max")
    if limit is not None:
        (tmp_path / "memory.max").write_text(limit, "ascii")
    assert image_loader.memory_budget() == budget
