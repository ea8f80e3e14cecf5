"""The course lesson's own recipe, as its notebook has it: plain Keras on TensorFlow.

    python keras_lesson_peer.py DATA NETWORK EPOCHS [WEIGHTS]     prints a JSON line when ready and after each epoch

NETWORK is InceptionV3 (cut at mixed7, as in the lesson) or MobileNetV2 (cut at its last map). Without WEIGHTS the
network starts from random numbers: its accuracy then means nothing, its seconds are the same.

Runs in an environment of its own: ``pip install tensorflow-cpu pillow scipy``.
"""

from __future__ import annotations

import json
import os
import sys
import time

START = time.perf_counter()
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import tensorflow as tf  # noqa: E402
from tensorflow.keras import layers  # noqa: E402
from tensorflow.keras.optimizers import RMSprop  # noqa: E402
from tensorflow.keras.preprocessing.image import ImageDataGenerator  # noqa: E402

SIZE, BATCH_SIZE, STOP_AT_ACCURACY = 150, 20, 0.999
AUGMENTATION = {
    "rotation_range": 40,
    "width_shift_range": 0.2,
    "height_shift_range": 0.2,
    "shear_range": 0.2,
    "zoom_range": 0.2,
    "horizontal_flip": True,
}
CUTS = {"InceptionV3": "mixed7", "MobileNetV2": "out_relu"}


def print_record(**values: object) -> None:
    print(json.dumps({"seconds": time.perf_counter() - START, **values}), flush=True)


class StopAtAccuracy(tf.keras.callbacks.Callback):
    """The exercise's callback; it also prints a line for each epoch."""

    def on_epoch_end(self, epoch, logs=None):
        print_record(epoch=epoch + 1, accuracy=float(logs["accuracy"]), validation=float(logs["val_accuracy"]))
        if logs["accuracy"] >= STOP_AT_ACCURACY:
            self.model.stop_training = True


def build(network: str, weights: str | None) -> tf.keras.Model:
    """The network, frozen and cut, with flatten, dense 1,024, dropout 0.2 and one sigmoid."""
    application = getattr(tf.keras.applications, network)
    pretrained = application(input_shape=(SIZE, SIZE, 3), include_top=False, weights=None)
    if weights:
        pretrained.load_weights(weights)
    for layer in pretrained.layers:
        layer.trainable = False
    x = layers.Flatten()(pretrained.get_layer(CUTS[network]).output)
    x = layers.Dense(1024, activation="relu")(x)
    x = layers.Dropout(0.2)(x)
    x = layers.Dense(1, activation="sigmoid")(x)
    model = tf.keras.Model(pretrained.input, x)
    model.compile(optimizer=RMSprop(learning_rate=1e-4), loss="binary_crossentropy", metrics=["accuracy"])
    return model


def scaling(network: str) -> dict[str, object]:
    """The lesson divides by 255. MobileNetV2's weights need -1 to 1."""
    if network == "InceptionV3":
        return {"rescale": 1 / 255}
    return {"preprocessing_function": tf.keras.applications.mobilenet_v2.preprocess_input}


def count_parameters(weights: list) -> int:
    return sum(int(tf.size(weight)) for weight in weights)


def main(data: str, network: str, epochs: int, weights: str | None) -> None:
    tf.keras.utils.set_random_seed(0)
    flow = {"batch_size": BATCH_SIZE, "class_mode": "binary", "target_size": (SIZE, SIZE)}
    train = ImageDataGenerator(**scaling(network), **AUGMENTATION).flow_from_directory(f"{data}/train", **flow)
    validation = ImageDataGenerator(**scaling(network)).flow_from_directory(f"{data}/validation", **flow)
    model = build(network, weights)
    print_record(parameters=count_parameters(model.weights), trainable=count_parameters(model.trainable_weights))
    model.fit(
        train,
        validation_data=validation,
        steps_per_epoch=len(train),
        validation_steps=len(validation),
        epochs=epochs,
        verbose=0,
        callbacks=[StopAtAccuracy()],
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4] if len(sys.argv) > 4 else None)
