"""Selections of images for a report."""

import numpy as np

from headstart.report.data import ImageResult, grouped_errors, lowest_margin, most_confident_errors


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


def test_errors_of_one_scene_stand_together_with_the_surest_first():
    def image(set_index, confidence, group, predicted=1):
        return ImageResult("", set_index, 0, predicted, 0, confidence, 0.1, 0.1, group)

    images = [
        image(1, 0.6, 5),
        image(1, 0.9, 7),
        image(1, 0.8, 5),
        image(0, 0.7, 5),  # a group of another set
        image(1, 0.95, 5, predicted=0),  # correct
        image(1, 0.5, -1),  # of no known group: alone
        image(1, 0.4, -1),
    ]
    assert grouped_errors(images) == [[1], [2, 0], [3], [5], [6]]
    assert most_confident_errors(images) == [1, 2, 3, 5, 6]
