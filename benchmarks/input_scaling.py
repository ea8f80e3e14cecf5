"""How often the scaling and the padding that batch norms tell are wrong, over weights and image sets.

    python benchmarks/input_scaling.py [--only FILE,FILE] [--folded FILE,FILE]

Needs the extras ``timm`` and ``keras`` (``make zoo``), the reference data and about 10 minutes of processor time.

The weights are those of the reference data. All want -1 to 1 in the order RGB, and TensorFlow's padding. Others are
made of them, with the same features: with the scaling folded into the first convolution, so that they want another one;
and with all filters mirrored, so that mirrored images need PyTorch's padding. The mean is folded into the first batch
norm, which is exact but for the border. Rows are printed as they come.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
from measure import Scratch, print_table, run_process, shared
from numpy.typing import NDArray
from onnx import numpy_helper

from headstart import backbones, open_dataset
from headstart.backbones import InputOptions
from headstart.backbones.scaling import USUAL, Assumption, ChannelStatistics, Norms, Scaling
from headstart.data import Dataset
from headstart.features.input_scaling import InputScaling, find_scaling, sample_pixels

TRUTH = Scaling(*USUAL["-1 to 1"])
OTHERS = [
    Scaling(*USUAL["0 to 1"]),
    Scaling(*USUAL["ImageNet's mean and deviation"]),
    Scaling(*USUAL["0 to 255"]),
    Scaling(*USUAL["0 to 255 less ImageNet's mean"], "BGR"),
]
WEIGHTS = {  # file: the architecture that it is given for
    "mobilenetv2-inat-bird.safetensors": "timm:mobilenetv2_100",
    "mobilenetv2-inat-insect.safetensors": "timm:mobilenetv2_100",
    "mobilenetv2-imagenet.safetensors": "timm:mobilenetv2_100",
    "efficientnet-lite0-imagenet.safetensors": "timm:efficientnet_lite0",
    "efficientnet-lite2-imagenet.safetensors": "timm:efficientnet_lite2",
    "mobilenetv2-imagenet.weights.h5": "keras:MobileNetV2",
}
FOLDED = "mobilenetv2-imagenet.safetensors,efficientnet-lite0-imagenet.safetensors"


def edited(norms: Norms, change: dict[str, NDArray[np.float32]], first: ChannelStatistics) -> Norms:
    """Return batch norms with other tensors, by name, and other statistics of the first one."""
    model = onnx.load_model_from_string(norms.graph.read_bytes() if isinstance(norms.graph, Path) else norms.graph)
    for tensor in model.graph.initializer:
        if tensor.name in change:
            tensor.CopyFrom(numpy_helper.from_array(change[tensor.name].astype(np.float32), tensor.name))
    return replace(norms, graph=model.SerializeToString(), statistics=(first, *norms.statistics[1:]))


def tensors(norms: Norms) -> tuple[onnx.GraphProto, dict[str, NDArray[np.float32]]]:
    """Return the graph before the batch norms, and its tensors by name."""
    model = onnx.load_model_from_string(norms.graph.read_bytes() if isinstance(norms.graph, Path) else norms.graph)
    return model.graph, {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def wanting(norms: Norms, scaling: Scaling) -> Norms:
    """Return the batch norms of a network with the same features that wants ``scaling`` in place of ``TRUTH``."""
    graph, values = tensors(norms)
    conv = next(node for node in graph.node if node.op_type == "Conv")
    norm = next(node for node in graph.node if node.op_type in ("BatchNormalization", "Sub"))
    # TRUTH(x) = slope * scaling(x) + shift, channel by channel
    slope = np.array(scaling.std) / np.array(TRUTH.std)
    shift = (np.array(scaling.mean) - np.array(TRUTH.mean)) / np.array(TRUTH.std)
    weight = values[conv.input[1]]
    offset = np.einsum("oihw,i->o", weight, shift)
    folded = weight * slope[:, None, None]
    mean_name = norm.input[3] if norm.op_type == "BatchNormalization" else norm.input[1]
    mean = values[mean_name] - offset.reshape(values[mean_name].shape)
    change = {conv.input[1]: folded[:, ::-1] if scaling.channels == "BGR" else folded, mean_name: mean}
    stored = norms.statistics[0]
    return edited(norms, change, ChannelStatistics(tuple(np.subtract(stored.mean, offset).tolist()), stored.variance))


def mirrored(norms: Norms) -> Norms:
    """Return the batch norms of the network that gives for mirrored images what this one gives for images."""
    graph, values = tensors(norms)
    filters = {node.input[1] for node in graph.node if node.op_type == "Conv"}
    return edited(norms, {name: values[name][..., ::-1, ::-1] for name in filters}, norms.statistics[0])


def cases(
    assumption: Assumption, pixels: NDArray[np.uint8], *, folded: bool
) -> Iterator[tuple[Scaling, bool | None, InputScaling]]:
    """Give for each case the right scaling, whether TensorFlow's padding is right (None: not open), what was taken."""
    norms = assumption.norms
    assert norms is not None
    is_open = norms.padding_is_open
    yield TRUTH, True if is_open else None, find_scaling(assumption, pixels)
    if is_open:
        flipped = np.ascontiguousarray(pixels[:, ::-1, ::-1])
        yield TRUTH, False, find_scaling(replace(assumption, norms=mirrored(norms)), flipped)
    for scaling in OTHERS if folded else []:
        changed = replace(wanting(norms, scaling), padding_is_open=False)
        yield scaling, None, find_scaling(replace(assumption, norms=changed), pixels)


def verdict(right: object, found: object, *, is_measured: bool) -> str:
    return "not told" if not is_measured else "right" if found == right else "wrong"


def image_sets(folder: Path) -> dict[str, Dataset]:
    sample = ["sample", "horses-or-humans", folder, "--train", "100", "--validation", "10", "--quiet"]
    run_process([sys.executable, "-m", "headstart", *sample], folder.parent)
    data = shared() / "data"
    paths = {"ants-bees": data / "ants-bees", "horse-or-human": data / "horse-or-human", "rendered sample": folder}
    return {name: open_dataset(path).split("train") for name, path in paths.items()}


def row(file: str, images: str, right: Scaling, padding: bool | None, found: InputScaling) -> dict[str, object]:
    """Return what was found in one case, and whether it is right."""
    values = sorted(
        min(value for name, value in found.divergences.items() if name.removesuffix(" in the order BGR") == base)
        for base in {name.removesuffix(" in the order BGR") for name in found.divergences}
    )
    padding_verdict = "-"
    if padding is not None and found.measured:
        ratio = found.padding_ratio or 1.0
        padding_verdict = "right" if found.same_padding == padding else "wrong" if found.same_padding else "kept"
        padding_verdict += f" ({ratio:.2f})"
    return {
        "weights": file,
        "images": images,
        "wants": str(right) + {True: ", same", False: ", mirrored", None: ""}[padding],
        "scaling": verdict(right, found.scaling, is_measured=found.measured),
        "divergence": round(values[0], 3),
        "next / first": round(values[1] / values[0], 1),
        "padding": padding_verdict,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default=",".join(WEIGHTS), help="files of weights")
    parser.add_argument("--folded", default=FOLDED, help="files of weights from which others are made that want others")
    arguments = parser.parse_args()
    rows = []
    with Scratch() as scratch:
        sets = image_sets(scratch.path / "sample")
        for file in arguments.only.split(","):
            id = WEIGHTS[file]
            backbone = backbones.load(id, options=InputOptions(weights=str(shared() / "weights" / file)))
            assert backbone.assumption is not None
            for name, dataset in sets.items():
                pixels = sample_pixels(dataset, backbone.preprocess)
                for case in cases(backbone.assumption, pixels, folded=file in arguments.folded.split(",")):
                    rows.append(row(file, name, *case))
                    print(rows[-1], flush=True)
    print_table(rows)
    for column in ("scaling", "padding"):
        counts = Counter(str(entry[column]).partition(" (")[0] for entry in rows)
        print(f"\n{column}: " + ", ".join(f"{count} {key}" for key, count in counts.items()))


if __name__ == "__main__":
    main()
