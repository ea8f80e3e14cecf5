"""Checkpoints: the state of a training as safetensors, and a JSON file that names them.

Each file is written in one step, so that an interruption at any moment leaves this checkpoint or the one before it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from headstart.errors import ModelError, OptionError
from headstart.files import read_json, write_atomic

MAX_JSON_BYTES = 16 * 2**20


def write_checkpoint(folder: Path, name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a checkpoint under ``name``, in place of an earlier one: tensors, and ``values`` as JSON.

    Raises ModelError where the folder cannot be written.
    """
    data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    tensor_file = f"{name}.{digest[:16]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / tensor_file, data)
        write_atomic(folder / f"{name}.json", json.dumps({**values, "tensors": tensor_file, "sha256": digest}))
        for path in folder.glob(f"{name}.*.safetensors"):
            if path.name != tensor_file:
                path.unlink()
    except OSError as error:
        raise ModelError(f"The checkpoint {folder} cannot be written: {error.strerror or error}.") from None


def read_checkpoint(folder: Path, name: str, settings: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the tensors and values of the checkpoint ``name``; None where there is none.

    ``settings`` is compared with the value of that name. Raises OptionError where they differ, ModelError where the
    checkpoint is damaged.
    """
    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        values = read_json(path, MAX_JSON_BYTES)
        tensor_file = str(values["tensors"])
        if Path(tensor_file).name != tensor_file:
            raise ValueError("it names a file outside its folder")
        data = (folder / tensor_file).read_bytes()
        if hashlib.sha256(data).hexdigest() != values["sha256"]:
            raise ValueError("the tensors are not those it was written with")
        tensors = load(data)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(f"The checkpoint {path} is damaged ({error}); run again without --resume.") from None
    if values.get("settings") != settings:
        raise OptionError(
            f"The checkpoint {path} was written with other data or options; run again without --resume, or as before."
        )
    return tensors, values
