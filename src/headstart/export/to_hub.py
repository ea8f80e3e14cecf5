"""``--to hub``: a folder for the Hugging Face Hub, as transformers.js loads it.

The graph takes ``pixel_values`` and gives ``logits``, and the steps of preparation are written in the Hub's words.
These are near to Headstart's, not the same: the whole image is resized and then cropped, where Headstart resizes the
crop. How many answers that changes is printed, and not refused.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper
from PIL import Image, ImageOps

from headstart.backbones.onnx.graph import prune, rename_tensors
from headstart.errors import ModelError, OptionError, one_line, untrusted
from headstart.export.about import MAX_FILE_BYTES, MAX_JSON_BYTES, About
from headstart.export.answers import Answers
from headstart.export.formats import ExportOptions, Format, Pixels, Target
from headstart.export.graphs import metadata_of, read_onnx
from headstart.features.runtime import onnxruntime_version
from headstart.files import read_json, to_json
from headstart.machine import import_onnxruntime
from headstart.model.model import Model

GRAPH = "onnx/model.onnx"
CONFIG, PREPARATION = "config.json", "preprocessor_config.json"
RESAMPLE = {"bilinear": 2, "bicubic": 3}  # of Pillow
# transformers.js knows some types of models alone; of this one it asks nothing but pixel_values and logits.
MODEL_TYPE, ARCHITECTURE = "mobilenet_v2", "MobileNetV2ForImageClassification"


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:  # noqa: ARG001
    """Write the graph and the two descriptions. Raises OptionError for preparation that the Hub's words cannot say."""
    (folder / "onnx").mkdir()
    (folder / GRAPH).write_bytes(with_logits(graph, metadata_of(model)))
    labels = {str(i): name for i, name in enumerate(model.classes)}
    config = {
        "model_type": MODEL_TYPE,
        "architectures": [ARCHITECTURE],
        "num_labels": len(labels),
        "id2label": labels,
        "label2id": {name: i for i, name in enumerate(model.classes)},
        "headstart": model.thresholds.to_dict(),
    }
    (folder / CONFIG).write_bytes(to_json(config, indent=1))
    (folder / PREPARATION).write_bytes(to_json(preparation(about), indent=1))


def with_logits(content: bytes, texts: Mapping[str, str]) -> bytes:
    """Return the graph with float ``pixel_values`` [batch, 3, height, width], 0 to 255, in and ``logits`` out."""
    model = onnx.load_model_from_string(content)
    graph = model.graph
    height, width = (graph.input[0].type.tensor_type.shape.dim[i].dim_value for i in (1, 2))
    rename_tensors(graph, {"pixels": "hub.pixels", "head.scores": "logits"})
    entrance = helper.make_node("Transpose", ["pixel_values"], ["hub.pixels"], perm=[0, 2, 3, 1])
    rest = list(graph.node)
    classes = next(output for output in graph.output if output.name == "probabilities").type.tensor_type.shape.dim[1]
    distance = next(output for output in graph.output if output.name == "distance")
    outputs = [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", classes.dim_value]), distance]
    del graph.node[:], graph.input[:], graph.value_info[:]
    graph.node.extend([entrance, *rest])
    graph.input.append(helper.make_tensor_value_info("pixel_values", TensorProto.FLOAT, ["batch", 3, height, width]))
    kept = [type(output).FromString(output.SerializeToString()) for output in outputs]
    del graph.output[:]
    graph.output.extend(kept)
    prune(model, ["logits", "distance"])
    helper.set_model_props(model, dict(texts))
    onnx.checker.check_model(model)
    serialized: bytes = model.SerializeToString(deterministic=True)
    return serialized


def preparation(about: About) -> dict[str, Any]:
    """Return the preparation in the Hub's words. Raises OptionError."""
    p = about.preprocess
    values: dict[str, Any] = {
        "do_resize": True,
        "resample": RESAMPLE[p.interpolation],
        "do_convert_rgb": True,
        "do_rescale": False,  # both are inside the graph
        "do_normalize": False,
    }
    if p.resize == "squash" and p.crop == 1:
        values |= {"image_processor_type": "ViTImageProcessor", "size": {"height": p.height, "width": p.width}}
        return values | {"do_center_crop": False}
    if p.resize == "squash" or p.height != p.width:
        raise OptionError(
            f"The Hub's words cannot say how images of {p.height} x {p.width} are prepared ({p.resize}, crop "
            f"{p.crop:g}); export with --to onnx or --to web."
        )
    return values | {
        "image_processor_type": "CLIPImageProcessor",
        "size": {"shortest_edge": round(p.height / p.crop)},
        "do_center_crop": True,
        "crop_size": {"height": p.height, "width": p.width},
    }


def load(folder: Path, about: About) -> Target:
    """Load the graph in ONNX Runtime, and prepare files by the steps of ``preprocessor_config.json`` with Pillow."""
    path = folder / GRAPH
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{folder} has no {GRAPH}; export the model again.")
    session = import_onnxruntime().InferenceSession(
        read_onnx(path, about, "pixel_values"), providers=["CPUExecutionProvider"]
    )
    with untrusted(f"{folder}: {PREPARATION}", ModelError):
        steps = read_json(folder / PREPARATION, MAX_JSON_BYTES)
        labels = read_json(folder / CONFIG, MAX_JSON_BYTES)["id2label"]
        names = tuple(labels[str(i)] for i in range(len(labels)))
    checks = {
        f"{CONFIG} names other classes, or in another order": names == about.classes,
        f"{PREPARATION} is not the one that Headstart writes for this model": steps == preparation(about),
    }
    problems = tuple(text for text, is_right in checks.items() if not is_right)

    def on_pixels(pixels: Pixels) -> Answers:
        parts = [_run(session, pixels[i : i + 1], about) for i in range(len(pixels))]
        return Answers(np.concatenate([p.probabilities for p in parts]), np.concatenate([p.ood_scores for p in parts]))

    def on_files(files: Sequence[bytes]) -> Answers:
        pixels, unread = [], {}
        for i, data in enumerate(files):
            try:
                pixels.append(prepare(data, preparation(about)))
            except Exception as error:  # for malformed bytes decoders raise anything
                unread[i] = one_line(error)
                pixels.append(np.zeros((about.preprocess.height, about.preprocess.width, 3), np.uint8))
        answers = on_pixels(np.stack(pixels))
        return Answers(answers.probabilities, answers.ood_scores, unread)

    return Target("onnxruntime, with Pillow", onnxruntime_version(), on_pixels, on_files, problems)


def _run(session: Any, pixels: Pixels, about: About) -> Answers:
    batch = about.batch or 1
    values = np.repeat(pixels, batch, axis=0).transpose(0, 3, 1, 2).astype(np.float32)
    logits, distance = session.run(["logits", "distance"], {"pixel_values": values})
    return Answers(_softmax(logits[:1].astype(np.float64)), distance[:1].astype(np.float64))


def _softmax(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return probabilities


def prepare(data: bytes, steps: Mapping[str, Any]) -> Pixels:
    """Prepare an image file by the steps of a ``preprocessor_config.json``, as the Python library transformers does."""
    with Image.open(io.BytesIO(data)) as opened:
        image = ImageOps.exif_transpose(opened).convert("RGB")
    size = steps["size"]
    if "shortest_edge" in size:
        short, long = sorted(image.size)
        new_long = int(size["shortest_edge"] * long / short)
        wanted = (size["shortest_edge"], new_long) if image.width <= image.height else (new_long, size["shortest_edge"])
    else:
        wanted = (size["width"], size["height"])
    image = image.resize(wanted, Image.Resampling(steps["resample"]))
    if steps["do_center_crop"]:
        width, height = steps["crop_size"]["width"], steps["crop_size"]["height"]
        left, top = (image.width - width) // 2, (image.height - height) // 2
        image = image.crop((left, top, left + width, top + height))
    return np.asarray(image)


def use(about: About) -> str:  # noqa: ARG001
    """Return how it is used."""
    return "\n".join(
        [
            'import { pipeline } from "@huggingface/transformers";',
            "",
            'const classify = await pipeline("image-classification", "ORG/NAME", { dtype: "fp32" });',
            'console.log(await classify("new.jpg"));',
        ]
    )


def describe_input(about: About) -> str:
    """Say what the graph takes and gives."""
    size = f"`[batch, 3, {about.preprocess.height}, {about.preprocess.width}]`"
    return (
        f"`pixel_values`: RGB, float32, 0 to 255, {size}; `{PREPARATION}` says how it is prepared\n"
        "- Outputs: `logits` `[batch, classes]`, calibrated, and the OOD score, `distance` `[batch]`, 0 to 1, which a "
        "pipeline does not show"
    )


def front_matter(about: About, model: Model) -> str:
    """Return the metadata of the Hub's model card: licence, task, and the accuracies as its ``model-index``."""
    licence = model.backbone.get("licence", "unknown").lower()
    metrics = []
    for key, name in (("validation", "validation images"), ("leave_group_out", "each group left out of training")):
        accuracy = (model.run.get("accuracy") or {}).get(key)
        if accuracy:
            metrics.append({"type": "accuracy", "name": f"Accuracy, {name}", "value": round(accuracy["value"], 4)})
    card = {
        "license": licence if licence == "apache-2.0" else "other",
        "pipeline_tag": "image-classification",
        "library_name": "transformers.js",
        "tags": ["onnx", "headstart", about.precision],
        "model-index": [
            {
                "name": "image classifier",
                "results": [
                    {
                        "task": {"type": "image-classification"},
                        "dataset": {"type": "own", "name": "the images that it was fitted to"},
                        "metrics": metrics,
                    }
                ],
            }
        ],
    }
    return f"---\n{to_json(card, indent=1).decode('utf-8')}---\n\n"  # JSON is YAML


HUB = Format(
    "hub",
    ("fp32", "int8"),
    False,
    False,
    write,
    load,
    use,
    "pip install onnxruntime",
    not_proven=(
        (
            "transformers.js in a browser, which resizes with a filter of the browser",
            "the program of README.md in a page, on the images of proof/",
        ),
    ),
    one_image=True,
    refuses_files=False,
    why_one_label="transformers.js takes a softmax of the scores of every image classifier, so that probabilities of "
    "several labels would be wrong; --to web has a page that answers in the browser",
    language="js",
    input=describe_input,
    front_matter=front_matter,
)
