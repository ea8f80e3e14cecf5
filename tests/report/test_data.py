"""Selections of images for a report."""

import numpy as np

from headstart.report.data import ImageResult, lowest_margin, most_confident_errors


def test_selections_are_errors_and_correct_images():
    rng = np.random.default_rng(0)
    images = [ImageResult("", 0, int(t), int(p), 0, c, c / 2, 0.1) for t, p, c in rng.uniform(0, 2, (300, 3))]
    errors, uncertain = most_confident_errors(images), lowest_margin(images)
    assert not any(images[i].is_correct for i in errors)
    assert all(images[i].is_correct for i in uncertain)
    assert min(images[i].confidence for i in errors) >= max(
        (image.confidence for i, image in enumerate(images) if not image.is_correct and i not in errors), default=0
    )
    assert max(images[i].margin for i in uncertain) <= min(
        image.margin for i, image in enumerate(images) if image.is_correct and i not in uncertain
    )
