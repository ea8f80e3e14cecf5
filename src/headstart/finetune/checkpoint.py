"""Where a training is, as data: safetensors, and the JSON that names them, each written whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from headstart.errors import ModelError, OptionError

MAX_JSON = 16 * 2**20


def write(folder: Path, name: str, tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    """Keep a state under ``name``; a kill at any moment leaves this one or the one before. Raises ModelError."""
    data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    file = f"{name}.{digest[:16]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _whole(folder / file, data)
        _whole(folder / f"{name}.json", json.dumps({**said, "tensors": file, "sha256": digest}).encode())
        for old in folder.glob(f"{name}.*.safetensors"):
            if old.name != file:
                old.unlink()
    except OSError as error:
        raise ModelError(f"The checkpoint {folder} cannot be written: {error.strerror or error}.") from None


def read(folder: Path, name: str, settings: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """What is kept under ``name``; None if nothing is. Raises OptionError if it is of other ``settings``, ModelError if
    it is damaged."""
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        if path.stat().st_size > MAX_JSON:
            raise ValueError("it is too large")
        said = json.loads(path.read_text("utf-8"))
        file = str(said["tensors"])
        if Path(file).name != file:
            raise ValueError("it leaves its folder")
        data = (folder / file).read_bytes()
        if hashlib.sha256(data).hexdigest() != said["sha256"]:
            raise ValueError("the tensors are not those it was written with")
        tensors = load(data)
    except (OSError, ValueError, KeyError, TypeError, RecursionError, SafetensorError) as error:
        raise ModelError(f"The checkpoint {path} is damaged ({error}); run again without --resume.") from None
    if said.get("settings") != settings:
        raise OptionError(f"The checkpoint {path} is of other data or options; run again without --resume.")
    return tensors, said


def _whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)
