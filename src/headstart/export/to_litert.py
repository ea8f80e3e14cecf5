"""``--to litert``: a ``.tflite`` file for phones and small devices, with labels and metadata in it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from headstart import __version__
from headstart.errors import ModelError
from headstart.export.about import MAX_FILE_BYTES, About
from headstart.export.formats import ExportOptions, Format, Target, result_lines, snippet_target, write_snippet
from headstart.export.labels import as_lines, write_labels
from headstart.export.toolchain import Toolchain, Worker, install, run_program
from headstart.files import to_json
from headstart.model.model import Model

FILE = "model.tflite"
TOOLCHAIN = Toolchain("litert", "3.12", 700)
TENSORS = {
    "pixels": "RGB pixels, 0 to 255, of an image that was cropped and resized as preprocess.py does it.",
    "probabilities": "The calibrated probability of each class.",
    "distance": "The OOD score, 0 to 1: how unlike the training images the image is.",
    "decision": "The number of the predicted class, by the costs or thresholds of the model.",
}
LABELS = "The calibrated probability of each label by itself; a label holds from its number in thresholds.txt on."


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:  # noqa: ARG001
    """Write ``model.tflite`` and ``preprocess.py``. Raises OptionError, ModelError."""
    install(TOOLCHAIN, allowed=options.install)
    columns = "labels" if about.is_multi_label else "classes"
    texts = {
        "name": "Image classifier",
        "description": f"An image classifier fitted with Headstart; {columns}: {', '.join(as_lines(about.classes))}.",
        "version": __version__,
        "labels": as_lines(about.classes),
        "tensors": TENSORS | ({"probabilities": LABELS} if about.is_multi_label else {}),
    }
    with tempfile.TemporaryDirectory() as temporary:
        source, description = Path(temporary) / "model.onnx", Path(temporary) / "about.json"
        source.write_bytes(graph)
        description.write_bytes(to_json(texts))
        run_program(TOOLCHAIN, "convert_litert.py", source, description, folder / FILE)
    write_labels(about, folder)
    write_snippet(about, folder)


def load(folder: Path, about: About) -> Target:
    """Load the export in LiteRT's interpreter, in its toolchain. Raises MissingExtraError, ModelError."""
    path = folder / FILE
    if not path.is_file() or path.stat().st_size > MAX_FILE_BYTES:
        raise ModelError(f"{path} is missing or too large; export the model again.")
    worker = Worker(TOOLCHAIN, "answer_litert.py", path, len(about.classes))
    return snippet_target(folder, about, "ai-edge-litert", TOOLCHAIN.version("ai-edge-litert"), worker, worker.close)


def use(about: About) -> str:
    """Return the program of the README."""
    return "\n".join(
        [
            "import numpy",
            "from ai_edge_litert.interpreter import Interpreter",
            "from preprocess import preprocess",
            "",
            f'interpreter = Interpreter("{FILE}")',
            "interpreter.allocate_tensors()",
            'result = interpreter.get_signature_runner()(pixels=preprocess("new.jpg")[numpy.newaxis])',
            'probabilities, distance = result["probabilities"][0], result["distance"].reshape(-1)[0]',
            *result_lines(about),
        ]
    )


LITERT = Format(
    "litert",
    ("fp32",),
    False,
    True,
    write,
    load,
    use,
    "headstart export MODEL --to litert, which installs it",
    one_image=True,
    why_fp32="onnx2tf's fp16 does not run, and int8 lost 6 to 8 of 142 right answers with headstart-s",
    language="python",
)
