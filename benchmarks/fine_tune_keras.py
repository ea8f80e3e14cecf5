"""The MobileNetV2 tutorial's two stages in plain Keras on TensorFlow, on folders of classes.

    python fine_tune_keras.py DATA WEIGHTS EPOCHS SEED [RATE]       prints one JSON line

DATA holds train/ and validation/; WEIGHTS is for MobileNetV2 without its top. EPOCHS with the network frozen (Adam at
RATE, the tutorial's 0.0001 unless given), then EPOCHS with its layers from number 100 on trained as well (RMSprop at a
tenth of RATE). Batch norm stays in inference mode, dropout is 0.2, as there. Batches of 16, pictures laid to 224 x 224
and not varied. Runs in an environment of its own: ``pip install tensorflow-cpu pillow``.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

UNFREEZE_AT = 100


class Clock(keras.callbacks.Callback):
    """Seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.spent: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        self.began = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        self.spent.append(time.perf_counter() - self.began)


def main(data: str, weights: str, epochs: int, seed: int, rate: float) -> None:
    keras.utils.set_random_seed(seed)
    began, clock = time.perf_counter(), Clock()
    how = {"image_size": (224, 224), "batch_size": 16, "verbose": False}
    learn = keras.utils.image_dataset_from_directory(f"{data}/train", seed=seed, **how).prefetch(2)
    base = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None)
    base.load_weights(weights)
    base.trainable = False
    pixels = keras.Input((224, 224, 3))
    x = base(keras.applications.mobilenet_v2.preprocess_input(pixels), training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    classes = len(list(Path(data, "train").iterdir()))
    model = keras.Model(pixels, keras.layers.Dense(classes)(x))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss)
    model.fit(learn, epochs=epochs, verbose=0, callbacks=[clock])
    base.trainable = True
    for layer in base.layers[:UNFREEZE_AT]:
        layer.trainable = False
    model.compile(optimizer=keras.optimizers.RMSprop(rate / 10), loss=loss)
    model.fit(learn, epochs=epochs, verbose=0, callbacks=[clock])
    seconds = time.perf_counter() - began
    held = keras.utils.image_dataset_from_directory(f"{data}/validation", shuffle=False, **how)
    truth = np.concatenate([labels for _, labels in held])
    right = int((model.predict(held, verbose=0).argmax(1) == truth).sum())
    print(json.dumps({"right": right, "count": len(truth), "seconds": seconds, "frozen_epochs": clock.spent[:epochs],
                      "epochs": clock.spent[epochs:]}))  # fmt: skip


if __name__ == "__main__":
    given = sys.argv[1:]
    main(given[0], given[1], int(given[2]), int(given[3]), float(given[4]) if len(given) > 4 else 1e-4)
