"""Export a model: write the files, prove them in their own runtime, and record the proof beside them."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart import __version__
from headstart.data import Dataset
from headstart.errors import ImageError, MissingExtraError, ModelError, OptionError, VerifyError, one_line
from headstart.export.about import FORMAT, LABEL_FORMAT, LIBRARY, PARITY, About, check_output_folder, hash_files
from headstart.export.answers import Answers
from headstart.export.formats import ExportOptions, Format, Run, Target, check_options
from headstart.export.graphs import graph_to_export, reference
from headstart.export.proof import DataProof, Proof, prove, prove_on_data
from headstart.export.proof_set import make_proof_set, write_proof_set
from headstart.export.readme import readme
from headstart.export.recount import Recount, recorded_data, recount
from headstart.export.registry import FORMATS
from headstart.export.skews import prepared
from headstart.files import encode, replace_folder, to_json
from headstart.images.preprocess import Preprocess
from headstart.machine import processor
from headstart.model.model import Model

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Export:
    """A finished export: its folder, what it is, and its proof.

    ``data`` and ``recount`` are None where there were no images; ``notes`` are lines that the user must see. ``proof``
    is None where the format's runtime is not here: then ``not_proven`` says so. ``problems`` are what was found wrong
    and written all the same, with ``force``.
    """

    folder: Path
    about: About
    bytes: int
    proof: Proof | None
    data: DataProof | None
    recount: Recount | None
    not_proven: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    problems: tuple[str, ...]
    parity: Mapping[str, Any]


def find_format(name: str) -> Format:
    """Return the format of this name. Raises OptionError."""
    if name not in FORMATS:
        raise OptionError(f"Unknown format {name!r}; choose one of {', '.join(FORMATS)}.")
    return FORMATS[name]


def export_model(
    model: Model,
    to: str,
    output: Path,
    options: ExportOptions | None = None,
    *,
    data: Dataset | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> Export:
    """Export a model to the folder ``output``, which appears whole or not at all, and prove it.

    ``data`` are images to prove it on besides; by default the validation images of the data that the model was fitted
    to, where those are still there. Raises OptionError, MissingExtraError; VerifyError where the export does not answer
    as the model does, or has fewer bits and there are no labelled images to count them on, unless ``force``.
    """
    if data is not None and not model.is_multi_label:
        data.require_one_label("the proof of an export of one class an image")
    options = options or ExportOptions()
    format = find_format(to)
    precision = check_options(format, model, options)
    if precision in format.only_forced and not force:
        why = _not_proven_arithmetic(precision)
        raise VerifyError(f"--to {format.name} --precision {precision} is written with --force alone: {why}.")
    about = About.of(model, to, precision, any_size=options.any_size, scales=format.scales and not options.any_size)
    target_folder, notes = check_output_folder(output), []
    if data is None:
        data, why = recorded_data(model)
        if data is None:
            notes.append(f"Not proven on images of your own, since {why}; give --data DATA.")
    graph = graph_to_export(model, precision)
    finished: list[Export] = []

    def fill(folder: Path) -> None:
        format.write(graph, about, model, options, folder)
        images = _Images(data, progress, force)
        finished.append(_prove_and_record(folder, format, about, model, graph, images, notes))

    try:
        replace_folder(target_folder, fill)
    except OSError as error:
        raise ModelError(f"Cannot write the export to {output}: {error.strerror or error}.") from None
    return replace(finished[0], folder=output)


@dataclass(frozen=True)
class _Images:
    data: Dataset | None
    progress: Progress | None
    force: bool


def _prove_and_record(
    folder: Path, format: Format, about: About, model: Model, graph: bytes, images: _Images, notes: list[str]
) -> Export:
    """Prove what was written to ``folder``, and write the proof beside it. Raises VerifyError."""
    run = reference(graph, about)
    proof_set = make_proof_set(run, about)
    write_proof_set(proof_set, folder)
    (folder / "README.md").write_bytes(encode(_front(format, about, model) + readme(format, about, model)))
    proof = data = counted = None
    not_proven = list(format.not_proven)
    target: Target | None = None
    try:
        target = format.load(folder, about)
    except MissingExtraError as error:
        not_proven.append((one_line(error), f"{format.mend}, then: headstart verify EXPORT"))
    if target is not None:
        golden = model.golden if about.precision != "int8" or model.precision == "int8" else None
        try:
            proof = prove(target, about, proof_set, format, golden)
            if images.data is not None:
                data = _prove_on_data(target, about, model, images)
                counted = recount(model, images.data, data)
        finally:
            target.close()
    problems = [*(() if proof is None else proof.problems), *_lossy_problems(about, model, data, counted)]
    if about.precision in format.only_forced:
        problems.append(_not_proven_arithmetic(about.precision))
    if problems and not images.force:
        raise VerifyError(
            f"The {format.name} export does not answer as the model does, and was not written: {'; '.join(problems)}. "
            "With --force it is written all the same."
        )
    if data is not None and data.decoding is not None and data.decoding.changed:
        notes.append(
            f"This format decodes JPEG files in full, the model was fitted to scaled ones: that alone changes "
            f"{data.decoding.changed} of {data.decoding.images} answers; to avoid it fit with --decode full."
        )
    parity = {
        "library_name": LIBRARY,
        "format": LABEL_FORMAT if about.is_multi_label else FORMAT,
        "version": __version__,
        "about": about.to_dict(),
        "model": {"sha256": model.sha256, "backbone": dict(model.backbone)},
        "files": hash_files(folder),
        "machine": {"system": platform.platform(), "processor": processor()[0], "python": platform.python_version()},
        "runtime": None if target is None else {"name": target.runtime, "version": target.version},
        "reference": "onnxruntime",
        "proof": None if proof is None else proof.to_dict(),
        "data": None if data is None else _public(data),
        "recount": None if counted is None else counted.to_dict(),
        "not_proven": [{"what": what, "command": command} for what, command in not_proven],
        "problems": problems,
    }
    (folder / PARITY).write_bytes(to_json(parity, indent=1))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file() and path.parent.name != "proof")
    return Export(folder, about, size, proof, data, counted, tuple(not_proven), tuple(notes), tuple(problems), parity)


def _not_proven_arithmetic(precision: str) -> str:
    return f"its {precision} arithmetic is that of the device, which nothing here proves"


def _front(format: Format, about: About, model: Model) -> str:
    return "" if format.front_matter is None else format.front_matter(about, model)


def _public(data: DataProof) -> dict[str, object]:
    """Return the JSON form of a proof on data without paths: an export is given away."""
    values = data.to_dict()
    decoding = values["decoding"]
    if isinstance(decoding, dict):
        decoding = {name: value for name, value in decoding.items() if name not in ("worst", "unread")}
    return {name: value for name, value in values.items() if name not in ("uri", "worst")} | {"decoding": decoding}


def _prove_on_data(target: Target, about: About, model: Model, images: _Images) -> DataProof:
    assert images.data is not None
    own = About.of(model, "onnx", model.precision, any_size=False, scales=True)
    run = reference(model.graph, own)
    in_full = None
    if about.preprocess.decode != model.preprocess.decode:
        in_full = _answers_of_files(run, about.preprocess, len(about.classes))
    return prove_on_data(
        target,
        about,
        images.data,
        _answers_of_files(run, model.preprocess, len(about.classes)),
        in_full,
        images.progress,
    )


def _answers_of_files(run: Run, preprocess: Preprocess, classes: int) -> Callable[[Sequence[bytes]], Answers]:
    """Return what answers image files as ``predict`` does, with this preprocessing."""

    def answers(files: Sequence[bytes]) -> Answers:
        try:
            return run(np.stack([prepared(data, preprocess) for data in files]))
        except ImageError as error:
            empty = np.full((len(files), classes), np.nan), np.full(len(files), np.nan)
            return Answers(*empty, {i: str(error) for i in range(len(files))})

    return answers


def _lossy_problems(about: About, model: Model, data: DataProof | None, counted: Recount | None) -> list[str]:
    """Return what speaks against an export with fewer bits than the model."""
    if about.precision == model.precision:
        return []
    if data is None or counted is None:
        return [
            f"what {about.precision} costs was not counted, for want of labelled images; give --data DATA, images that "
            "had no part in training"
        ]
    return counted.problems
