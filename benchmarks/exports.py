"""Export models to every format and print, as Markdown, what each proof found, and the speed beside ONNX Runtime.

    python benchmarks/exports.py DATA MODEL... [--to FORMAT...] [--skews]

DATA are labelled images with a validation split; each MODEL is a model folder. "32 images" are the first of them: their
prepared pixels given to the graph, then their files. The speed is that of the runtime on one thread (set
OMP_NUM_THREADS=1 and TF_NUM_INTRAOP_THREADS=1), 16 images, as a multiple of ONNX Runtime on the same graph in fp32:
nine rounds of both in turn, medians. Seconds of the wall, since some runtimes are other processes. ``--skews`` plants
ten mistakes in an export of the first model instead, and prints what ``verify`` says of each.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from headstart.data import open_dataset
from headstart.errors import HeadstartError
from headstart.export import ExportOptions, export_model, verify_export
from headstart.export.about import About
from headstart.export.graphs import reference
from headstart.export.registry import FORMATS
from headstart.export.skews import prepared
from headstart.model.folder import read_model
from headstart.model.predictor import labelled_part

CASES = [
    ("onnx", ExportOptions()),
    ("onnx", ExportOptions(any_size=True)),
    ("onnx", ExportOptions("int8")),
    ("openvino", ExportOptions()),
    ("openvino", ExportOptions(any_size=True)),
    ("openvino", ExportOptions("fp16")),
    ("openvino", ExportOptions("int8")),
    ("litert", ExportOptions()),
    ("savedmodel", ExportOptions()),
    ("coreml", ExportOptions()),
    ("torch", ExportOptions()),
    ("web", ExportOptions()),
    ("hub", ExportOptions()),
]
HEADER = (
    "| model | format | MB | proof, graph: probability, score | proof, files | 32 images, graph: probability "
    "| 32 images, files | all images: probability, score | changed answers | correct | times ONNX Runtime |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|"
)
IMAGES, ROUNDS = 32, 9


def measure(folder, about, model, data):
    """The largest differences of graph and files on real images, and how fast the graph is beside ONNX Runtime."""
    target = FORMATS[about.to].load(folder, about)
    try:
        own = About.of(model, "onnx", model.precision, any_size=False, scales=True)
        run = reference(model.graph, own)
        files = [data.read(i) for i in range(IMAGES)]
        pixels = np.stack([prepared(file, model.preprocess) for file in files])
        expected = run(pixels).probabilities
        by_file = np.abs(target.on_files(files).probabilities - expected).max()
        if target.on_pixels is None:
            return ["-", f"{by_file:.1e}", "-"]
        by_graph = np.abs(target.on_pixels(pixels).probabilities - expected).max()
        seconds = ([], [])
        for _ in range(ROUNDS + 1):  # the first does not count
            for answer, times in zip((target.on_pixels, run), seconds, strict=True):
                start = time.perf_counter()
                answer(pixels[:16])
                times.append(time.perf_counter() - start)
        ratio = np.median(seconds[1][1:]) / np.median(seconds[0][1:])
        return [f"{by_graph:.1e}", f"{by_file:.1e}", f"{ratio:.2f}"]
    finally:
        target.close()


def pair(comparisons):
    """The largest differences of some comparisons."""
    if not comparisons:
        return "-"
    return f"{max(c.probability for c in comparisons):.1e}, {max(c.score for c in comparisons):.1e}"


def row(name, to, options, model, data):
    """One line of the table."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "export"
        result = export_model(model, to, folder, options, data=data, force=True)
        *graph, files = result.proof.comparisons
        counts = result.recount
        kind = f"{to}, {result.about.precision}{', any size' if options.any_size else ''}"
        by_graph, by_file, times = measure(folder, result.about, model, data)
        cells = [
            *(name, kind, f"{result.bytes / 1e6:.1f}", pair(graph), pair([files]), by_graph, by_file),
            pair([result.data.comparison]),
            f"{result.data.comparison.changed} of {result.data.comparison.images}",
            f"{counts.correct[0]} -> {counts.correct[1]}{' (refused)' if result.problems else ''}",
            times,
        ]
        return f"| {' | '.join(cells)} |"


def print_skews(model):
    """Plant the ten mistakes of the tests, and print what verify says."""
    import headstart.export.formats as formats

    sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))
    from export.test_skews import FILE_SKEWS, GRAPH_SKEWS

    right = formats.preprocess
    for name in (*GRAPH_SKEWS, *FILE_SKEWS):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "export"
            export_model(model, "onnx", folder)
            if name in GRAPH_SKEWS:
                GRAPH_SKEWS[name][0](folder)
            else:
                formats.preprocess = FILE_SKEWS[name][0]
            result = verify_export(folder)
            formats.preprocess = right
        found = [text for text in result.problems if "is not the file" not in text] or result.proof.remarks
        worst = max(result.proof.comparisons, key=lambda comparison: comparison.score)
        named = found[0].partition("it looks as if ")[2] if found else "nothing"
        size = f"{worst.probability:.2g} | {worst.score:.2g} | {worst.changed} of {worst.images}"
        print(f"| {name} | {'fails' if result.problems else 'passes'} | {size} | {named or found[0]} |", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("models", nargs="+")
    parser.add_argument("--skews", action="store_true")
    parser.add_argument("--to", nargs="+", default=list(FORMATS))
    options = parser.parse_args()
    if options.skews:
        print_skews(read_model(options.models[0]))
        return
    data = labelled_part(open_dataset(options.data))
    print(HEADER)
    for path in options.models:
        for to, export_options in CASES:
            if to in options.to:
                try:
                    print(row(Path(path).name, to, export_options, read_model(path), data), flush=True)
                except HeadstartError as error:
                    print(f"| {Path(path).name} | {to} | {error} |", flush=True)


if __name__ == "__main__":
    main()
