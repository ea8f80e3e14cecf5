"""The images of the golden sample of a model that is made of rows: rendered ones of the package, which are nobody's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.steps import step_images
from headstart.data import Dataset
from headstart.data.dataset import Item
from headstart.features import Compute
from headstart.features.features import Extract
from headstart.features.rows import GOLDEN_IMAGES


def rendered_images() -> Dataset:
    """Return the images, horses and humans in turn.

    They are those that come with the package, not rendered anew: another version of NumPy could round a pixel
    differently, and features of parties who computed alike would seem to differ.
    """
    items = tuple(Item(f"rendered {i}", None, "test", key=i) for i in range(GOLDEN_IMAGES))
    return Dataset("rendered images", items, (), (), (), lambda key: np.asarray(step_images()[key]))


def rendered_features(backbone: Backbone, compute: Compute, extract: Extract) -> Mapping[str, NDArray[np.float32]]:
    """Return their features by tap, [8, channels] float32, in the order of the images."""
    features = extract(rendered_images(), backbone, compute)
    order = np.argsort(features.index)  # ``extract`` may have its own
    return {tap: np.asarray(value, np.float32)[order] for tap, value in features.values.items()}
