"""What the providers share that need a framework once: ``timm:`` and ``keras:``.

An id is ``KIND:NAME`` or ``KIND:NAME?argument=value&argument=value``. The framework builds the network and exports
it; the prepared graph is kept under a key of everything that matters, so that the framework is not needed again.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import re
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.backbone import FLAT, Backbone, InputOptions
from headstart.backbones.providers.onnx_file import MAX_FILE, keep, read_stored
from headstart.errors import BackboneError, OptionError
from headstart.images.preprocess import Preprocess
from headstart.machine import cache_folder

if TYPE_CHECKING:
    import onnx

VERSION = 1  # of the export: another one makes another entry in the store
OPSET = 18  # what PyTorch's exporter writes by itself
NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,99}")
Value = bool | int | float | str | None


@dataclass(frozen=True)
class Request:
    """What is asked of a framework: a network's name, its arguments, a file of weights (None: the published
    ones), how pictures are prepared, and the layers to tap besides the usual ones."""

    name: str
    arguments: Mapping[str, Value]
    weights: Path | None
    options: InputOptions
    taps: tuple[str, ...]

    @property
    def cuts(self) -> tuple[str, ...]:
        """The layers that ``taps`` name, whether pooled or laid flat."""
        return tuple(tap.removesuffix(FLAT) for tap in self.taps)


@dataclass(frozen=True)
class Exported:
    """What a framework hands back: a float graph, its taps (name to tensor, "features" last), how it wants its
    pictures with nothing left open, its licence, where it comes from, and what the user must be told."""

    model: onnx.ModelProto
    taps: Mapping[str, str]
    options: InputOptions
    licence: str
    source: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opened:
    """A framework's network before its export: a torch module from normalised pictures to the values of its ``taps``
    ("features" last), the ``shape`` of one picture, what ``Exported`` says besides, and what it is exported within."""

    module: Any
    taps: tuple[str, ...]
    shape: tuple[int, int, int]
    options: InputOptions
    licence: str
    source: str
    notes: tuple[str, ...] = ()
    within: Callable[[], AbstractContextManager[None]] = nullcontext

    def export(self) -> Exported:
        """The network as it is now. Raises BackboneError."""
        with self.within():
            model = to_onnx(self.module, self.shape)
        outputs = [output.name for output in model.graph.output]
        return Exported(
            model, dict(zip(self.taps, outputs, strict=True)), self.options, self.licence, self.source, self.notes
        )


def asked(kind: str, rest: str, options: InputOptions, taps: tuple[str, ...]) -> Request:
    """What an id and its options ask of a framework. Raises OptionError, BackboneError."""
    name, arguments = parse(kind, rest)
    return Request(name, arguments, _weights(options.weights), options, taps)


def prepared(kind: str, rest: str, made: Exported) -> Backbone:
    """The backbone that an export becomes, held in memory: nothing is kept. Raises BackboneError."""
    with tempfile.TemporaryDirectory() as temporary:
        _keep(Path(temporary) / "made", f"{kind}:{rest}", made, ())
        found = read_stored(Path(temporary) / "made", f"{kind}:{rest}")
        assert found is not None
        assert isinstance(found.graph, Path)
        return replace(found, graph=found.graph.read_bytes())


def load_exported(
    kind: str, rest: str, options: InputOptions, taps: tuple[str, ...], export: Callable[[Request], Exported]
) -> Backbone:
    """The backbone ``KIND:REST`` from the store, or made by ``export``. Raises BackboneError, OptionError."""
    request = asked(kind, rest, options, taps)
    name, arguments, weights = request.name, request.arguments, request.weights
    content = "published" if weights is None else digest(weights)
    described = asdict(replace(options, weights=None))

    def stored_at(extra: tuple[str, ...]) -> Path:
        settings = json.dumps([VERSION, kind, name, arguments, content, described, sorted(extra)], sort_keys=True)
        return cache_folder() / "backbones" / hashlib.sha256(settings.encode()).hexdigest()[:32]

    usual = read_stored(stored_at(()), f"{kind}:{rest}")
    if usual is not None and {*taps} <= {tap.name for tap in usual.taps}:
        return usual
    folder = stored_at(taps)
    found = read_stored(folder, f"{kind}:{rest}")
    if found is None:
        with quiet():
            made = export(request)
        _keep(folder, f"{kind}:{rest}", made, tuple(tap for tap in taps if tap.endswith(FLAT)))
        found = read_stored(folder, f"{kind}:{rest}")
    if found is None:
        raise BackboneError(f"The prepared graph in {folder} does not read back; is the disk full or failing?")
    return found


def parse(kind: str, rest: str) -> tuple[str, dict[str, Value]]:
    """The name and the arguments of what follows ``KIND:`` in an id. Raises OptionError.

    >>> parse("timm", "mobilenetv2_100?pad_type=same&num_classes=1001")
    ('mobilenetv2_100', {'pad_type': 'same', 'num_classes': 1001})
    """
    name, _, text = rest.partition("?")
    if not NAME.fullmatch(name):
        raise OptionError(f"{kind}:{rest} names no network; expected {kind}:NAME or {kind}:NAME?argument=value.")
    arguments: dict[str, Value] = {}
    for part in text.split("&") if text else []:
        key, given, value = part.partition("=")
        if not given or not key.isidentifier() or key in arguments:
            raise OptionError(f"{part!r} in {kind}:{rest} cannot be read; expected argument=value, each once.")
        arguments[key] = _value(value)
    return name, arguments


def _value(text: str) -> Value:
    words: dict[str, Value] = {"true": True, "false": False, "none": None}
    if text.lower() in words:
        return words[text.lower()]
    for read in (int, float):
        try:
            return read(text)
        except ValueError:
            pass
    return text


def refuse(kind: str, request: Request, reserved: set[str]) -> None:
    """Raise OptionError for arguments that Headstart sets itself."""
    for name in sorted(reserved & set(request.arguments)):
        raise OptionError(f"{name} is set by Headstart; leave it out of {kind}:{request.name}.")


def filled(given: InputOptions, described: InputOptions) -> InputOptions:
    """``given`` where the user says something, else what the network's description says."""
    values = {k: v if v is not None else getattr(described, k) for k, v in asdict(given).items()}
    return replace(InputOptions(**values), weights=None)


def to_onnx(network: Any, shape: tuple[int, ...]) -> onnx.ModelProto:
    """A torch module as an ONNX graph; its input has ``shape`` for one picture, the batch is free where it can be."""
    import torch

    free = {0: torch.export.Dim("batch", min=1, max=4096)}
    try:
        return _export(network, torch.zeros(2, *shape), (free,))
    except Exception:  # some networks work out their batch in Python: the graph then takes one picture
        pass
    try:
        return _export(network, torch.zeros(1, *shape), None)
    except Exception as error:  # the exporter's errors have no common base
        raise BackboneError(f"PyTorch cannot export the network: {one_line(error)}") from None


def _export(network: Any, example: Any, free: Any) -> onnx.ModelProto:
    import torch

    with torch.no_grad():
        program: Any = torch.onnx.export(
            network, (example,), dynamo=True, dynamic_shapes=free, opset_version=OPSET, verbose=False
        )
    model: onnx.ModelProto = program.model_proto
    if model.ByteSize() > MAX_FILE:
        raise BackboneError(f"The exported graph has {model.ByteSize():,} bytes, more than the limit of {MAX_FILE:,}.")
    return model


def one_line(error: Exception, length: int = 300) -> str:
    """An error's text in one line, or its kind where it has none."""
    return " ".join(str(error).split())[:length] or type(error).__name__


def _weights(file: str | None) -> Path | None:
    if file is None:
        return None
    path = Path(file)
    if not path.is_file():
        raise BackboneError(f"There is no file of weights {file!r}; give --weights an existing file.")
    size = path.stat().st_size
    if size > MAX_FILE:
        raise BackboneError(f"{file} has {size:,} bytes, more than the limit of {MAX_FILE:,}.")
    return path


def digest(path: Path) -> str:
    """The sha256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def described_file(path: Path) -> str:
    """What is recorded of a file of weights."""
    return f"{path.name} (sha256 {digest(path)})"


@contextmanager
def quiet() -> Iterator[None]:
    """Frameworks warn, log and draw progress bars; standard output is for results alone, and only a terminal shows what
    goes on."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(sys.stderr if sys.stderr.isatty() else io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _keep(folder: Path, name: str, made: Exported, flat: tuple[str, ...]) -> None:
    from headstart.backbones.onnx.standardise import Normalisation

    how = made.options
    assert how.mean is not None
    assert how.std is not None
    assert how.size is not None
    settings = {k: v for k in ("resize", "crop", "interpolation") if (v := getattr(how, k)) is not None}
    keep(
        folder, made.model, Normalisation(how.mean, how.std, how.channels == "BGR"),
        Preprocess.from_dict({"height": how.size[0], "width": how.size[1]} | settings), flat,
        {"id": name, "licence": made.licence, "source": made.source, "notes": list(made.notes)}, made.taps,
    )  # fmt: skip
