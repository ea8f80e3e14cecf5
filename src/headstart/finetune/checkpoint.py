"""Checkpoints: the state of a training as safetensors, and a JSON file that names them.

Each file is written in one step, so that an interruption at any moment leaves this checkpoint or the one before it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import ModelError, OptionError
from headstart.files import read_json, read_limited, write_atomic

if TYPE_CHECKING:
    from torch import Tensor

MAX_JSON_BYTES = 16 * 2**20
MAX_TENSOR_BYTES = 16 * 2**30
TENSORS = re.compile(r"[^.]+\.[0-9a-f]{16}\.safetensors")


def _tensor_files(folder: Path) -> list[Path]:
    """Return the files of tensors that ``write_checkpoint`` has written into a folder."""
    return [path for path in folder.glob("*.safetensors") if TENSORS.fullmatch(path.name) and path.is_file()]


def check_no_checkpoints(folder: Path) -> None:
    """Raise OptionError where the folder holds checkpoints: hours of training are not thrown away unasked."""
    if _tensor_files(folder):
        raise OptionError(
            f"{folder} holds checkpoints of an interrupted fine-tuning; continue it with --resume (in Python: "
            "resume=True), or delete the folder."
        )


def delete_checkpoints(folder: Path) -> None:
    """Delete the checkpoints in a folder, and the folder if nothing else is in it: weights of others stay."""
    for path in _tensor_files(folder):
        path.with_name(f"{path.name.split('.')[0]}.json").unlink(missing_ok=True)
        path.unlink()
    with contextlib.suppress(OSError):  # it is missing, or holds files of others
        folder.rmdir()


def write_checkpoint(folder: Path, name: str, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
    """Write a checkpoint under ``name``, in place of an earlier one: tensors, and ``values`` as JSON.

    Raises ModelError where the folder cannot be written.
    """
    from safetensors.torch import save

    data = save({key: value.detach().cpu().contiguous() for key, value in tensors.items()})
    digest = hashlib.sha256(data).hexdigest()
    tensor_file = f"{name}.{digest[:16]}.safetensors"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomic(folder / tensor_file, data)
        write_atomic(folder / f"{name}.json", json.dumps({**values, "tensors": tensor_file, "sha256": digest}))
        for path in _tensor_files(folder):
            if path.name.startswith(f"{name}.") and path.name != tensor_file:
                path.unlink()
    except OSError as error:
        raise ModelError(f"The checkpoint {folder} cannot be written: {error.strerror or error}.") from None


def read_checkpoint(folder: Path, name: str, settings: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """Read the tensors and values of the checkpoint ``name``; None where there is none.

    ``settings`` is compared with the value of that name. Raises OptionError where they differ, ModelError where the
    checkpoint is damaged.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = folder / f"{name}.json"
    if not path.exists():
        return None
    try:
        values = read_json(path, MAX_JSON_BYTES)
        tensor_file = str(values["tensors"])
        if Path(tensor_file).name != tensor_file:
            raise ValueError("it names a file outside its folder")
        data = read_limited(folder / tensor_file, MAX_TENSOR_BYTES)
        if hashlib.sha256(data).hexdigest() != values["sha256"]:
            raise ValueError("the tensors are not those it was written with")
        tensors = load(data)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise ModelError(
            f"The checkpoint {path} is damaged ({error}); delete it, and delete the folder and start anew."
        ) from None
    if values.get("settings") != settings:
        raise OptionError(
            f"The checkpoint {path} was written with other data or options; repeat those, or delete the folder."
        )
    return tensors, values
