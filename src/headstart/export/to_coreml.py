"""``--to coreml``: a package for Apple's devices, which takes an image and gives a label, or each of several labels.

Core ML runs on Apple's systems alone. Elsewhere the arithmetic of the saved package is proven (``answer_coreml.py``),
and a script for a Mac goes with the export.
"""

from __future__ import annotations

import tempfile
from importlib import resources
from pathlib import Path

from headstart.errors import ModelError
from headstart.export.about import About
from headstart.export.formats import LABEL_LINES, ExportOptions, Format, Target, snippet_target, write_snippet
from headstart.export.graphs import metadata_of
from headstart.export.labels import as_lines, write_labels
from headstart.export.toolchain import Toolchain, Worker, install, run_program
from headstart.files import encode, json_text, to_json
from headstart.model.metadata import KEY
from headstart.model.model import Model

FILE = "model.mlpackage"
SCRIPT = "prove_on_mac.py"
TOOLCHAIN = Toolchain("coreml", "3.12", 300)


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:
    """Write ``model.mlpackage``, ``labels.txt``, ``preprocess.py`` and the script. Raises OptionError, ModelError."""
    install(TOOLCHAIN, allowed=options.install)
    texts = {
        "labels": as_lines(about.classes),
        "is_multi_label": about.is_multi_label,
        "precision": about.precision,
        "description": f"An image classifier fitted with Headstart: {_outputs(about)}, and distance, the OOD score. "
        "Images must be cropped and resized as preprocess.py does it.",
        "metadata": {KEY: metadata_of(model)[KEY], "labels": json_text(as_lines(about.classes))},
    }
    with tempfile.TemporaryDirectory() as temporary:
        source, description = Path(temporary) / "model.onnx", Path(temporary) / "about.json"
        source.write_bytes(graph)
        description.write_bytes(to_json(texts))
        run_program(TOOLCHAIN, "convert_coreml.py", source, description, folder / FILE)
    write_labels(about, folder)
    (folder / SCRIPT).write_bytes((resources.files("headstart.export") / "toolchains" / SCRIPT).read_bytes())
    write_snippet(about, folder)


def _outputs(about: About) -> str:
    """Name the outputs of a package, but for ``distance``."""
    if about.is_multi_label:  # Core ML's classifiers give one class an image
        return "probabilities, of each of the labels by itself"
    return "classLabel, classLabel_probs"


def load(folder: Path, about: About) -> Target:
    """Read the package and run its arithmetic. Raises MissingExtraError, ModelError."""
    if not (folder / FILE).is_dir():
        raise ModelError(f"{folder / FILE} is missing; export the model again.")
    labels = encode(json_text(as_lines(about.classes)) + "\n")
    worker = Worker(TOOLCHAIN, "answer_coreml.py", folder / FILE, len(about.classes), labels)
    runtime = "the package's arithmetic, read by coremltools"
    return snippet_target(folder, about, runtime, TOOLCHAIN.version("coremltools"), worker, worker.close)


def use(about: About) -> str:
    """Return how it is used, on a Mac."""
    result = ['print(result["classLabel"], result["classLabel_probs"], result["distance"])']
    if about.rule is not None:  # ``classLabel`` is the most probable class
        result = [
            LABEL_LINES[0],
            f'matrix = json.loads(model.user_defined_metadata["{KEY}"])["decision"]["matrix"]',
            'probabilities = numpy.array([result["classLabel_probs"][label] for label in labels])',
            "best = (probabilities @ numpy.array(matrix)).argmax()",
            'print(labels[best], probabilities[best], result["distance"])',
        ]
    if about.is_multi_label:
        result = ['probabilities = result["probabilities"].reshape(-1)', *LABEL_LINES, 'print(result["distance"])']
    return "\n".join(
        [
            "import coremltools" if about.rule is None else "import coremltools, json, numpy",
            "from PIL import Image",
            "from preprocess import preprocess",
            "",
            f'model = coremltools.models.MLModel("{FILE}")',
            'result = model.predict({"pixels": Image.fromarray(preprocess("new.jpg"))})',
            *result,
        ]
    )


def describe_input(about: About) -> str:
    """Say what the package takes and gives."""
    outputs = "`classLabel`, the most probable class, `classLabel_probs`, the probability of each class by its name"
    if about.is_multi_label:
        outputs = f"`probabilities` `[1, {len(about.classes)}]`, of each of the labels by itself"
    return (
        f"`pixels`: an RGB image of {about.preprocess.width} x {about.preprocess.height} pixels\n"
        f"- Outputs: {outputs}, and the OOD score, `distance`, 0 to 1"
    )


COREML = Format(
    "coreml",
    ("fp32", "fp16"),
    False,
    True,
    write,
    load,
    use,
    "headstart export MODEL --to coreml, which installs what reads it",
    not_proven=(("Core ML itself runs on Apple's systems alone", f"python3 {SCRIPT}, on a Mac"),),
    one_image=True,
    only_forced=("fp16",),
    language="python",
    input=describe_input,
)
