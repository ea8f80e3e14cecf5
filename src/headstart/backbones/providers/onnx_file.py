"""``onnx:FILE``: any ONNX image classifier, brought into standard form once and kept in the cache."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.backbone import Backbone, InputOptions, Tap, provider
from headstart.backbones.input_config import described_options, description
from headstart.errors import BackboneError, OptionError
from headstart.images.preprocess import Preprocess
from headstart.machine import cache_folder

if TYPE_CHECKING:
    import onnx

    from headstart.backbones.onnx.standardise import Normalisation

VERSION = 2  # of the conversion: another one makes another cache entry
MAX_FILE = 2 * 2**30
DEFAULT_SIZE = 224


@provider("onnx")
def load_onnx(file: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone:
    """The backbone in an ONNX file. Raises BackboneError when it cannot be read, cut or run."""
    if options.weights:
        raise OptionError("An ONNX file holds its own weights; leave --weights out.")
    path = Path(file)
    if not path.is_file():
        raise BackboneError(f"There is no file {file!r}; give onnx: and the path of an ONNX image classifier.")
    size = path.stat().st_size
    if size > MAX_FILE:
        raise BackboneError(f"{file} has {size:,} bytes, more than the limit of {MAX_FILE:,}.")
    content = path.read_bytes()
    described, where = description(path)
    sha256 = hashlib.sha256(content).hexdigest()
    key = _key(sha256, content, path, options, described, taps)
    folder = cache_folder() / "backbones" / key
    stored = read_stored(folder, f"onnx:{path.name}")
    if stored is None:
        recorded = {"source": f"{path.name} (sha256 {sha256})"}
        convert(content, path, options, described, where, taps, folder, recorded)
        stored = read_stored(folder, f"onnx:{path.name}")
    if stored is None:
        raise BackboneError(f"The prepared graph in {folder} does not read back; is the disk full or failing?")
    return stored


def read_stored(folder: Path, name: str) -> Backbone | None:
    """A backbone in standard form from ``backbone.onnx`` and ``backbone.json``; None if damaged or not there."""
    try:
        described = json.loads((folder / "backbone.json").read_text("utf-8"))
        graph = folder / "backbone.onnx"
        if hashlib.sha256(graph.read_bytes()).hexdigest() != described["sha256"]:
            return None
        taps = tuple(
            Tap(str(t["name"]), int(t["channels"]), float(t["depth"]), tuple(t["size"]) if t["size"] else None)
            for t in described["taps"]
        )
        return Backbone(
            str(described.get("id", name)), graph, described["sha256"], Preprocess.from_dict(described["preprocess"]),
            taps, str(described["licence"]), str(described["source"]),
            tuple(described.get("notes", ())), described.get("batch"),
        )  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, OptionError):
        return None


def _key(
    sha256: str, content: bytes, path: Path, options: InputOptions, described: Mapping[str, Any], taps: tuple[str, ...]
) -> str:
    settings = json.dumps([VERSION, sha256, asdict(options), described, taps], sort_keys=True)
    digest = hashlib.sha256(settings.encode())
    if b"location" in content:  # weights may be kept beside the graph: they count too
        for beside in _outside(parsed(content, path), path):
            with beside.open("rb") as stream:
                digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:32]


def convert(
    content: bytes,
    path: Path,
    options: InputOptions,
    described: Mapping[str, Any],
    where: str,
    taps: tuple[str, ...],
    folder: Path,
    recorded: Mapping[str, str],
) -> None:
    """Prepare the graph in ``path``, of this ``content``, as a JSON file (``where``) describes it: into ``folder``.

    ``recorded`` is written of it: its source, and name, id and licence where they are not the file's own. Raises
    BackboneError, OptionError.
    """
    import onnx

    from headstart.backbones.onnx.standardise import Normalisation, image_input

    model = _with_weights(content, path)
    try:
        said = described_options(described)
    except (TypeError, ValueError, ArithmeticError) as error:
        raise BackboneError(f"{where} beside {path.name} cannot be used: {error}.") from None
    chosen = InputOptions(**{k: v if v is not None else getattr(said, k) for k, v in asdict(options).items()})
    source = image_input(model)
    notes = []
    if described.get("resample", 2) not in (2, 3):
        notes.append(
            f"{where} asks for Pillow's resampling {described['resample']}: bilinear is used, as near as Headstart has."
        )
    scales_itself = source.dtype == onnx.TensorProto.UINT8
    if scales_itself and (options.mean or options.std):
        raise OptionError(f"{path.name} takes uint8 pictures and scales them itself; leave --mean and --std out.")
    if chosen.mean is None or chosen.std is None:
        chosen = replace(chosen, mean=chosen.mean or (0.5,) * 3, std=chosen.std or (0.5,) * 3)
        notes += (
            []
            if scales_itself
            else [
                f"{path.name} does not say how its input is scaled: assumed -1 to 1 (mean 0.5, std 0.5); "
                "if that is wrong give --mean and --std."
            ]
        )
    size = chosen.size or (source.height or DEFAULT_SIZE, source.width or DEFAULT_SIZE)
    if not (source.height and source.width) and chosen.size is None:
        notes.append(
            f"{path.name} takes any size: assumed {DEFAULT_SIZE} x {DEFAULT_SIZE}; give --input-size for another."
        )
    if (source.height or size[0], source.width or size[1]) != size:
        raise BackboneError(f"{path.name} only takes {source.height} x {source.width}; leave --input-size out.")
    preprocess = Preprocess.from_dict(
        {"height": size[0], "width": size[1]}
        | {k: v for k in ("resize", "crop", "interpolation") if (v := getattr(chosen, k)) is not None}
    )
    assert chosen.mean is not None
    assert chosen.std is not None
    licence = next((p.value for p in model.metadata_props if p.key.lower() in ("license", "licence")), "unknown")
    keep(
        folder, model, Normalisation(chosen.mean, chosen.std, chosen.channels == "BGR"), preprocess, taps,
        {"id": f"onnx:{path.name}", "licence": licence, "notes": notes, **recorded},
    )  # fmt: skip


def keep(
    folder: Path,
    model: onnx.ModelProto,
    normalisation: Normalisation,
    preprocess: Preprocess,
    extra: Sequence[str],
    described: Mapping[str, Any],
    known: Mapping[str, str] | None = None,
) -> None:
    """Bring a foreign graph into standard form and store it with what is ``described`` (id, licence, source, notes).

    ``extra`` are tensors to tap besides those found, or besides the ``known`` ones (tap name to tensor) where
    whoever exported the graph names them. Raises BackboneError when it cannot be cut or run.
    """
    from headstart.backbones.onnx.standardise import image_input, standardise

    size = (preprocess.height, preprocess.width)
    batch = image_input(model).batch
    found = standardise(model, normalisation, size, extra, known)
    graph = model.SerializeToString()
    fixed = {
        "format": 1,
        "sha256": hashlib.sha256(graph).hexdigest(),
        "preprocess": preprocess.to_dict(),
        "taps": [asdict(tap) for tap in found],
        "batch": _usable_batch(graph, size, batch),
    }
    store(folder, graph, {**described, **fixed})


def store(folder: Path, graph: bytes, description: Mapping[str, Any]) -> None:
    """Write ``backbone.onnx`` and ``backbone.json`` to a new folder, whole or not at all. Raises BackboneError."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".new-") as temporary:
            made = Path(temporary) / "made"
            made.mkdir()
            (made / "backbone.onnx").write_bytes(graph)
            (made / "backbone.json").write_text(json.dumps(description, indent=1), "utf-8")
            if folder.exists():  # damaged: it did not read back
                folder.replace(Path(temporary) / "old")
            made.replace(folder)
    except FileExistsError:
        pass  # another process stored the same
    except OSError as error:
        if not folder.exists():
            raise BackboneError(
                f"Cannot store the prepared graph in {folder}: {error.strerror or error}; "
                "set HEADSTART_CACHE to a writable folder."
            ) from None


def parsed(content: bytes, path: Path) -> onnx.ModelProto:
    """The graph in ``content``. Raises BackboneError, naming ``path``, if it is none."""
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load_model_from_string(content)
    except (DecodeError, ValueError, RuntimeError):
        raise BackboneError(f"{path} is not an ONNX graph, or it was cut off.") from None
    if not model.graph.node or not model.graph.output:
        raise BackboneError(f"{path} is not an ONNX graph, or it was cut off.")
    return model


def _outside(model: onnx.ModelProto, path: Path) -> list[Path]:
    """The files beside the graph that hold weights of it; all of them in its folder, there and not too large."""
    root, found = path.parent.resolve(), set()
    for location in locations(model):
        beside = (root / location).resolve()
        if not location or root not in beside.parents:
            raise BackboneError(f"{path.name} keeps weights outside its folder ({location!r}); refused.")
        if not beside.is_file():
            raise BackboneError(f"{path.name} needs the file {location!r} beside it; copy it there.")
        found.add(beside)
    total = sum(beside.stat().st_size for beside in found)
    if total > MAX_FILE:
        raise BackboneError(f"The weights beside {path.name} have {total:,} bytes, over the limit of {MAX_FILE:,}.")
    return sorted(found)


def locations(model: onnx.ModelProto) -> set[str]:
    """The files that a graph says hold weights of it, as it names them; "" where it names none."""
    import onnx

    return {
        next((e.value for e in tensor.external_data if e.key == "location"), "")
        for tensor in _tensors(model.graph)
        if tensor.data_location == onnx.TensorProto.EXTERNAL
    }


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    """All constants of a graph, also those of branches and loops."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from ([attribute.t] if attribute.HasField("t") else []) + list(attribute.tensors)
        for inner in ([attribute.g] if attribute.HasField("g") else []) + list(attribute.graphs):
            yield from _tensors(inner)


def _with_weights(content: bytes, path: Path) -> onnx.ModelProto:
    import onnx

    model = parsed(content, path)
    if _outside(model, path):
        try:
            onnx.load_external_data_for_model(model, str(path.parent.resolve()))
        except Exception as error:  # onnx's checker raises its own kinds
            reason = " ".join(str(error).split())
            raise BackboneError(f"The weights beside {path.name} cannot be read: {reason}") from None
    return model


def _usable_batch(graph: bytes, size: tuple[int, int], fixed: int | None) -> int | None:
    """None if the graph gives a batch of two the same as twice one; else the batch it was made for.

    Raises BackboneError if it cannot be run at all, or gives numbers that are not finite.
    """
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    pixels = np.random.default_rng(0).integers(0, 256, (2, *size, 3), np.uint8)
    try:
        session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise BackboneError(f"The graph cannot be run: {' '.join(str(error).split())[:300]}") from None

    def run(batch: Any) -> list[Any]:
        values: list[Any] = session.run(None, {"pixels": batch})
        return values

    try:
        together = run(pixels)
        single = [run(pixels[i : i + 1]) for i in range(2)]
        if all(
            np.allclose(whole, np.concatenate(parts), rtol=1e-3, atol=1e-3 * max(1e-6, float(np.abs(whole).max())))
            for whole, parts in zip(together, zip(*single, strict=True), strict=True)
        ):
            _finite(together)
            return None
    except Exception:  # not with a batch of two: the graph's own batch is tried next
        pass
    batch = fixed or 1
    try:
        _finite(run(np.concatenate([pixels] * -(-batch // 2))[:batch]))
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(f"The graph cannot be run: {' '.join(str(error).split())[:300]}") from None
    return batch


def _finite(values: list[Any]) -> None:
    import numpy as np

    if not all(np.isfinite(value).all() for value in values):
        raise BackboneError(
            "The graph gives values that are not finite; its weights are damaged, or its scaling is wrong."
        )
