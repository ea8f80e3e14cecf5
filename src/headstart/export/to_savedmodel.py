"""``--to savedmodel``: a TensorFlow SavedModel, of one image at a time, for TensorFlow Serving and what reads one."""

from __future__ import annotations

import tempfile
from pathlib import Path

from headstart.errors import ModelError
from headstart.export.about import About
from headstart.export.formats import ExportOptions, Format, Target, result_lines, snippet_target, write_snippet
from headstart.export.labels import write_labels
from headstart.export.toolchain import Toolchain, Worker, install, run_program
from headstart.model.model import Model

FOLDER = "saved_model"
TOOLCHAIN = Toolchain("savedmodel", "3.12", 2700)


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:  # noqa: ARG001
    """Write the folder ``saved_model``, ``labels.txt`` and ``preprocess.py``. Raises OptionError, ModelError."""
    install(TOOLCHAIN, allowed=options.install)
    with tempfile.TemporaryDirectory() as temporary:
        source = Path(temporary) / "model.onnx"
        source.write_bytes(graph)
        run_program(TOOLCHAIN, "convert_savedmodel.py", source, folder / FOLDER)
    write_labels(about, folder)
    write_snippet(about, folder)


def load(folder: Path, about: About) -> Target:
    """Load the export in TensorFlow, in its toolchain. Raises MissingExtraError, ModelError."""
    if not (folder / FOLDER / "saved_model.pb").is_file():
        raise ModelError(f"{folder / FOLDER} is missing; export the model again.")
    worker = Worker(TOOLCHAIN, "answer_savedmodel.py", folder / FOLDER, len(about.classes))
    return snippet_target(folder, about, "tensorflow", TOOLCHAIN.version("tensorflow"), worker, worker.close)


def use(about: About) -> str:
    """Return the program of the README."""
    return "\n".join(
        [
            "import numpy, tensorflow",
            "from preprocess import preprocess",
            "",
            f'model = tensorflow.saved_model.load("{FOLDER}")',
            'pixels = tensorflow.constant(preprocess("new.jpg")[numpy.newaxis])  # one image at a time',
            'result = model.signatures["serving_default"](pixels=pixels)',
            'probabilities, distance = result["probabilities"][0].numpy(), float(result["distance"][0])',
            *result_lines(about),
        ]
    )


SAVEDMODEL = Format(
    "savedmodel",
    ("fp32",),
    False,
    True,
    write,
    load,
    use,
    "headstart export MODEL --to savedmodel, which installs TensorFlow",
    one_image=True,
    language="python",
)
