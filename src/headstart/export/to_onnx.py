"""``--to onnx``: the graph itself, or with crop and resize inside, for any ONNX runtime."""

from __future__ import annotations

import json
from pathlib import Path

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
from headstart.export.graphs import for_model_api, read_onnx, runner
from headstart.features.runtime import Compute, load_graph, onnxruntime_version
from headstart.model.model import Model

FILE = "model.onnx"


def write(graph: bytes, about: About, model: Model, options: ExportOptions, folder: Path) -> None:  # noqa: ARG001
    """Write ``model.onnx`` and ``preprocess.py``."""
    graph, _ = for_model_api(graph, model)
    (folder / FILE).write_bytes(with_any_size(graph, about.preprocess) if about.any_size else graph)
    write_snippet(about, folder)


def load(folder: Path, about: About) -> Target:
    """Load the export in ONNX Runtime."""
    precision = "int8" if about.precision == "int8" else "fp32"
    graph = load_graph(read_onnx(folder / FILE, about), Compute("onnxruntime", precision, workers=1))
    batch = 1 if about.any_size else about.batch
    return snippet_target(folder, about, "onnxruntime", onnxruntime_version(), runner(graph, batch))


def use(about: About) -> str:
    """Return the program of the README."""
    prepare, names = prepare_lines(about), output_names(about)
    return "\n".join(
        [
            "import json, numpy, onnxruntime",
            prepare[0],
            "",
            f'session = onnxruntime.InferenceSession("{FILE}")',
            'about = json.loads(session.get_modelmeta().custom_metadata_map["headstart"])',
            prepare[1],
            f'{", ".join(names)} = session.run({json.dumps(names)}, {{"pixels": pixels}})',
            *batch_lines(about),
        ]
    )


ONNX = Format("onnx", ("fp32", "int8"), True, True, write, load, use, "pip install onnxruntime", language="python")
