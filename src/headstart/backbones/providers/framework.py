"""What ``timm:`` and ``keras:`` share: networks that need their framework once, to be exported.

An id is ``KIND:NAME`` or ``KIND:NAME?argument=value&argument=value``. The framework builds the network and exports it
as an ONNX graph. The prepared graph is stored under a hash of all that determines it, so that the framework is not
needed again.
"""

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones import store
from headstart.backbones.backbone import FLAT, MAX_FILE_BYTES, Backbone, InputOptions
from headstart.backbones.input_config import scaling_of
from headstart.backbones.prepare import prepare_graph
from headstart.backbones.scaling import Assumption, ChannelStatistics
from headstart.errors import BackboneError, OptionError, one_line

if TYPE_CHECKING:
    import onnx

VERSION = 4  # of the export: another version makes another entry in the store
OPSET = 18  # what PyTorch's exporter writes by itself
NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}")
Value = bool | int | float | str | None  # of an argument


@dataclass(frozen=True)
class Request:
    """What is requested of a framework.

    ``weights`` is a file of weights, None for the published ones; ``taps`` are layers to tap besides the usual ones.
    """

    name: str
    arguments: Mapping[str, Value]
    weights: Path | None
    options: InputOptions
    taps: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]:
        """The layers that ``taps`` name, whether their maps are averaged or flattened."""
        return tuple(tap.removesuffix(FLAT) for tap in self.taps)


@dataclass(frozen=True)
class OnnxExport:
    """An exported network.

    ``model`` takes normalised float images; ``taps`` are its tensors by tap name, "features" last; ``options`` leave
    nothing open but ``weights``; ``notes`` are lines that the user must see; ``assumption`` is the scaling that was
    assumed, None where it came with the weights or was given.
    """

    model: onnx.ModelProto
    taps: Mapping[str, str]
    options: InputOptions
    licence: str
    source: str
    notes: tuple[str, ...] = ()
    assumption: Assumption | None = None


@dataclass(frozen=True)
class TorchModel:
    """A framework's network before its export.

    ``module`` is a torch module from normalised images to the values of its ``taps``, "features" last; ``shape`` is the
    shape of one image; ``export_context`` makes the context in which the module must be exported. ``assumed`` is the
    line that says which scaling was assumed, "" where none was; ``norms`` are the batch norms that are exported as
    arithmetic (``known_norms``); ``padding_is_open`` where the architecture also comes with TensorFlow's padding. The
    other fields are those of ``OnnxExport``.
    """

    module: Any
    taps: tuple[str, ...]
    shape: tuple[int, int, int]
    options: InputOptions
    licence: str
    source: str
    notes: tuple[str, ...] = ()
    export_context: Callable[[], AbstractContextManager[None]] = nullcontext
    assumed: str = ""
    norms: Mapping[bytes, ChannelStatistics] | None = None
    padding_is_open: bool = False

    def export(self) -> OnnxExport:
        """Export the network with its present weights. Raises BackboneError."""
        from headstart.backbones.onnx.norms import find_norms

        with self.export_context():
            model, unfolded = to_onnx(self.module, self.shape)
        assumption = None
        if self.assumed:  # Keras' batch norms are arithmetic, of which the constants are known only when it is folded
            graph = unfolded if self.norms is None else model
            found = find_norms(graph, self.norms, padding_is_open=self.padding_is_open)
            assumption = Assumption(self.assumed, scaling_of(self.options), found)
        outputs = [output.name for output in model.graph.output]
        taps = dict(zip(self.taps, outputs, strict=True))
        return OnnxExport(model, taps, self.options, self.licence, self.source, self.notes, assumption)


def load_exported(
    kind: str, rest: str, options: InputOptions, taps: tuple[str, ...], export: Callable[[Request], OnnxExport]
) -> Backbone:
    """Load the backbone ``KIND:REST`` from the store, or ``export`` and prepare it.

    Raises BackboneError, OptionError, and what ``export`` raises.
    """
    request = parse_request(kind, rest, options, taps)
    id = f"{kind}:{rest}"
    weights = "published" if request.weights is None else file_sha256(request.weights)
    input_options = asdict(replace(options, weights=None))

    def folder_for(taps: tuple[str, ...]) -> Path:
        return store.settings_folder(
            [VERSION, kind, request.name, request.arguments, weights, input_options, sorted(taps)]
        )

    usual = store.read(folder_for(()), id)
    if usual is not None and {*taps} <= {tap.name for tap in usual.taps}:
        return usual
    folder = folder_for(taps)
    stored = store.read(folder, id)
    if stored is not None:
        return stored
    _prepare(export(request), id, tuple(tap for tap in taps if tap.endswith(FLAT)), folder)
    return store.read_back(folder, id)


def to_backbone(kind: str, rest: str, export: OnnxExport) -> Backbone:
    """Prepare an export as a backbone in memory, which is not stored. Raises BackboneError."""
    id = f"{kind}:{rest}"
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "backbone"
        _prepare(export, id, (), folder)
        backbone = store.read_back(folder, id)
        assert isinstance(backbone.graph, Path)
        return replace(backbone, graph=backbone.graph.read_bytes())


def _prepare(export: OnnxExport, id: str, flat_taps: tuple[str, ...], folder: Path) -> None:
    notes = list(export.notes)
    if export.assumption is not None:
        notes.append(export.assumption.note)
    description = {"id": id, "licence": export.licence, "source": export.source, "notes": notes}
    prepare_graph(export.model, export.options, flat_taps, folder, description, export.taps, export.assumption)


def parse_request(kind: str, rest: str, options: InputOptions, taps: tuple[str, ...]) -> Request:
    """Parse an id and its options. Raises OptionError for an id, BackboneError for a file, that cannot be used."""
    name, arguments = parse_id(kind, rest)
    return Request(name, arguments, _weights_file(options.weights), options, taps)


def parse_id(kind: str, rest: str) -> tuple[str, dict[str, Value]]:
    """Parse the name and the arguments of what follows ``KIND:`` in an id. Raises OptionError.

    >>> parse_id("timm", "mobilenetv2_100?pad_type=same&num_classes=1001")
    ('mobilenetv2_100', {'pad_type': 'same', 'num_classes': 1001})
    """
    name, _, text = rest.partition("?")
    if not NAME.fullmatch(name):
        raise OptionError(f"{kind}:{rest} does not name a network; expected {kind}:NAME or {kind}:NAME?argument=value.")
    arguments: dict[str, Value] = {}
    for part in text.split("&") if text else []:
        key, equals, value = part.partition("=")
        if not equals or not key.isidentifier() or key in arguments:
            raise OptionError(f"{part!r} in {kind}:{rest} cannot be read; expected argument=value, each once.")
        arguments[key] = _parse_value(value)
    return name, arguments


def _parse_value(text: str) -> Value:
    words: dict[str, Value] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for number in (int, float):
        try:
            return number(text)
        except ValueError:
            pass
    return text


def reject_arguments(kind: str, request: Request, reserved: set[str]) -> None:
    """Raise OptionError for arguments that Headstart sets itself."""
    for name in sorted(reserved & set(request.arguments)):
        raise OptionError(f"{name} is set by Headstart; leave it out of {kind}:{request.name}.")


def to_onnx(module: Any, shape: tuple[int, ...]) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    """Export a torch module whose input has ``shape`` for one image; any batch size is allowed where that can be.

    Returns the graph as the exporter simplifies it, and the one before, which still has its batch norms. Raises
    BackboneError.
    """
    import torch

    any_batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    try:
        return _export(module, torch.zeros(2, *shape), (any_batch,))
    except Exception:  # some networks compute their batch size in Python: the graph then takes one image
        pass
    try:
        return _export(module, torch.zeros(1, *shape), None)
    except Exception as error:  # the exporter's errors have no common base
        raise BackboneError(f"PyTorch cannot export the network: {one_line(error)}") from None


def _export(module: Any, example: Any, dynamic_shapes: Any) -> tuple[onnx.ModelProto, onnx.ModelProto]:
    import torch

    with torch.no_grad():
        program: Any = torch.onnx.export(
            module,
            (example,),
            dynamo=True,
            dynamic_shapes=dynamic_shapes,
            opset_version=OPSET,
            verbose=False,
            optimize=False,
        )
    unfolded: onnx.ModelProto = program.model_proto
    program.optimize()
    model: onnx.ModelProto = program.model_proto
    size = model.ByteSize()
    if size > MAX_FILE_BYTES:
        raise BackboneError(f"The exported graph has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}.")
    return model, unfolded


def _weights_file(file: str | None) -> Path | None:
    if file is None:
        return None
    path = Path(file)
    if not path.is_file():
        raise BackboneError(f"There is no file of weights {file!r}; give --weights an existing file.")
    size = path.stat().st_size
    if size > MAX_FILE_BYTES:
        raise BackboneError(f"{file} has {size:,} bytes, more than the limit of {MAX_FILE_BYTES:,}.")
    return path


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def assumed_scaling(request: Request, options: InputOptions, whose: str) -> str:
    """Return the line that says which scaling is assumed for a file of weights; "" where it is known or given."""
    if request.weights is None or request.options.give_scaling:
        return ""
    return (
        f"{request.weights.name} does not say how its images are scaled: assumed {scaling_of(options)}, as {whose} has "
        "it; if that is wrong give --mean and --std."
    )


def weights_source(path: Path) -> str:
    """What the source of a backbone says about its file of weights."""
    return f"{path.name} (sha256 {file_sha256(path)})"
