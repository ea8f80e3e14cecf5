"""``--to openvino``: an OpenVINO model, with labels and preprocessing in its ``rt_info`` as Model API reads them."""

from __future__ import annotations

from importlib import metadata, util
from pathlib import Path

from headstart.errors import missing_extra
from headstart.export.about import About
from headstart.export.any_size import with_any_size
from headstart.export.formats import (
    ExportOptions,
    Format,
    Target,
    batch_lines,
    output_names,
    prepare_lines,
    snippet_target,
    write_snippet,
)
from headstart.export.graphs import for_model_api, runner
from headstart.features.runtime import Compute, load_graph
from headstart.model.metadata import KEY, model_info
from headstart.model.model import Model

FILE = "model.xml"


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:  # noqa: ARG001
    """Write ``model.xml``, ``model.bin`` and ``preprocess.py``. Raises MissingExtraError."""
    _check_installed()
    import openvino

    graph, texts = for_model_api(graph, model)
    network = openvino.Core().read_model(with_any_size(graph, about.preprocess) if about.any_size else graph)
    for name, value in model_info(texts).items():  # read_model keeps no metadata of an ONNX file
        network.set_rt_info(value, ["model_info", name])
    network.set_rt_info(texts[KEY], [KEY])
    openvino.save_model(network, folder / FILE, compress_to_fp16=about.precision == "fp16")
    write_snippet(about, folder)


def load(folder: Path, about: About) -> Target:
    """Load the export in OpenVINO, in fp32 arithmetic. Raises MissingExtraError."""
    _check_installed()
    precision = "int8" if about.precision == "int8" else "fp32"
    graph = load_graph(folder / FILE, Compute("openvino", precision, workers=1))
    batch = 1 if about.any_size else about.batch
    return snippet_target(folder, about, "openvino", metadata.version("openvino"), runner(graph, batch))


def _check_installed() -> None:
    if util.find_spec("openvino") is None:
        raise missing_extra("OpenVINO is not installed", "openvino")


def use(about: About) -> str:
    """Return the program of the README."""
    prepare, names = prepare_lines(about), output_names(about)
    values = [f'result["{name}"]' for name in names]
    return "\n".join(
        [
            "import json, numpy, openvino",
            prepare[0],
            "",
            f'model = openvino.Core().read_model("{FILE}")',
            'network = openvino.Core().compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})',
            f'about = json.loads(model.get_rt_info(["{KEY}"]).value)',
            prepare[1],
            "result = network([pixels])",
            f"{', '.join(names)} = {', '.join(values)}",
            *batch_lines(about),
        ]
    )


OPENVINO = Format(
    "openvino", ("fp32", "fp16", "int8"), True, True, write, load, use, "pip install openvino", language="python"
)
