"""Export models to every format and print, as Markdown, what each proof found, and the speed beside ONNX Runtime.

    python benchmarks/exports.py DATA MODEL... [--to FORMAT...] [--skews]

DATA are labelled images with a validation split; each MODEL is a model folder. "32 images" are the first of them: their
prepared pixels given to the graph, then their files. Speeds are images per second of the processor, on one core, to
which the process, and whatever it starts, is bound (Linux): the 32 images, in a runtime that takes more than one at a
time 16 at once, as ONNX Runtime takes them on the model's own graph. Medians of nine rounds of both in turn; the last
column is the median of the rounds' quotients. What a toolchain weighs are the files that it adds to Headstart, without
compiled modules. ``--skews`` plants ten mistakes in an export of the first model instead, and prints what ``verify``
says of each.
"""

import argparse
import hashlib
import os
import re
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

import numpy as np
from dependencies import size

import headstart.export.export as exporting
from headstart.data import open_dataset
from headstart.errors import HeadstartError
from headstart.export import ExportOptions, export_model, to_coreml, to_litert, to_savedmodel, verify_export
from headstart.export.about import About
from headstart.export.graphs import reference
from headstart.export.registry import FORMATS
from headstart.export.skews import prepared
from headstart.export.web_runtime import VERSION, runtime_files
from headstart.model.folder import read_model
from headstart.model.predictor import labelled_part

CASES = [
    ("onnx", ExportOptions()),
    ("openvino", ExportOptions()),
    ("litert", ExportOptions()),
    ("savedmodel", ExportOptions()),
    ("coreml", ExportOptions()),
    ("torch", ExportOptions()),
    ("web", ExportOptions()),
    ("hub", ExportOptions()),
    ("onnx", ExportOptions(any_size=True)),
    ("onnx", ExportOptions("int8")),
    ("openvino", ExportOptions(any_size=True)),
    ("openvino", ExportOptions("fp16")),
    ("openvino", ExportOptions("int8")),
    ("coreml", ExportOptions("fp16")),
]
HEADER = (
    "| format | toolchain: MB installed | model | MB | proof, prepared images | proof, files | 32 images, graph "
    "| 32 images, files | all images: probability, score, OOD score | changed | right | images/s "
    "| ONNX Runtime | times |\n"
    "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|"
)
IMAGES, ROUNDS = 32, 9
CONVERTERS = {
    "litert": (to_litert.TOOLCHAIN, ("onnx2tf", "ai-edge-litert")),
    "savedmodel": (to_savedmodel.TOOLCHAIN, ("onnx2tf", "tensorflow")),
    "coreml": (to_coreml.TOOLCHAIN, ("onnxsim", "coremltools")),
}


def requirements(name, extras=(), known=frozenset()):
    """The names of a package and of what it brings that is installed."""
    try:
        texts = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return known
    known = known | {re.sub(r"[-_.]+", "-", name).lower()}
    for text in texts:
        requirement, _, marker = text.partition(";")
        needed_by = re.findall(r"extra == [\"'](.*?)[\"']", marker)
        other, extra = re.match(r"([\w.-]+)(?:\[(.*?)\])?", requirement).groups()
        if re.sub(r"[-_.]+", "-", other).lower() not in known and (not needed_by or set(needed_by) & set(extras)):
            known = requirements(other, (extra or "").split(","), known)
    return known


def toolchain(to):
    """What a format needs besides Headstart, with its versions and MB."""
    if to in CONVERTERS:
        tools, names = CONVERTERS[to]
        files = [path for path in tools.folder.rglob("*") if path.suffix != ".pyc" and not path.is_symlink()]
        megabytes = sum(path.stat().st_size for path in files if path.is_file()) / 1e6
        return f"{', '.join(f'{name} {tools.version(name)}' for name in names)}: {megabytes:,.0f}"
    if to == "web":
        return f"ONNX Runtime Web {VERSION}: {sum(map(len, runtime_files().values())) / 1e6:.0f}"
    if to in ("openvino", "torch"):
        brought = requirements(to) - requirements("headstart")
        megabytes = sum(size(metadata.distribution(name)) for name in brought) / 1e6
        alone = size(metadata.distribution(to)) / 1e6
        return f"{to} {metadata.version(to)}: {alone:,.0f}{f' of {megabytes:,.0f}' if round(megabytes - alone) else ''}"
    return "none"


def processor_seconds():
    """Seconds of the processor of this process and of those that it started."""
    parents = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[folder.name] = (folder / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
    family, size_before = {str(os.getpid())}, 0
    while len(family) > size_before:
        size_before = len(family)
        family |= {pid for pid, parent in parents.items() if parent in family}
    nanoseconds = 0  # of the others: their threads wait now, so that all of their time is counted
    others = family - {str(os.getpid())}
    for path in (path for pid in others for path in Path("/proc", pid, "task").glob("*/schedstat")):
        try:
            nanoseconds += int(path.read_text().split()[0])
        except OSError:
            continue
    return time.process_time() + nanoseconds / 1e9


def speeds(answer, run, pixels):
    """Images per second of the processor in a runtime and in ONNX Runtime, and the quotient."""
    seconds = ([], [])
    for _ in range(ROUNDS + 1):  # the first does not count
        for function, times in zip((answer, run), seconds, strict=True):
            start = processor_seconds()
            function(pixels)
            times.append(processor_seconds() - start)
    own, onnxruntime = (np.array(times[1:]) for times in seconds)
    rates = (len(pixels) / np.median(times) for times in (own, onnxruntime))
    return [*(f"{rate:.3g}" for rate in rates), f"{np.median(onnxruntime / own):.2f}"]


def measure(folder, about, model, data):
    """The largest differences of graph and files on real images, and how fast the graph is beside ONNX Runtime."""
    target = FORMATS[about.to].load(folder, about)
    try:
        own = About.of(model, "onnx", model.precision, any_size=False, scales=True)
        run = reference(model.graph, own)
        files = [data.read(i) for i in range(IMAGES)]
        pixels = np.stack([prepared(file, model.preprocess) for file in files])
        expected = run(pixels).probabilities
        by_file = f"{np.abs(target.on_files(files).probabilities - expected).max():.1e}"
        if target.on_pixels is None:
            return ["-", by_file], ["-", "-", "-"]
        by_graph = f"{np.abs(target.on_pixels(pixels).probabilities - expected).max():.1e}"
        if FORMATS[about.to].not_proven:  # what answers here is not the runtime that the format is for
            return [by_graph, by_file], ["-", "-", "-"]
        return [by_graph, by_file], speeds(target.on_pixels, run, pixels)
    finally:
        target.close()


def pair(comparisons):
    """The largest differences of some comparisons."""
    if not comparisons:
        return "-"
    return f"{max(c.probability for c in comparisons):.1e}, {max(c.score for c in comparisons):.1e}"


def row(options, to, model, data):
    """The cells of a line of the table, from the size of the export on."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "export"
        result = export_model(model, to, folder, options, data=data, force=True)
        *graph, files = result.proof.comparisons
        found, counts = result.data.comparison, result.recount
        differences, times = measure(folder, result.about, model, data)
        return [
            *(f"{result.bytes / 1e6:.1f}", pair(graph), pair([files]), *differences),
            f"{pair([found])}, {found.distance:.1e}",
            f"{found.changed} of {found.images}",
            f"{counts.correct[0]} -> {counts.correct[1]}{' (refused)' if result.problems else ''}",
            *times,
        ]


def remembering(reference):
    """Return what loads ONNX Runtime as ``reference`` does, and answers the same pixels for every format only once."""
    known = {}

    def load(graph, about):
        run = reference(graph, about)
        which = hashlib.sha256(graph).digest()

        def answer(pixels):
            key = which, about.batch, hashlib.sha256(pixels.tobytes()).digest()
            if key not in known:
                known[key] = run(pixels)
            return known[key]

        return answer

    return load


def print_table(paths, wanted, data):
    """Print the table, format by format."""
    exporting.reference = remembering(reference)
    print(HEADER)
    for to, options in CASES:
        if to not in wanted:
            continue
        precision = {"auto": "fp32"}.get(options.precision, options.precision)
        first = [f"{to}, {precision}{', any size' if options.any_size else ''}", toolchain(to)]
        for path in paths:
            try:
                cells = row(options, to, read_model(path), data)
            except HeadstartError as error:
                cells = [f"not exported: {error}"]
            print(f"| {' | '.join([*first, Path(path).name, *cells])} |", flush=True)
            first = ["", ""]


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
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print_table(options.models, options.to, labelled_part(open_dataset(options.data)))


if __name__ == "__main__":
    main()
