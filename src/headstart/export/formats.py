"""The formats, and what an export is once it is loaded in its own runtime."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError, one_line
from headstart.export.about import About
from headstart.export.answers import Answers
from headstart.images.snippet import SNIPPET_FILE, preprocess_source
from headstart.images.standalone import preprocess, to_rgb
from headstart.model.model import Model

Pixels = NDArray[np.uint8]
Run = Callable[[Pixels], Answers]


@dataclass(frozen=True)
class Target:
    """An export, loaded in its own runtime.

    ``on_pixels`` answers prepared images [n, height, width, 3] (None: it takes images of any size), ``on_files`` the
    bytes of image files, prepared as this target prepares them. ``problems`` are what is wrong with the files of the
    export that no image shows. ``close`` ends it.
    """

    runtime: str
    version: str
    on_pixels: Run | None
    on_files: Callable[[Sequence[bytes]], Answers]
    problems: tuple[str, ...] = ()
    close: Callable[[], None] = lambda: None


@dataclass(frozen=True)
class ExportOptions:
    """How a model is exported.

    ``precision`` is "auto" (that of the model), "fp32", "fp16" or "int8"; ``any_size``: with crop and resize inside;
    ``runtime_folder``: where the files of a runtime lie that goes with the export; ``install``: a converter that is
    missing may be installed.
    """

    precision: str = "auto"
    any_size: bool = False
    runtime_folder: Path | None = None
    install: bool = True


@dataclass(frozen=True)
class Format:
    """A format to export to.

    ``write(graph, about, model, options, folder)`` writes its files, of the ONNX graph that is exported; ``load(folder,
    about)`` loads them in the format's own runtime, or raises MissingExtraError. ``scales``: images are prepared by
    ``preprocess.py``, bit by bit as Headstart does it; else files are decoded in full, by another decoder or resize.
    ``use`` is the text of its README. ``mend`` says what to install where the runtime is missing. ``cannot_read`` are
    the endings of image files that the runtime is known not to read. Without ``refuses_files`` a difference on files
    is a remark, since the format prepares images in another way by its nature. ``language`` is that of ``use``;
    ``one_image``: it answers one image at a time; ``only_forced`` are precisions that are written with ``force`` alone,
    since here they are not computed as on the device, ``why_fp32`` says why there are none of fewer bits, and
    ``why_one_label`` why there are no several labels an image; ``input`` describes what it takes, ``front_matter``
    comes before the README.
    """

    name: str
    precisions: tuple[str, ...]
    takes_any_size: bool
    scales: bool
    write: Callable[[bytes, About, Model, ExportOptions, Path], None]
    load: Callable[[Path, About], Target]
    use: Callable[[About], str]
    mend: str
    not_proven: tuple[tuple[str, str], ...] = ()
    cannot_read: tuple[str, ...] = ()
    refuses_files: bool = True
    one_image: bool = False
    only_forced: tuple[str, ...] = ()
    why_fp32: str = ""
    why_one_label: str = ""
    language: str = "text"
    input: Callable[[About], str] | None = None
    front_matter: Callable[[About, Model], str] | None = None


def check_options(format: Format, model: Model, options: ExportOptions) -> str:
    """Return the precision of an export. Raises OptionError for what the format, or the model, does not allow."""
    if model.is_multi_label and format.why_one_label:
        raise OptionError(f"--to {format.name} is for models of one class an image: {format.why_one_label}.")
    precision = model.precision if options.precision == "auto" else options.precision
    if precision not in format.precisions:
        why = f" ({format.why_fp32})" if format.why_fp32 else ""
        raise OptionError(f"--to {format.name} has no {precision}{why}; choose {' or '.join(format.precisions)}.")
    if model.precision == "int8" and precision != "int8":
        raise OptionError(f"This model is int8 already; leave --precision {precision} out, or fit it in fp32.")
    if options.any_size and not format.takes_any_size:
        raise OptionError(f"--to {format.name} has no --any-size; leave it out.")
    if (options.any_size or format.one_image) and model.batch not in (None, 1):
        one = "--any-size" if options.any_size else f"--to {format.name}"
        raise OptionError(f"This model takes batches of {model.batch} images only; {one} takes one image.")
    return precision


# A program of a README names the labels that hold of ``probabilities``, by the files beside it.
LABEL_LINES = (
    'labels = open("labels.txt", encoding="utf-8").read().splitlines()',
    'thresholds = [float(line) for line in open("thresholds.txt")]',
    "for label, p, threshold in zip(labels, probabilities, thresholds):",
    '    print(label, p, "holds" if p >= threshold else "")',
)
# The same, by the texts that the model carries.
ABOUT_LINES = (
    'for label, p, threshold in zip(about["classes"], probabilities, about["label_thresholds"]["thresholds"]):',
    LABEL_LINES[-1],
)


def result_lines(about: About) -> list[str]:
    """Return the lines by which a program prints ``probabilities`` and ``distance``, by the files beside it."""
    if about.is_multi_label:
        return [*LABEL_LINES, "print(distance)"]
    best = "probabilities.argmax()" if about.rule is None else 'int(result["decision"][0])'
    return [LABEL_LINES[0], f"best = {best}", "print(labels[best], probabilities[best], distance)"]


def batch_lines(about: About) -> list[str]:
    """Return the lines by which a program prints ``probabilities`` and ``distance`` of a batch, by ``about``."""
    if about.is_multi_label:
        return ["probabilities, distance = probabilities[0], distance[0]", *ABOUT_LINES, "print(distance)"]
    best = "probabilities[0].argmax()" if about.rule is None else "decision[0]"
    return [f"best = {best}", 'print(about["classes"][best], probabilities[0][best], distance[0])']


def output_names(about: About) -> tuple[str, ...]:
    """Return the outputs of a graph that a program reads."""
    return ("probabilities", "distance") + (() if about.rule is None else ("decision",))


def write_snippet(about: About, folder: Path) -> None:
    """Write ``preprocess.py`` with the numbers of an export."""
    (folder / SNIPPET_FILE).write_text(preprocess_source(about.preprocess), "utf-8")


def prepare_lines(about: About) -> tuple[str, str]:
    """Return the import and the line by which a program of a README prepares the pixels."""
    if about.any_size:
        return "from preprocess import to_rgb", (
            'pixels = numpy.asarray(to_rgb("new.jpg"))[numpy.newaxis]  # of any size'
        )
    pixels = 'preprocess("new.jpg")[numpy.newaxis]'
    if about.batch is not None and about.batch > 1:
        pixels = f'numpy.stack([preprocess("new.jpg")] * {about.batch})  # the network takes so many, no fewer'
    return "from preprocess import preprocess", f"pixels = {pixels}"


def snippet_target(
    folder: Path, about: About, runtime: str, version: str, run: Run, close: Callable[[], None] = lambda: None
) -> Target:
    """Return a target whose images are prepared by the shipped ``preprocess.py``.

    The file is not executed, since whoever gives an export away could write anything into it: it must be, letter by
    letter, what Headstart writes, and that is run.
    """
    path = folder / SNIPPET_FILE
    is_ours = path.is_file() and path.read_text("utf-8", "replace") == preprocess_source(about.preprocess)
    problem = f"{SNIPPET_FILE} is not the one that Headstart writes for this model; it was not run"

    def on_files(files: Sequence[bytes]) -> Answers:
        rows, reasons = [], {}
        for i, data in enumerate(files):
            try:
                rows.append(run(_prepare(data, about)[np.newaxis]))
            except Exception as error:  # for malformed bytes decoders raise anything
                reasons[i] = one_line(error)
                rows.append(Answers(np.full((1, len(about.classes)), np.nan), np.full(1, np.nan)))
        probabilities = np.concatenate([row.probabilities for row in rows])
        return Answers(probabilities, np.concatenate([row.ood_scores for row in rows]), reasons)

    return Target(runtime, version, None if about.any_size else run, on_files, () if is_ours else (problem,), close)


def _prepare(data: bytes, about: About) -> Pixels:
    if about.any_size:
        return np.asarray(to_rgb(io.BytesIO(data), sample_range=about.preprocess.sample_range))
    return preprocess(io.BytesIO(data), **about.preprocess.to_dict())
