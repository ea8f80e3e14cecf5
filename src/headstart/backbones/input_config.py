"""How a network wants its pictures, from a JSON file beside its graph: our own names, or the Hugging Face hub's.

The hub's ``preprocessor_config.json`` lists steps (resize, crop, rescale, normalise, flip the channels), each with a
``do_`` switch; here they become one ``InputOptions``. timm's ``config.json`` there holds a ``pretrained_cfg`` instead.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import InputOptions
from headstart.errors import BackboneError

MAX_DESCRIPTION = 2**20
WARPED = 384  # ConvNeXt's processor: from this size on it squashes the whole picture


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of at most ``MAX_DESCRIPTION`` bytes. Raises BackboneError."""
    try:
        if path.stat().st_size > MAX_DESCRIPTION:
            raise ValueError("too large")
        values = json.loads(path.read_text("utf-8"))
        if not isinstance(values, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(f"{path} cannot be read as JSON ({error}); mend or remove it.") from None
    return values


def description(path: Path) -> tuple[dict[str, Any], str]:
    """What a JSON file beside the graph says of its input, and that file's name; ({}, "") if there is none."""
    for name in (f"{path.name}.json", f"{path.stem}.json", "preprocessor_config.json"):
        beside = path.with_name(name)
        if not beside.is_file():
            continue
        return read_json(beside), name
    return {}, ""


def described_options(values: Mapping[str, Any]) -> InputOptions:
    """Input options from a JSON description: our own names, or those of Hugging Face's preprocessor_config.json."""
    found: dict[str, Any] = {}
    for ours, names in {"mean": ("mean", "image_mean"), "std": ("std", "image_std")}.items():
        for name in names:
            if name in values:
                number = values[name]
                found[ours] = tuple(float(v) for v in (number if isinstance(number, list) else [number] * 3))
    if values.get("do_normalize") is False:
        found["mean"], found["std"] = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    rescale, shift = values.get("rescale_factor"), 1.0 if values.get("rescale_offset") is True else 0.0
    if values.get("do_rescale") is False or shift or (rescale is not None and abs(float(rescale) * 255 - 1) > 1e-3):
        factor = float(rescale) if rescale is not None and values.get("do_rescale") is not False else 1.0
        # The network's own units are pixel * factor - shift: bring mean and std to pixel / 255.
        mean, std = found.get("mean", (0.0,) * 3), found.get("std", (1.0,) * 3)
        found["mean"] = tuple((m + shift) / (255 * factor) for m in mean)
        found["std"] = tuple(s / (255 * factor) for s in std)
    found |= _shown(values)
    if "resample" in values:
        found["interpolation"] = {2: "bilinear", 3: "bicubic"}.get(values["resample"], "bilinear")
    if values.get("do_flip_channel_order") is True:
        found["channels"] = "BGR"
    for name in ("channels", "crop", "resize", "interpolation"):
        if name in values:
            found[name] = values[name]
    return InputOptions(**found)


def _shown(values: Mapping[str, Any]) -> dict[str, Any]:
    """Which part of a picture the network sees, and at what size."""
    resize = _size(values.get("size"))
    crop = _size(values.get("crop_size")) if values.get("do_center_crop", True) else None
    kind = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    found: dict[str, Any] = {}
    if crop or resize:
        found["size"] = crop or resize
    if crop and resize:
        found["crop"] = min(1.0, min(crop) / min(resize))
    elif values.get("crop_pct") and not (kind.startswith("ConvNext") and resize and min(resize) >= WARPED):
        found["crop"] = float(values["crop_pct"])
        return found
    elif resize:
        found["crop"] = 1.0
    squashed = isinstance(values.get("size"), dict) and "height" in values["size"]
    if resize and (squashed or (kind.startswith("ConvNext") and min(resize) >= WARPED)):
        found["resize"] = "squash"
    return found


def hub_description(processor: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """What a hub repository says of its pictures, and in which file: its processor's settings, else timm's
    ``pretrained_cfg`` in its configuration, else the configuration's ``image_size``."""
    own = config.get("pretrained_cfg")
    if not processor and isinstance(own, dict):
        size = own.get("input_size")
        found = {k: own[k] for k in ("mean", "std", "crop_pct") if k in own}
        if isinstance(size, list) and len(size) == 3:
            found["size"] = size[1:]
        if own.get("crop_mode") == "squash":
            found["resize"] = "squash"
        return found | {"resample": 3 if own.get("interpolation") == "bicubic" else 2}, "config.json"
    size = config.get("image_size")
    if "size" not in processor and "crop_size" not in processor and _size(size):
        return {**processor, "size": size}, "preprocessor_config.json" if processor else "config.json"
    return dict(processor), "preprocessor_config.json"


def _size(value: object) -> tuple[int, int] | None:
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
