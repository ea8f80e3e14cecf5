"""``timm:NAME``: any image model of PyTorch Image Models (Wightman 2019), exported once."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone, InputOptions, provider
from headstart.backbones.providers.framework import (
    Exported,
    Opened,
    Request,
    described_file,
    digest,
    filled,
    load_exported,
    one_line,
    refuse,
)
from headstart.backbones.providers.onnx_file import MAX_FILE
from headstart.errors import BackboneError, MissingExtraError, OptionError

RESERVED = {
    "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir", "features_only",
    "in_chans", "scriptable", "exportable", "no_jit",
}  # fmt: skip
WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
PREFIXES = ("module.", "_orig_mod.")
SHA256 = re.compile(r"[0-9a-f]{64}")


@provider("timm")
def load_timm(rest: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """The backbone ``timm:REST``. Raises BackboneError, OptionError, MissingExtraError."""
    return load_exported("timm", rest, options, taps, _export)


def _export(request: Request) -> Exported:
    return open_timm(request).export()


def open_timm(request: Request) -> Opened:
    """The network as a torch module. Raises BackboneError, OptionError, MissingExtraError."""
    try:
        import timm
        from timm.data import resolve_data_config
    except ImportError:
        raise MissingExtraError("timm is not installed; run: pip install 'headstart[zoo]'") from None
    refuse("timm", request, RESERVED)
    network = _built(timm, request)
    if request.weights is not None:
        _fill(network, request)
    settings: Mapping[str, Any] = network.pretrained_cfg
    data = resolve_data_config({}, pretrained_cfg=settings, model=network)
    notes = []
    if data["crop_mode"] == "border":
        notes.append(f"{request.name} wants a border around its pictures: they are cropped instead.")
    how = filled(
        request.options,
        InputOptions(
            mean=tuple(data["mean"]), std=tuple(data["std"]), channels="RGB", size=tuple(data["input_size"][1:]),
            crop=min(1.0, float(data["crop_pct"])), resize="squash" if data["crop_mode"] == "squash" else "shortest",
            interpolation="bicubic" if data["interpolation"] == "bicubic" else "bilinear",
        ),
    )  # fmt: skip
    assert how.size is not None
    if hasattr(network, "set_input_size") and how.size != tuple(data["input_size"][1:]):
        try:
            network.set_input_size(img_size=how.size)
        except Exception as error:  # assertions and errors of all kinds
            raise BackboneError(
                f"timm:{request.name} cannot take {how.size[0]} x {how.size[1]}: {one_line(error)}"
            ) from None
    names, tapped = _tapped(network, how.size)
    for tap in request.cuts:
        if tap not in names:
            raise BackboneError(f"Unknown cut {tap!r}; timm:{request.name} has {', '.join(names)}.")
    if request.weights is not None:
        licence, source = "unknown", f"timm {timm.__version__}, {described_file(request.weights)}"
    else:
        hub = settings.get("hf_hub_id") or settings.get("url") or "unknown"
        origin = f", from {settings['origin_url']}" if settings.get("origin_url") else ""
        licence, source = str(settings.get("license") or "unknown"), f"timm {timm.__version__}, {hub}{origin}"
    return Opened(tapped, tuple(names), (3, *how.size), how, licence, source, tuple(notes))


def _built(timm: Any, request: Request) -> Any:
    name = request.name
    if not timm.is_model(name):
        near = get_close_matches(name.split(".")[0], timm.list_models(), 3)
        raise BackboneError(f"timm has no model {name!r}" + (f"; did you mean {', '.join(near)}?" if near else "."))
    try:
        network = timm.create_model(name, pretrained=False, **request.arguments)
    except Exception as error:  # the models' constructors raise what they like
        given = " with the given arguments" if request.arguments else ""
        raise OptionError(f"timm cannot build {name}{given}: {one_line(error)}") from None
    if request.weights is None:
        settings = network.pretrained_cfg
        if not (settings.get("hf_hub_id") or settings.get("url") or settings.get("file")):
            raise BackboneError(f"timm publishes no weights for {name}; give a file of them with --weights.")
        try:
            network = timm.create_model(name, pretrained=True, **request.arguments)
        except Exception as error:  # of the Hub, the network, the disk or the file
            _verify(name, str(settings.get("hf_hub_id") or ""))
            raise BackboneError(
                f"The weights of timm:{name} are not in the cache and cannot be fetched ({one_line(error, 120)}); "
                "run this once with a network connection, or give the file with --weights FILE."
            ) from None
        _verify(name, str(settings.get("hf_hub_id") or ""))
    return network.eval()


def _verify(name: str, repository: str) -> None:
    """Raise BackboneError if a published file is not the one that the hub announced: huggingface_hub keeps large files
    under their sha256, but does not compare it."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository.split("@")[0], repo_type="model")
    for path in (folder / "blobs").glob("*"):
        if SHA256.fullmatch(path.name) and digest(path) != path.name:
            raise BackboneError(
                f"The weights of timm:{name} have another hash than the {path.name[:12]}... announced; they were "
                f"changed or damaged on the way: delete {path} and run the command again."
            )


def _fill(network: Any, request: Request) -> None:
    """Put the weights of a file into a network. Raises BackboneError when they do not fit; its classifier may differ,
    since nothing here reads it."""
    assert request.weights is not None
    path, given = request.weights, _state(request.weights)
    wanted = network.state_dict()
    classifier = network.pretrained_cfg.get("classifier") or ()
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)

    def is_head(key: str) -> bool:
        return any(key.startswith(f"{head}.") for head in heads)

    def told(problem: str, keys: Sequence[str]) -> BackboneError:
        more = f" and {len(keys) - 3} more" if len(keys) > 3 else ""
        return BackboneError(
            f"{path.name} does not fit timm:{request.name}: {problem} {', '.join(keys[:3])}{more}; "
            "expected a state dict of this very model, with the same arguments."
        )

    missing = [k for k in wanted if k not in given and not is_head(k) and not k.endswith("num_batches_tracked")]
    if missing:
        raise told("it lacks", missing)
    foreign = [k for k in given if k not in wanted and not is_head(k)]
    if foreign:
        raise told("the model has no", foreign)
    differ = [
        f"{k} is {tuple(given[k].shape)} where {tuple(wanted[k].shape)} is expected"
        for k in wanted
        if k in given and given[k].shape != wanted[k].shape and not is_head(k)
    ]
    if differ:
        raise told("", differ)
    network.load_state_dict(
        {k: v for k, v in given.items() if k in wanted and v.shape == wanted[k].shape}, strict=False
    )


def _state(path: Path) -> dict[str, Any]:
    """The state dict in a file: safetensors, or PyTorch's format read as data alone."""
    import torch
    from safetensors.torch import load_file

    expected = "expected .safetensors, or a state dict saved by torch.save"
    try:
        if path.suffix == ".safetensors":
            state: Any = load_file(path)
        else:
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as packed:
                    if sum(entry.file_size for entry in packed.infolist()) > MAX_FILE:
                        raise BackboneError(f"{path.name} unpacks to more than the limit of {MAX_FILE:,} bytes.")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except BackboneError:
        raise
    except Exception as error:  # damaged and hostile files raise all kinds
        raise BackboneError(f"{path.name} cannot be read as weights ({one_line(error, 120)}); {expected}.") from None
    for name in WRAPPERS:
        if isinstance(state, dict) and isinstance(state.get(name), dict):
            state = state[name]
            break
    if not isinstance(state, dict) or not state:
        raise BackboneError(f"{path.name} holds no state dict; {expected}.")
    tensors = {}
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise BackboneError(f"{path.name} holds {str(key)[:60]!r}, which is no tensor; {expected}.")
        for prefix in PREFIXES:
            key = key.removeprefix(prefix)
        tensors[key] = value
    return tensors


def _tapped(network: Any, size: tuple[int, int]) -> tuple[list[str], Any]:
    """Tap names from shallow to deep, and a module that gives their values: the last block of each resolution (of a
    transformer of one resolution, the ends of its quarters), and what the classifier would get ("features")."""
    import torch

    described = list(getattr(network.feature_info, "info", network.feature_info))
    kept = _stages([stage["reduction"] for stage in described])
    names = [str(described[i]["module"]) for i in kept]

    class Tapped(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = network
            self.values: dict[str, Any] = {}
            if not hasattr(network, "forward_intermediates"):
                for name in names:
                    network.get_submodule(name).register_forward_hook(self._keep(name))

        def _keep(self, name: str) -> Any:
            def hook(module: Any, inputs: Any, value: Any) -> None:  # noqa: ARG001  # PyTorch's signature
                self.values[name] = value

            return hook

        def forward(self, pixels: Any) -> Any:
            if hasattr(self.network, "forward_intermediates"):
                last, between = self.network.forward_intermediates(pixels, indices=kept)
            else:
                last = self.network.forward_features(pixels)
                between = [self.values[name] for name in names]
            return (*between, self.network.forward_head(last, pre_logits=True))

    tapped = Tapped().eval()
    try:
        with torch.no_grad():
            tapped(torch.zeros(1, 3, *size))
    except Exception as error:  # too small a picture, or a size that is no multiple of the patches
        raise BackboneError(f"The network cannot take {size[0]} x {size[1]} pixels: {one_line(error)}") from None
    return [*names, "features"], tapped


def _stages(reductions: Sequence[int]) -> list[int]:
    """Which of a network's stages to tap, by how much each reduces the picture.

    >>> _stages([2, 4, 4, 8, 16, 16])
    [0, 2, 3, 5]
    >>> _stages([16] * 12)
    [2, 5, 8]
    """
    last = {reduction: i for i, reduction in enumerate(reductions)}
    if len(last) > 1 or len(reductions) < 4:
        return sorted(last.values())
    return [round(len(reductions) * part) - 1 for part in (0.25, 0.5, 0.75)]
