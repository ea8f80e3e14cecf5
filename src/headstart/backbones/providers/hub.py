"""``hf:ORG/NAME``: an ONNX model repository on the Hugging Face Hub, prepared once, pinned to a commit."""

from __future__ import annotations

import hashlib
import re
import shutil
from dataclasses import asdict
from pathlib import Path, PurePosixPath

from headstart.backbones import store
from headstart.backbones.backbone import MAX_FILE_BYTES, Backbone, InputOptions
from headstart.backbones.input_config import MAX_CONFIG_BYTES, hub_config, read_config
from headstart.backbones.prepare import VERSION, GraphFile, prepare_file
from headstart.backbones.providers.hub_client import (
    COMMIT,
    HubId,
    ListedFile,
    Progress,
    Snapshot,
    fetch,
    list_files,
    parse_id,
    stays_inside,
)
from headstart.errors import BackboneError, OptionError
from headstart.files import read_json, to_json, write_atomic
from headstart.machine import cache_folder

USUAL_GRAPHS = ("onnx/model.onnx", "model.onnx")
QUANTISED = re.compile(r"quant|int8|uint8|fp16|float16|bf16|q4|q8|bnb|_o[1-4]\b", re.I)
PROCESSOR_CONFIG, NETWORK_CONFIG = "preprocessor_config.json", "config.json"
MAX_COMMIT_BYTES = 2**16  # of the file that holds the commit of a revision


def load_hub(
    rest: str,
    options: InputOptions,
    taps: tuple[str, ...] = (),
    *,
    renew: bool = False,
    progress: Progress | None = None,
) -> Backbone:
    """Load the backbone ``hf:REST``.

    A branch stays at the commit that it had when first used; ``renew`` asks the hub again. ``progress(done, total)``
    counts bytes. Raises BackboneError, OptionError.
    """
    if options.weights:
        raise OptionError("A repository of the hub holds its own weights; leave --weights out.")
    id = parse_id(rest)
    if COMMIT.fullmatch(id.revision):
        commit = id.revision
    else:
        commit = "" if renew else _recorded_commit(id)
    if commit and (backbone := _stored(id, commit, options, taps)) is not None:
        return backbone
    snapshot = list_files(id, commit or id.revision)
    backbone = _stored(id, snapshot.commit, options, taps)
    if backbone is None:
        backbone = _prepare(id, snapshot, options, taps, progress)
    if id.revision != snapshot.commit:
        file = _commit_file(id)
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(file, to_json({"commit": snapshot.commit}))
    return backbone


def _stored(id: HubId, commit: str, options: InputOptions, taps: tuple[str, ...]) -> Backbone | None:
    """The backbone with these taps in the store, if it is there."""
    pinned = id.pinned(commit)
    usual = store.read(_store_folder(id, commit, options, ()), pinned)
    if usual is not None and {*taps} <= {tap.name for tap in usual.taps}:
        return usual
    return store.read(_store_folder(id, commit, options, taps), pinned) if taps else None


def _store_folder(id: HubId, commit: str, options: InputOptions, taps: tuple[str, ...]) -> Path:
    """Where the store keeps it: under its full id as a name, or under a hash of that and of options and taps."""
    if options == InputOptions() and not taps:
        return store.named_folder(id.pinned(commit))
    return store.settings_folder([VERSION, id.pinned(commit), asdict(options), sorted(taps)])


def _hub_folder(key: str) -> Path:
    """A path in the cache folder for what is kept of the hub under ``key``."""
    return cache_folder() / "hub" / hashlib.sha256(key.encode()).hexdigest()[:32]


def _commit_file(id: HubId) -> Path:
    return _hub_folder(f"{id.repository}@{id.revision}").with_suffix(".json")


def _recorded_commit(id: HubId) -> str:
    """The commit that the revision had when it was first used, "" if that is not known."""
    try:
        commit = str(read_json(_commit_file(id), MAX_COMMIT_BYTES)["commit"])
    except (OSError, ValueError, KeyError):
        return ""
    return commit if COMMIT.fullmatch(commit) else ""


def _prepare(
    id: HubId, snapshot: Snapshot, options: InputOptions, taps: tuple[str, ...], progress: Progress | None
) -> Backbone:
    """Fetch the files of a commit that are needed, and prepare its graph into the store. Raises BackboneError."""
    graph = _choose_graph(id, snapshot)
    downloads = _hub_folder(f"{id.repository}@{snapshot.commit}")

    def get(name: str, limit: int) -> Path:
        listed = snapshot.files[name]
        if listed.size > limit:
            raise BackboneError(
                f"{name} of hf:{id.repository} has {listed.size:,} bytes, more than the limit of {limit:,}."
            )
        return fetch(id, snapshot.commit, listed, downloads, progress)

    configs = {
        name: read_config(get(name, MAX_CONFIG_BYTES)) if name in snapshot.files else {}
        for name in (PROCESSOR_CONFIG, NETWORK_CONFIG)
    }
    try:
        config, config_name = hub_config(configs[PROCESSOR_CONFIG], configs[NETWORK_CONFIG])
    except (TypeError, ValueError, ArithmeticError) as error:
        raise BackboneError(f"{NETWORK_CONFIG} of hf:{id.repository} cannot be used: {error}.") from None
    path = get(graph.name, MAX_FILE_BYTES)
    content = path.read_bytes()
    remaining = MAX_FILE_BYTES - len(content)
    for name in _weight_names(id, snapshot, graph, path, content):
        get(name, remaining)
        remaining -= snapshot.files[name].size
    folder, pinned = _store_folder(id, snapshot.commit, options, taps), id.pinned(snapshot.commit)
    record = {
        "id": pinned,
        "licence": snapshot.licence,
        "source": f"Hugging Face Hub, {id.repository} at {snapshot.commit}, {graph.name} (sha256 "
        f"{hashlib.sha256(content).hexdigest()})",
    }
    if folder == store.named_folder(pinned):
        record["name"] = pinned
    prepare_file(GraphFile(path, content, config, config_name), options, taps, folder, record)
    backbone = store.read_back(folder, pinned)
    shutil.rmtree(downloads, ignore_errors=True)
    return backbone


def _weight_names(id: HubId, snapshot: Snapshot, graph: ListedFile, path: Path, content: bytes) -> list[str]:
    """Names in the repository of the files with weights of a graph. Raises BackboneError if one is not there."""
    from headstart.backbones.onnx.external_data import parse_graph, weight_locations

    names = []
    for location in sorted(weight_locations(parse_graph(content, path))):
        name = (PurePosixPath(graph.name).parent / location).as_posix()
        if not location or not stays_inside(location) or name not in snapshot.files:
            raise BackboneError(
                f"{graph.name} of hf:{id.repository} needs the file {location[:100]!r}, which the repository lacks."
            )
        names.append(name)
    return names


def _choose_graph(id: HubId, snapshot: Snapshot) -> ListedFile:
    """The graph to use: the requested one, else the one in a usual place, else the only one that is not quantised."""
    graphs = sorted(name for name in snapshot.files if name.endswith(".onnx"))
    if id.file:
        if id.file not in graphs:
            names = ", ".join(graphs[:5]) or "none"
            raise BackboneError(f"hf:{id.repository} has no ONNX file {id.file!r}; it has {names}.")
        return snapshot.files[id.file]
    if not graphs:
        raise BackboneError(
            f"hf:{id.repository} holds no ONNX file; export the network to ONNX, or look for timm:NAME of the same."
        )
    for name in USUAL_GRAPHS:
        if name in graphs:
            return snapshot.files[name]
    unquantised = [name for name in graphs if not QUANTISED.search(PurePosixPath(name).name)]
    candidates = unquantised if len(unquantised) == 1 else graphs
    if len(candidates) > 1:
        raise BackboneError(
            f"hf:{id.repository} has {len(graphs)} ONNX files; name one: hf:{id.repository}?file={graphs[0]}"
        )
    return snapshot.files[candidates[0]]
