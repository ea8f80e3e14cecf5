"""Export models to every format and print, as Markdown, what each proof found, and the speed beside ONNX Runtime.

    python benchmarks/exports.py DATA MODEL...

DATA are labelled images with a validation split; each MODEL is a model folder. The speed is that of the runtime on one
thread, batches of 16, as a multiple of ONNX Runtime on the same graph in fp32: five rounds of both in turn, in seconds
of the processor, so that other work on the machine counts little. ``--skews`` plants ten mistakes in an export of the
first model instead, and prints what ``verify`` says of each.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from headstart.data import open_dataset
from headstart.export import ExportOptions, export_model, verify_export
from headstart.export.about import About
from headstart.export.graphs import reference
from headstart.export.registry import FORMATS
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
    ("web", ExportOptions()),
    ("hub", ExportOptions()),
]
HEADER = (
    "| model | format | MB | graph: probability, score | files: probability, score | data: probability, score "
    "| changed answers | correct | times ONNX Runtime |\n|---|---|---|---|---|---|---|---|---|"
)


def speed(folder, about, model):
    """How many times as fast as ONNX Runtime the export answers prepared images."""
    target = FORMATS[about.to].load(folder, about)
    try:
        if target.on_pixels is None or about.to == "web":
            return "-"
        own = About.of(model, "onnx", model.precision, any_size=False, scales=True)
        runs = (target.on_pixels, reference(model.graph, own))
        size = (16, about.preprocess.height, about.preprocess.width, 3)
        pixels = np.random.default_rng(0).integers(0, 256, size, np.uint8)
        seconds = ([], [])
        for _ in range(6):
            for run, times in zip(runs, seconds, strict=True):
                start = time.process_time()
                run(pixels)
                times.append(time.process_time() - start)
        return f"{np.median(seconds[1][1:]) / np.median(seconds[0][1:]):.2f}"
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
        cells = [
            *(name, kind, f"{result.bytes / 1e6:.1f}", pair(graph), pair([files]), pair([result.data.comparison])),
            f"{result.data.comparison.changed} of {result.data.comparison.images}",
            f"{counts.correct[0]} -> {counts.correct[1]}{' (refused)' if result.problems else ''}",
            speed(folder, result.about, model),
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
    options = parser.parse_args()
    if options.skews:
        print_skews(read_model(options.models[0]))
        return
    data = labelled_part(open_dataset(options.data))
    print(HEADER)
    for path in options.models:
        for to, export_options in CASES:
            print(row(Path(path).name, to, export_options, read_model(path), data), flush=True)


if __name__ == "__main__":
    main()
