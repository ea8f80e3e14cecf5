"""The built-in backbone beside MobileNetV2 and two floors, with the frozen pipeline's defaults; and speeds.

    python benchmarks/backbones.py [--runs 9]

Floors: the same architecture with random weights, and HOG with a colour histogram under the same choice of head.
"""

from __future__ import annotations

import json
import os
import time

import numpy as np
import onnx
from measure import Scratch, arguments, shared, side_by_side, table
from onnx import numpy_helper
from PIL import Image

import headstart as hs
from headstart import backbones
from headstart.data import Dataset, open_dataset
from headstart.features.features import embed
from headstart.features.runtime import load_graph
from headstart.heads import select
from headstart.images.decode import decode
from headstart.machine import cores
from headstart.splits.groups import find_groups

SETS = ("horse-or-human", "ants-bees")


def random_weights(folder):
    """The built-in graph with weights drawn anew: of the same scale a layer, He initialisation for convolutions."""
    built_in = backbones.load("headstart-s")
    model, rng = onnx.load(built_in.graph), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor)
        if value.ndim == 4:
            fan_in = np.prod(value.shape[1:])
            drawn = rng.normal(size=value.shape) * np.sqrt(2 / fan_in)
            tensor.CopyFrom(numpy_helper.from_array(drawn.astype(value.dtype), tensor.name))
        elif value.ndim == 1 and value.size > 3 and value.dtype in (np.float32, np.float16):
            tensor.CopyFrom(numpy_helper.from_array(np.zeros_like(value), tensor.name))
    path = folder / "random.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def hog_and_colours(image: np.ndarray) -> np.ndarray:
    """Histograms of oriented gradients (Dalal & Triggs 2005: 8 x 8 cells, 9 directions, 2 x 2 blocks) at 64 x 64,
    and an 8 x 8 x 8 colour histogram."""
    small = np.asarray(Image.fromarray(image).resize((64, 64), Image.Resampling.BILINEAR), np.float32)
    grey = np.sqrt(small.mean(axis=2))
    dy, dx = np.gradient(grey)
    size, angle = np.hypot(dx, dy), np.mod(np.arctan2(dy, dx), np.pi) / np.pi * 9
    low, share = np.floor(angle).astype(int) % 9, angle - np.floor(angle)
    cells = np.zeros((8, 8, 9))
    y, x = np.mgrid[:64, :64] // 8
    np.add.at(cells, (y, x, low), size * (1 - share))
    np.add.at(cells, (y, x, (low + 1) % 9), size * share)
    found = []
    for i in range(7):
        for j in range(7):
            block = cells[i : i + 2, j : j + 2].ravel()
            block = np.minimum(block / np.sqrt((block**2).sum() + 1e-6), 0.2)
            found.append(block / np.sqrt((block**2).sum() + 1e-6))
    bins = (small // 32).astype(int) @ [64, 8, 1]
    colours = np.sqrt(np.bincount(bins.ravel(), minlength=512) / bins.size)
    return np.concatenate([*found, 3 * colours]).astype(np.float32)


def floor(dataset: Dataset) -> float:
    """Validation accuracy of HOG and colours, taps and heads chosen as for a backbone; groups by headstart-s."""
    labels = np.array([dataset.classes.index(item.label) for item in dataset.items])
    rows = {"hog": [], "colours": []}
    kept = []
    for i in range(len(dataset)):
        try:
            vector = hog_and_colours(decode(dataset.read(i)))
        except hs.HeadstartError:
            continue
        rows["hog"].append(vector[:-512])
        rows["colours"].append(vector[-512:])
        kept.append(i)
    train = np.array([dataset.items[i].split == "train" for i in kept])
    values, labels = {name: np.stack(found) for name, found in rows.items()}, labels[kept]
    found = embed(dataset.select(kept), backbones.load("headstart-s"))
    groups = find_groups(
        found.content_hashes[train], found.tiny_images[train], found.values["features"][train], labels[train]
    )
    choice = select({name: value[train] for name, value in values.items()}, labels[train], groups.index)
    new = np.concatenate([values[tap][~train] for tap in choice.head.taps], axis=1)
    return float((choice.head.scores(new).argmax(axis=1) == labels[~train]).mean())


def speed(backbone, runtime: str, precision: str, pictures: int = 128) -> float:
    """Pictures a second through the graph alone, all cores."""
    from concurrent.futures import ThreadPoolExecutor

    graph = load_graph(backbone.graph, runtime=runtime, precision=precision)
    size = backbone.preprocess
    batch = np.random.default_rng(0).integers(0, 256, (16, size.height, size.width, 3), np.uint8)
    with ThreadPoolExecutor(cores()) as pool:
        list(pool.map(graph.run, [batch] * 4))
        began = time.perf_counter()
        list(pool.map(graph.run, [batch] * (pictures // 16)))
    return pictures / (time.perf_counter() - began)


if __name__ == "__main__":
    runs = arguments(__doc__, runs=9).runs
    teacher = f"onnx:{shared() / 'weights' / 'mobilenetv2-imagenet.onnx'}"
    with Scratch() as scratch:
        os.environ["HEADSTART_CACHE"] = str(scratch.cache())
        drawn = random_weights(scratch.path)
        description = json.loads((backbones.load("headstart-s").graph.parent / "backbone.json").read_text("utf-8"))
        same = hs.InputOptions(crop=description["preprocess"]["crop"])
        accuracy = {}
        for data in SETS:
            folder = shared() / "data" / data
            for name, options in (
                ("headstart-s", {}), ("MobileNetV2", {"backbone": teacher}),
                ("random weights", {"backbone": f"onnx:{drawn}", "input_options": same}),
            ):  # fmt: skip
                fitted = hs.ImageClassifier(**options).fit(folder)
                accuracy[name, data] = fitted.accuracy_["validation"].value
            accuracy["HOG + colours", data] = floor(open_dataset(folder))
        names = ("headstart-s", "MobileNetV2", "random weights", "HOG + colours")
        table([{"features": name, **{data: round(accuracy[name, data], 4) for data in SETS}} for name in names])
        gains = []
        for data in SETS:
            best = max(accuracy["random weights", data], accuracy["HOG + colours", data])
            gain = (accuracy["headstart-s", data] - best) / (accuracy["MobileNetV2", data] - best)
            gains.append({"data": data, "better floor": best, "share of MobileNetV2's gain over it": gain})
        table(gains)
        rows = []
        for runtime, precision in (("onnxruntime", "fp32"), ("openvino", "fp32"), ("openvino", "bf16")):
            ours, theirs = backbones.load("headstart-s"), backbones.load(teacher)
            found = side_by_side(
                runs,
                ours=lambda r=runtime, p=precision, b=ours: speed(b, r, p),
                theirs=lambda r=runtime, p=precision, b=theirs: speed(b, r, p),
            )
            rows.append(
                {"runtime": f"{runtime} {precision}", "headstart-s (pictures/s)": round(found["ours"]),
                 "MobileNetV2 at 224": round(found["theirs"]), "ratio": found["ours"] / found["theirs"]}
            )  # fmt: skip
        table(rows)
