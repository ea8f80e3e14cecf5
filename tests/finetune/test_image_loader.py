"""The images of training. Needs no PyTorch."""

import numpy as np

from headstart.finetune.image_loader import ImageLoader


def test_evaluation_gets_the_pixels_of_the_frozen_path(builtin_fit):
    data = builtin_fit.data
    indices = data.features.index[data.split.train]
    images = ImageLoader(data.dataset, indices, data.backbone.preprocess, 2)
    rows = np.linspace(0, len(indices) - 1, 8).astype(int)
    [(_, pixels)] = images.batches([rows])
    np.testing.assert_array_equal(pixels, builtin_fit.model.golden.pixels)
    first, same, different = (images.load_augmented(3, "light", seed, 1) for seed in (0, 0, 1))
    assert (first == same).all()
    assert (first != different).any()
