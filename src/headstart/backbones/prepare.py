"""From a foreign graph to a backbone in the store.

A backbone that is stored already is loaded without ONNX, so ``onnx`` and the modules that need it are imported where
they are used.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones import store
from headstart.backbones.backbone import InputOptions
from headstart.backbones.input_config import merge_options, parse_config, scaling_of
from headstart.backbones.scaling import Assumption
from headstart.backbones.steps import tap_to_dict, taps_with_steps
from headstart.errors import BackboneError, OptionError, untrusted
from headstart.images.preprocess import Preprocess

if TYPE_CHECKING:
    import onnx

    from headstart.backbones.onnx.standardise import ImageInput

VERSION = 5  # of the preparation: another version makes another entry in the store
DEFAULT_SIZE = 224  # pixels, where neither the graph nor anybody names a size
RESAMPLINGS = (2, 3)  # Pillow's bilinear and bicubic


@dataclass(frozen=True)
class GraphFile:
    """An ONNX file: its path, its content, the JSON that describes its input, and the name of the file of that."""

    path: Path
    content: bytes
    config: Mapping[str, Any]
    config_name: str


def prepare_file(
    file: GraphFile, options: InputOptions, taps: Sequence[str], folder: Path, record: Mapping[str, str]
) -> None:
    """Prepare an ONNX file as ``options`` and its configuration say, and write it to ``folder`` of the store.

    ``taps`` are tensors to tap besides those found. ``record`` is written into the description: the source, and name,
    id and licence where they are not the file's own. Raises BackboneError, OptionError.
    """
    from headstart.backbones.onnx.external_data import load_with_weights
    from headstart.backbones.onnx.norms import find_norms
    from headstart.backbones.onnx.standardise import image_input

    model = load_with_weights(file.content, file.path)
    try:
        described = parse_config(file.config)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise BackboneError(f"{file.config_name} beside {file.path.name} cannot be used: {error}.") from None
    complete, notes, assumed = _complete_options(file, options, described, image_input(model))
    assumption = None
    if assumed:
        with untrusted("The graph", BackboneError):
            assumption = Assumption(assumed, scaling_of(complete), find_norms(model))
    licences = (p.value for p in model.metadata_props if p.key.lower() in ("license", "licence"))
    description = {"id": f"onnx:{file.path.name}", "licence": next(licences, "unknown"), "notes": notes, **record}
    prepare_graph(model, complete, taps, folder, description, assumption=assumption)


def prepare_graph(
    model: onnx.ModelProto,
    options: InputOptions,
    taps: Sequence[str],
    folder: Path,
    description: Mapping[str, Any],
    known_taps: Mapping[str, str] | None = None,
    assumption: Assumption | None = None,
) -> None:
    """Bring a graph, in place, into standard form, and write it to ``folder`` of the store with its description.

    ``options`` must have a mean, a deviation and a size. ``taps`` are tensors to tap besides those found, or besides
    the ``known_taps`` (tensor by tap name) of an exporter. ``description`` has id, licence, source and notes, of which
    the ``assumption`` of the scaling is one. Raises BackboneError when the graph cannot be cut or run, OptionError for
    a geometry that cannot be used.
    """
    from headstart.backbones.onnx.runnable import allowed_batch
    from headstart.backbones.onnx.standardise import Normalisation, image_input, standardise

    assert options.mean is not None
    assert options.std is not None
    assert options.size is not None
    geometry = {"height": options.size[0], "width": options.size[1]}
    named = {name: getattr(options, name) for name in ("resize", "crop", "interpolation")}
    preprocess = Preprocess.from_dict(geometry | {name: value for name, value in named.items() if value is not None})
    normalisation = Normalisation(options.mean, options.std, options.channels == "BGR")
    size = (preprocess.height, preprocess.width)
    with untrusted("The graph", BackboneError):
        declared_batch = image_input(model).batch
        standard_taps = standardise(model, normalisation, size, taps, known_taps)
    graph = model.SerializeToString()
    batch = allowed_batch(graph, size, declared_batch)
    prepared = {
        "format": 1,
        "sha256": hashlib.sha256(graph).hexdigest(),
        "preprocess": preprocess.to_dict(),
        "taps": [tap_to_dict(tap) for tap in taps_with_steps(graph, preprocess, standard_taps, batch)],
        "batch": batch,
    }
    if assumption is not None:
        prepared["assumption"] = assumption.to_dict()
    store.write(folder, graph, {**description, **prepared}, None if assumption is None else assumption.norms)


def _complete_options(
    file: GraphFile, options: InputOptions, described: InputOptions, image: ImageInput
) -> tuple[InputOptions, list[str], str]:
    """Input options with a mean, a deviation and a size; notes about what was assumed; the one about the scaling or "".

    Raises OptionError and BackboneError for options that the graph does not allow.
    """
    from onnx import TensorProto

    name = file.path.name
    complete = merge_options(options, described)
    notes, assumed = [], ""
    if file.config.get("resample", 2) not in RESAMPLINGS:
        notes.append(
            f"{file.config_name} asks for Pillow's resampling {file.config['resample']}: bilinear is used, the nearest "
            "that Headstart has."
        )
    scales_itself = image.dtype == TensorProto.UINT8
    if scales_itself and (options.mean or options.std):
        raise OptionError(f"{name} takes uint8 images and scales them itself; leave --mean and --std out.")
    if complete.mean is None or complete.std is None:
        complete = replace(complete, mean=complete.mean or (0.5,) * 3, std=complete.std or (0.5,) * 3)
        if not scales_itself:
            assumed = (
                f"{name} does not say how its input is scaled: assumed -1 to 1 (mean 0.5, std 0.5); "
                "if that is wrong give --mean and --std."
            )
            notes.append(assumed)
    size = complete.size or (image.height or DEFAULT_SIZE, image.width or DEFAULT_SIZE)
    if not (image.height and image.width) and complete.size is None:
        notes.append(f"{name} takes any size: assumed {DEFAULT_SIZE} x {DEFAULT_SIZE}; give --input-size for another.")
    if (image.height or size[0], image.width or size[1]) != size:
        raise BackboneError(f"{name} only takes {image.height} x {image.width}; leave --input-size out.")
    return replace(complete, size=size), notes, assumed
