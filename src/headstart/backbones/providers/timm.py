"""``timm:NAME``: any image model of PyTorch Image Models (Wightman 2019), exported once."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import MAX_FILE_BYTES, Backbone, InputOptions
from headstart.backbones.input_config import merge_options
from headstart.backbones.providers.framework import (
    OnnxExport,
    Request,
    TorchModel,
    assumed_scaling,
    file_sha256,
    load_exported,
    reject_arguments,
    weights_source,
)
from headstart.errors import BackboneError, OptionError, missing_extra, one_line

RESERVED = {
    "pretrained",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "checkpoint_path",
    "cache_dir",
    "features_only",
    "in_chans",
    "scriptable",
    "exportable",
    "no_jit",
}
STATE_DICT_KEYS = ("state_dict_ema", "model_ema", "state_dict", "model")  # under which checkpoints hold a state dict
WRAPPER_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile
SHA256 = re.compile(r"[0-9a-f]{64}")
EXPECTED_FILE = "expected .safetensors, or a state dict saved by torch.save"


def load_timm(rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """Load the backbone ``timm:REST``. Raises BackboneError, OptionError, MissingExtraError."""
    return load_exported("timm", rest, options, taps, _export)


def _export(request: Request) -> OnnxExport:
    return open_timm(request).export()


def open_timm(request: Request) -> TorchModel:
    """Build the network as a torch module. Raises BackboneError, OptionError, MissingExtraError."""
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError:
        raise missing_extra("timm is not installed", "timm") from None
    reject_arguments("timm", request, RESERVED)
    network = _build(timm, request)
    if request.weights is not None:
        _load_weights(network, request, request.weights)
    data = resolve_data_config({}, pretrained_cfg=network.pretrained_cfg, model=network)
    options = merge_options(request.options, _described_options(data))
    assert options.size is not None
    if hasattr(network, "set_input_size") and options.size != tuple(data["input_size"][1:]):
        _set_input_size(network, request.name, options.size)
    names, module = _with_taps(network, options.size)
    for layer in request.layers:
        if layer not in names:
            raise BackboneError(f"Unknown cut {layer!r}; timm:{request.name} has {', '.join(names)}.")
    licence, source = _provenance(timm.__version__, network.pretrained_cfg, request.weights)
    notes = []
    if data["crop_mode"] == "border":
        notes.append(f"{request.name} expects a border around its images: they are cropped instead.")
    assumed = assumed_scaling(request, options, f"timm's {request.name}")
    return TorchModel(
        module,
        tuple(names),
        (3, *options.size),
        options,
        licence,
        source,
        tuple(notes),
        assumed=assumed,
        padding_is_open=bool(assumed) and _padding_is_open(timm, network, request),
    )


def _padding_is_open(timm: Any, network: Any, request: Request) -> bool:
    """Whether the architecture comes with both paddings, PyTorch's and TensorFlow's, and the id names neither."""
    if "pad_type" in request.arguments:
        return False
    try:
        padded = timm.create_model(request.name, pretrained=False, pad_type="same", **request.arguments)
    except Exception:  # it has no such argument
        return False
    return any(_pads_as_tensorflow(m) for m in padded.modules()) and not any(
        map(_pads_as_tensorflow, network.modules())
    )


def _pads_as_tensorflow(module: Any) -> bool:
    return type(module).__name__ == "Conv2dSame"


def _described_options(data: Mapping[str, Any]) -> InputOptions:
    """Input options from timm's data configuration."""
    return InputOptions(
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
        channels="RGB",
        size=tuple(data["input_size"][1:]),
        crop=min(1.0, float(data["crop_pct"])),
        resize="squash" if data["crop_mode"] == "squash" else "shortest",
        interpolation="bicubic" if data["interpolation"] == "bicubic" else "bilinear",
    )


def _set_input_size(network: Any, name: str, size: tuple[int, int]) -> None:
    try:
        network.set_input_size(img_size=size)
    except Exception as error:  # assertions and errors of all kinds
        raise BackboneError(f"timm:{name} cannot take {size[0]} x {size[1]}: {one_line(error)}") from None


def _provenance(version: str, settings: Mapping[str, Any], weights: Path | None) -> tuple[str, str]:
    """Licence and source of a network's weights; ``settings`` are its ``pretrained_cfg``."""
    if weights is not None:
        return "unknown", f"timm {version}, {weights_source(weights)}"
    published = settings.get("hf_hub_id") or settings.get("url") or "unknown"
    origin = f", from {settings['origin_url']}" if settings.get("origin_url") else ""
    return str(settings.get("license") or "unknown"), f"timm {version}, {published}{origin}"


def _build(timm: Any, request: Request) -> Any:
    """Build a network, with the published weights unless the request has a file of them."""
    name = request.name
    if not timm.is_model(name):
        near = get_close_matches(name.split(".")[0], timm.list_models(), 3)
        raise BackboneError(f"timm has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "."))
    try:
        network = timm.create_model(name, pretrained=False, **request.arguments)
    except Exception as error:  # the models' constructors raise all kinds
        arguments = " with the given arguments" if request.arguments else ""
        raise OptionError(f"timm cannot build {name}{arguments}: {one_line(error)}") from None
    if request.weights is None:
        settings = network.pretrained_cfg
        if not (settings.get("hf_hub_id") or settings.get("url") or settings.get("file")):
            raise BackboneError(f"timm publishes no weights for {name}; give a file of them with --weights.")
        repository = str(settings.get("hf_hub_id") or "")
        try:
            network = timm.create_model(name, pretrained=True, **request.arguments)
        except Exception as error:  # of the Hub, the network, the disk or the file
            _verify_cached_files(name, repository)
            raise BackboneError(
                f"The weights of timm:{name} are not in the cache and cannot be fetched ({one_line(error, 120)}); "
                "run this once with a network connection, or give the file with --weights FILE."
            ) from None
        _verify_cached_files(name, repository)
    return network.eval()


def _verify_cached_files(name: str, repository: str) -> None:
    """Raise BackboneError if a fetched file is not the one that the hub announced.

    huggingface_hub stores large files under their sha256, but does not compare it.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository.split("@")[0], repo_type="model")
    for path in (folder / "blobs").glob("*"):
        if SHA256.fullmatch(path.name) and file_sha256(path) != path.name:
            raise BackboneError(
                f"The weights of timm:{name} have another hash than the {path.name[:12]}... announced; they were "
                f"changed or damaged on the way: delete {path} and run the command again."
            )


def _load_weights(network: Any, request: Request, path: Path) -> None:
    """Load a file of weights into a network. Raises BackboneError when they do not fit.

    Its classifier may differ or be missing, since it is not part of a backbone.
    """
    state = _read_state_dict(path)
    expected = network.state_dict()
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)

    def is_head(key: str) -> bool:
        return any(key.startswith(f"{head}.") for head in heads)

    def misfit(problem: str, keys: Sequence[str]) -> BackboneError:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return BackboneError(
            f"{path.name} does not fit timm:{request.name}: {problem}{', '.join(keys[:3])}{more}; "
            "expected a state dict of this very model, with the same arguments."
        )

    missing = [k for k in expected if k not in state and not is_head(k) and not k.endswith("num_batches_tracked")]
    if missing:
        raise misfit("it lacks ", missing)
    unexpected = [k for k in state if k not in expected and not is_head(k)]
    if unexpected:
        raise misfit("the model has no ", unexpected)
    different = [
        f"{k} is {tuple(state[k].shape)} where {tuple(expected[k].shape)} is expected"
        for k in expected
        if k in state and state[k].shape != expected[k].shape and not is_head(k)
    ]
    if different:
        raise misfit("", different)
    fitting = {k: v for k, v in state.items() if k in expected and v.shape == expected[k].shape}
    network.load_state_dict(fitting, strict=False)


def _read_state_dict(path: Path) -> dict[str, Any]:
    """Read the state dict in a file, without the prefixes of wrappers. Raises BackboneError."""
    import torch

    try:
        state = _load_file(path)
    except BackboneError:
        raise
    except Exception as error:  # damaged and hostile files raise all kinds
        raise BackboneError(
            f"{path.name} cannot be read as weights ({one_line(error, 120)}); {EXPECTED_FILE}."
        ) from None
    for key in STATE_DICT_KEYS:
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
            break
    if not isinstance(state, dict) or not state:
        raise BackboneError(f"{path.name} holds no state dict; {EXPECTED_FILE}.")
    tensors = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise BackboneError(f"{path.name} holds {str(key)[:60]!r}, which is not a tensor; {EXPECTED_FILE}.")
        for prefix in WRAPPER_PREFIXES:
            key = key.removeprefix(prefix)
        tensors[key] = value
    return tensors


def _load_file(path: Path) -> Any:
    """The content of a file of safetensors, or of PyTorch's format read as data alone."""
    import torch
    from safetensors.torch import load_file

    if path.suffix == ".safetensors":
        return load_file(path)
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > MAX_FILE_BYTES:
                raise BackboneError(f"{path.name} unpacks to more than the limit of {MAX_FILE_BYTES:,} bytes.")
    return torch.load(path, map_location="cpu", weights_only=True)


def _with_taps(network: Any, size: tuple[int, int]) -> tuple[list[str], Any]:
    """Tap names from shallow to deep, and a torch module that gives their values.

    The taps are the last block of each resolution (of a transformer of one resolution, the ends of its first three
    quarters), and what the classifier gets ("features"). Raises BackboneError for a size that the network cannot take.
    """
    import torch

    stages = list(getattr(network.feature_info, "info", network.feature_info))
    indices = _tapped_stages([stage["reduction"] for stage in stages])
    names = [str(stages[i]["module"]) for i in indices]

    class Tapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.values: dict[str, Any] = {}
            if not hasattr(network, "forward_intermediates"):
                for name in names:
                    network.get_submodule(name).register_forward_hook(self._hook(name))

        def _hook(self, name: str) -> Any:
            def hook(module: Any, inputs: Any, value: Any) -> None:  # noqa: ARG001  # PyTorch's signature
                self.values[name] = value

            return hook

        def forward(self, pixels: Any) -> Any:
            if hasattr(self.network, "forward_intermediates"):
                last, intermediates = self.network.forward_intermediates(pixels, indices=indices)
            else:
                last = self.network.forward_features(pixels)
                intermediates = [self.values[name] for name in names]
            return (*intermediates, self.network.forward_head(last, pre_logits=True))

    module = Tapped().eval()
    try:
        with torch.no_grad():
            module(torch.zeros(1, 3, *size))
    except Exception as error:  # too small, or not a multiple of the patches
        raise BackboneError(f"The network cannot take {size[0]} x {size[1]} pixels: {one_line(error)}") from None
    return [*names, "features"], module


def _tapped_stages(reductions: Sequence[int]) -> list[int]:
    """Indices of the stages to tap, by how much each reduces the size of the image.

    >>> _tapped_stages([2, 4, 4, 8, 16, 16])
    [0, 2, 3, 5]
    >>> _tapped_stages([16] * 12)
    [2, 5, 8]
    """
    last = {reduction: i for i, reduction in enumerate(reductions)}
    if len(last) > 1 or len(reductions) < 4:
        return sorted(last.values())
    return [round(len(reductions) * part) - 1 for part in (0.25, 0.5, 0.75)]
