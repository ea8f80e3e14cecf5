"""The same architecture from timm and from Keras, prepared graphs side by side; and Keras' graph as it was exported.

    python benchmarks/zoo.py [--runs 5] [--only MobileNetV2,ResNet50]

Needs PyTorch, timm and Keras (``make zoo``), and OpenVINO for its rows. Weights are random: time does not depend on
them. Pictures a processor-second through the graph alone, cut at the features: what else the machine does counts less.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from unittest import mock

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import timm
from measure import Scratch, side_by_side, table
from safetensors.torch import save_file

from headstart import backbones
from headstart.backbones import InputOptions
from headstart.backbones.onnx import standardise
from headstart.features.runtime import load_graph, resolve_runtime
from headstart.machine import cores

PAIRS = {
    "MobileNetV2": ("mobilenetv2_100?pad_type=same", 224),
    "MobileNetV3Small": ("mobilenetv3_small_100?pad_type=same", 224),
    "ResNet50": ("resnet50", 224),
    "EfficientNetB0": ("tf_efficientnet_b0", 224),
    "DenseNet121": ("densenet121", 224),
    "InceptionV3": ("inception_v3", 299),
    "ConvNeXtTiny": ("convnext_tiny", 224),
}


def from_timm(name: str, size: int, folder) -> bytes:
    network = timm.create_model(name.partition("?")[0])
    save_file({k: v.contiguous() for k, v in network.state_dict().items()}, folder / "timm.safetensors")
    options = InputOptions(weights=str(folder / "timm.safetensors"), size=(size, size))
    return backbones.cut(backbones.load(f"timm:{name}", options=options), ["features"]).SerializeToString()


def from_keras(name: str, size: int, folder) -> tuple[bytes, bytes]:
    """The prepared graph, and the same without what makes it cheaper."""
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))
    network.save_weights(folder / "keras.weights.h5")
    found = []
    for simplified in (True, False):
        os.environ["HEADSTART_CACHE"] = str(folder / f"cache-{name}-{simplified}")
        options = InputOptions(weights=str(folder / "keras.weights.h5"), size=(size, size))
        with mock.patch.object(standardise, "simplify", standardise.simplify if simplified else lambda *_: None):
            backbone = backbones.load(f"keras:{name}", options=options)
        found.append(backbones.cut(backbone, ["features"]).SerializeToString())
    return found[0], found[1]


def speed(graph, size: int, pictures: int) -> float:
    batch = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    with ThreadPoolExecutor(cores()) as pool:
        began = time.process_time()
        list(pool.map(graph.run, [batch] * (pictures // 8)))
        return pictures / (time.process_time() - began)


def runtimes() -> list[tuple[str, str]]:
    found = [("onnxruntime", "fp32")]
    if find_spec("openvino") is not None:
        found.append(("openvino", "fp32"))
        if resolve_runtime("openvino").precision == "bf16":
            found.append(("openvino", "bf16"))
    return found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(PAIRS))
    given = parser.parse_args()
    rows = []
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        for name in given.only.split(","):
            other, size = PAIRS[name]
            theirs = from_timm(other, size, scratch.path)
            ours, plain = from_keras(name, size, scratch.path)
            for runtime, precision in runtimes():
                graphs = {key: load_graph(graph, runtime=runtime, precision=precision)
                          for key, graph in (("timm", theirs), ("keras", ours), ("plain", plain))}  # fmt: skip
                count = 64 if name in ("ResNet50", "DenseNet121", "InceptionV3", "ConvNeXtTiny") else 256
                for graph in graphs.values():
                    speed(graph, size, 16)
                found = side_by_side(
                    given.runs, **{k: (lambda g=g, s=size, c=count: speed(g, s, c)) for k, g in graphs.items()}
                )
                rows.append(
                    {"network": name, "runtime": f"{runtime} {precision}", "timm": round(found["timm"], 1),
                     "keras": round(found["keras"], 1), "keras as exported": round(found["plain"], 1),
                     "keras' time / timm's": found["timm"] / found["keras"],
                     "as exported / timm's": found["timm"] / found["plain"]}
                )  # fmt: skip
                print(rows[-1], flush=True)
    table(rows)
