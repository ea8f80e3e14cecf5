"""The MobileNetV2 tutorial's two stages in plain Keras on TensorFlow, on folders of classes.

    python fine_tune_keras.py DATA WEIGHTS EPOCHS SEED [LEARNING_RATE]       prints one JSON line

DATA holds train/ and validation/; WEIGHTS is for MobileNetV2 without its top. EPOCHS with the network frozen (Adam at
LEARNING_RATE, the tutorial's 0.0001 by default), then EPOCHS with its layers from number 100 on trained as well
(RMSprop at a tenth of LEARNING_RATE). Batch norms stay in inference mode, dropout is 0.2, as in the tutorial. Batches
of 16, images squashed to 224 x 224 and not augmented. Runs in an environment of its own:
``pip install tensorflow-cpu pillow``.
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

UNFREEZE_FROM = 100
LEARNING_RATE = 1e-4
LOADING = {"image_size": (224, 224), "batch_size": 16, "verbose": False}


class EpochTimer(keras.callbacks.Callback):
    """Records the seconds of each epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch, logs=None):  # noqa: ARG002
        self.start = time.perf_counter()

    def on_epoch_end(self, epoch, logs=None):  # noqa: ARG002
        self.seconds.append(time.perf_counter() - self.start)


def build(weights: str, classes: int) -> tuple[keras.Model, keras.Model]:
    """Return the network without its top, frozen, and the whole model."""
    network = keras.applications.MobileNetV2(input_shape=(224, 224, 3), include_top=False, weights=None)
    network.load_weights(weights)
    network.trainable = False
    pixels = keras.Input((224, 224, 3))
    x = network(keras.applications.mobilenet_v2.preprocess_input(pixels), training=False)
    x = keras.layers.Dropout(0.2)(keras.layers.GlobalAveragePooling2D()(x))
    return network, keras.Model(pixels, keras.layers.Dense(classes)(x))


def main(data: str, weights: str, epochs: int, seed: int, learning_rate: float) -> None:
    keras.utils.set_random_seed(seed)
    start, timer = time.perf_counter(), EpochTimer()
    train = keras.utils.image_dataset_from_directory(f"{data}/train", seed=seed, **LOADING).prefetch(2)
    network, model = build(weights, classes=len(list(Path(data, "train").iterdir())))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(learning_rate), loss=loss)
    model.fit(train, epochs=epochs, verbose=0, callbacks=[timer])
    network.trainable = True
    for layer in network.layers[:UNFREEZE_FROM]:
        layer.trainable = False
    model.compile(optimizer=keras.optimizers.RMSprop(learning_rate / 10), loss=loss)
    model.fit(train, epochs=epochs, verbose=0, callbacks=[timer])
    seconds = time.perf_counter() - start
    validation = keras.utils.image_dataset_from_directory(f"{data}/validation", shuffle=False, **LOADING)
    labels = np.concatenate([batch_labels for _, batch_labels in validation])
    record = {
        "correct": int((model.predict(validation, verbose=0).argmax(1) == labels).sum()),
        "count": len(labels),
        "seconds": seconds,
        "frozen_epochs": timer.seconds[:epochs],
        "epochs": timer.seconds[epochs:],
    }
    print(json.dumps(record))


if __name__ == "__main__":
    rate = float(sys.argv[5]) if len(sys.argv) > 5 else LEARNING_RATE
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), rate)
