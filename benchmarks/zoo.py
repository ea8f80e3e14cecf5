"""The same architecture from timm and from Keras, prepared graphs side by side; and Keras' graph as it was exported.

    python benchmarks/zoo.py [--runs 5] [--only MobileNetV2,ResNet50]

Needs the extras ``timm`` and ``keras`` (``make zoo``), and OpenVINO for its rows. Weights are random: time does not
depend on them. Images per processor-second through the graph alone, cut at the features: other work on the machine
matters less.
"""

from __future__ import annotations

import argparse
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

os.environ["KERAS_BACKEND"] = "torch"

import keras
import numpy as np
import timm
from measure import Scratch, alternating_medians, print_table
from safetensors.torch import save_file

from headstart import Compute, backbones
from headstart.backbones import InputOptions
from headstart.backbones.onnx import standardise
from headstart.features.runtime import Graph, load_graph, resolve_runtime
from headstart.machine import cores

NETWORKS = {  # name in Keras: name in timm, size
    "MobileNetV2": ("mobilenetv2_100?pad_type=same", 224),
    "MobileNetV3Small": ("mobilenetv3_small_100?pad_type=same", 224),
    "ResNet50": ("resnet50", 224),
    "EfficientNetB0": ("tf_efficientnet_b0", 224),
    "DenseNet121": ("densenet121", 224),
    "InceptionV3": ("inception_v3", 299),
    "ConvNeXtTiny": ("convnext_tiny", 224),
}
SLOW = ("ResNet50", "DenseNet121", "InceptionV3", "ConvNeXtTiny")


def cut_at_features(backbone_id: str, weights: Path, size: int) -> bytes:
    """Return the prepared graph of a backbone, cut at its features."""
    options = InputOptions(weights=str(weights), size=(size, size))
    return backbones.cut(backbones.load(backbone_id, options=options), ["features"]).SerializeToString()


def timm_graph(name: str, size: int, folder: Path) -> bytes:
    """Return the prepared graph of a network of timm."""
    network = timm.create_model(name.partition("?")[0])
    weights = folder / "timm.safetensors"
    save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, weights)
    return cut_at_features(f"timm:{name}", weights, size)


def keras_graphs(name: str, size: int, folder: Path) -> tuple[bytes, bytes]:
    """Return the prepared graph of a network of Keras, and the same without what makes it cheaper."""
    network = getattr(keras.applications, name)(include_top=False, weights=None, input_shape=(size, size, 3))
    weights = folder / "keras.weights.h5"
    network.save_weights(weights)
    os.environ["HEADSTART_CACHE"] = str(folder / f"cache-{name}-simplified")
    simplified = cut_at_features(f"keras:{name}", weights, size)
    os.environ["HEADSTART_CACHE"] = str(folder / f"cache-{name}-exported")
    with mock.patch.object(standardise, "simplify"):
        exported = cut_at_features(f"keras:{name}", weights, size)
    return simplified, exported


def images_per_cpu_second(graph: Graph, size: int, images: int) -> float:
    """Return how many images the graph takes in a second of processor time."""
    batch = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    with ThreadPoolExecutor(cores()) as pool:
        start = time.process_time()
        list(pool.map(graph.run, [batch] * (images // 8)))
        return images / (time.process_time() - start)


def available_runtimes() -> list[Compute]:
    """Return the runtimes and precisions of this machine."""
    runtimes = [Compute("onnxruntime", "fp32")]
    if find_spec("openvino") is not None:
        runtimes.append(Compute("openvino", "fp32"))
        if resolve_runtime("openvino").precision == "bf16":
            runtimes.append(Compute("openvino", "bf16"))
    return runtimes


def measure(name: str, compute: Compute, model_bytes: dict[str, bytes], runs: int) -> dict[str, object]:
    """Return the row of a network on a runtime."""
    _, size = NETWORKS[name]
    graphs = {key: load_graph(data, compute) for key, data in model_bytes.items()}
    images = 64 if name in SLOW else 256
    for graph in graphs.values():
        images_per_cpu_second(graph, size, 16)
    speeds = alternating_medians(
        runs, {key: partial(images_per_cpu_second, graph, size, images) for key, graph in graphs.items()}
    )
    return {
        "network": name,
        "runtime": f"{compute.runtime} {compute.precision}",
        **{key: round(speed, 1) for key, speed in speeds.items()},
        "keras' time / timm's": speeds["timm"] / speeds["keras"],
        "as exported / timm's": speeds["timm"] / speeds["keras as exported"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--only", default=",".join(NETWORKS))
    arguments = parser.parse_args()
    rows = []
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        for name in arguments.only.split(","):
            timm_name, size = NETWORKS[name]
            from_timm = timm_graph(timm_name, size, scratch.path)
            simplified, exported = keras_graphs(name, size, scratch.path)
            model_bytes = {"timm": from_timm, "keras": simplified, "keras as exported": exported}
            for compute in available_runtimes():
                rows.append(measure(name, compute, model_bytes, arguments.runs))
                print(rows[-1], flush=True)
    print_table(rows)


if __name__ == "__main__":
    main()
