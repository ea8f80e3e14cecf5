"""Input options from a JSON file beside a graph, in our own names or those of the Hugging Face Hub.

The hub's ``preprocessor_config.json`` lists steps (resize, crop, rescale, normalise, flip the channels), each with a
``do_`` switch. timm's ``config.json`` there holds a ``pretrained_cfg`` instead. Both become an ``InputOptions``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import InputOptions
from headstart.backbones.scaling import Scaling
from headstart.errors import BackboneError
from headstart.files import read_json

MAX_CONFIG_BYTES = 2**20
CONVNEXT_SQUASH_SIZE = 384  # from this size on, ConvNeXt's image processor squashes the image instead of cropping it


def read_config(path: Path) -> dict[str, Any]:
    """Read the object in a JSON file of at most ``MAX_CONFIG_BYTES``. Raises BackboneError."""
    try:
        return read_json(path, MAX_CONFIG_BYTES)
    except (OSError, ValueError) as error:
        raise BackboneError(f"{path} cannot be read as JSON ({error}); mend or remove it.") from None


def config_beside(graph: Path) -> tuple[dict[str, Any], str]:
    """Read the JSON file that describes the input of the graph beside it, and return it with the name of that file.

    Returns ({}, "") if there is none. Raises BackboneError if it cannot be read.
    """
    for name in (f"{graph.name}.json", f"{graph.stem}.json", "preprocessor_config.json"):
        path = graph.with_name(name)
        if path.is_file():
            return read_config(path), name
    return {}, ""


def merge_options(options: InputOptions, described: InputOptions) -> InputOptions:
    """``options`` where they are given, else those of the network's description; ``weights`` are left out."""
    values = {
        key: value if value is not None else getattr(described, key)
        for key, value in asdict(options).items()
        if key != "weights"
    }
    return InputOptions(**values)


def scaling_of(options: InputOptions) -> Scaling:
    """Return the scaling in options that have a mean and a deviation."""
    assert options.mean is not None
    assert options.std is not None
    return Scaling(options.mean, options.std, options.channels or "RGB")


def parse_config(config: Mapping[str, Any]) -> InputOptions:
    """Input options from JSON in our own names, or in those of the Hugging Face Hub's ``preprocessor_config.json``.

    Raises OptionError, TypeError, ValueError and ArithmeticError for values that cannot be used.
    """
    options: dict[str, Any] = {}
    for name, keys in {"mean": ("mean", "image_mean"), "std": ("std", "image_std")}.items():
        for key in keys:
            if key in config:
                value = config[key]
                options[name] = tuple(float(v) for v in (value if isinstance(value, list) else [value] * 3))
    if config.get("do_normalize") is False:
        options["mean"] = (0.0, 0.0, 0.0)
        options["std"] = (1.0, 1.0, 1.0)
    options |= _rescaled(config, options)
    options |= _geometry(config)
    if "resample" in config:
        options["interpolation"] = {2: "bilinear", 3: "bicubic"}.get(config["resample"], "bilinear")
    if config.get("do_flip_channel_order") is True:
        options["channels"] = "BGR"
    for name in ("channels", "crop", "resize", "interpolation"):
        if name in config:
            options[name] = config[name]
    return InputOptions(**options)


def _rescaled(config: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """``mean`` and ``std`` of RGB in 0..1, where the network's own scale is another one; else nothing."""
    rescale = config.get("rescale_factor")
    has_rescale = config.get("do_rescale") is not False
    offset = 1.0 if config.get("rescale_offset") is True else 0.0
    if has_rescale and not offset and not (rescale is not None and abs(float(rescale) * 255 - 1) > 1e-3):
        return {}
    factor = float(rescale) if rescale is not None and has_rescale else 1.0
    # The network's own units are pixel * factor - offset; ours are pixel / 255.
    return {
        "mean": tuple((m + offset) / (255 * factor) for m in options.get("mean", (0.0,) * 3)),
        "std": tuple(s / (255 * factor) for s in options.get("std", (1.0,) * 3)),
    }


def _geometry(config: Mapping[str, Any]) -> dict[str, Any]:
    """``size``, ``crop`` and ``resize``: which part of an image the network gets, at what size."""
    resize = _size(config.get("size"))
    crop = _size(config.get("crop_size")) if config.get("do_center_crop", True) else None
    processor = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    squashes_convnext = processor.startswith("ConvNext") and resize is not None and min(resize) >= CONVNEXT_SQUASH_SIZE
    options: dict[str, Any] = {}
    if crop or resize:
        options["size"] = crop or resize
    if crop and resize:
        options["crop"] = min(1.0, min(crop) / min(resize))
    elif config.get("crop_pct") and not squashes_convnext:
        options["crop"] = float(config["crop_pct"])
        return options
    elif resize:
        options["crop"] = 1.0
    has_both_sides = isinstance(config.get("size"), dict) and "height" in config["size"]
    if resize and (has_both_sides or squashes_convnext):
        options["resize"] = "squash"
    return options


def hub_config(processor: Mapping[str, Any], network: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Merge what a hub repository says about its input into one configuration; return it with the file it is from.

    ``processor`` is its ``preprocessor_config.json`` and ``network`` its ``config.json``, {} where it has none. The
    former is used if there is one, else timm's ``pretrained_cfg`` in the latter; the input size may also be the
    latter's ``image_size``.
    """
    pretrained = network.get("pretrained_cfg")
    if not processor and isinstance(pretrained, dict):
        config = {key: pretrained[key] for key in ("mean", "std", "crop_pct") if key in pretrained}
        size = pretrained.get("input_size")
        if isinstance(size, list) and len(size) == 3:
            config["size"] = size[1:]
        if pretrained.get("crop_mode") == "squash":
            config["resize"] = "squash"
        config["resample"] = 3 if pretrained.get("interpolation") == "bicubic" else 2
        return config, "config.json"
    size = network.get("image_size")
    if "size" not in processor and "crop_size" not in processor and _size(size):
        return {**processor, "size": size}, "preprocessor_config.json" if processor else "config.json"
    return dict(processor), "preprocessor_config.json"


def _size(value: object) -> tuple[int, int] | None:
    """(height, width) from a number, a list of two, or an object with ``shortest_edge`` or ``height`` and ``width``."""
    if isinstance(value, int):
        return (value, value)
    if isinstance(value, list) and len(value) == 2:
        return (int(value[0]), int(value[1]))
    if isinstance(value, dict):
        if "shortest_edge" in value:
            return (int(value["shortest_edge"]),) * 2
        if "height" in value and "width" in value:
            return (int(value["height"]), int(value["width"]))
    return None
