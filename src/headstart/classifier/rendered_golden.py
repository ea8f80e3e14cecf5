"""The images of the golden sample of a model that is made of rows: rendered here, the same everywhere, nobody's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.data import Dataset
from headstart.data.dataset import Item
from headstart.features import Compute
from headstart.features.features import Extract

IMAGES = 8
SEED = 20_301_231  # no sample dataset that people render has it


def rendered_images() -> Dataset:
    """Return the images, horses and humans in turn, each rendered as it is read."""
    from headstart.data.rendered import CLASSES
    from headstart.data.rendered.image import render_image

    items = tuple(Item(f"rendered {i}", None, "test", key=i) for i in range(IMAGES))

    def read(key: int) -> NDArray[np.uint8]:
        return np.asarray(render_image(CLASSES[key % 2], key // 2, 0, SEED))

    return Dataset("rendered images", items, (), (), (), read)


def rendered_features(backbone: Backbone, compute: Compute, extract: Extract) -> Mapping[str, NDArray[np.float32]]:
    """Return their features by tap, [8, channels] float32."""
    features = extract(rendered_images(), backbone, compute)
    return {tap: np.asarray(value, np.float32) for tap, value in features.values.items()}
