"""Tensors of the Open Inference Protocol v2, as JSON, or as raw bytes behind the JSON (its binary tensor extension).

Numbers are little-endian; elements of BYTES are each preceded by their length in 4 bytes. In JSON, elements of BYTES
that come in are base64, which the protocol leaves open (kserve/open-inference-protocol#12); those that go out are text.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import ImageError
from headstart.files import encode, escape_name
from headstart.serve.predict import RequestError, decode_base64

DATATYPES: dict[str, np.dtype[Any]] = {"UINT8": np.dtype("<u1"), "FP32": np.dtype("<f4"), "BOOL": np.dtype("?")}
Tensor = NDArray[Any] | list[str]  # texts are of type BYTES


@dataclass(frozen=True)
class Given:
    """A tensor of a request: its name, type and shape, and its data, in JSON or as bytes."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    data: Any

    @classmethod
    def of(cls, value: Any) -> tuple[Given, int | None]:
        """Read an entry of ``inputs``; also return how many bytes of it stand behind the JSON. Raises RequestError."""
        if not isinstance(value, dict):
            raise RequestError("An input cannot be read; expected name, shape, datatype and data.")
        name, datatype, shape = value.get("name"), value.get("datatype"), value.get("shape")
        if not isinstance(name, str) or not isinstance(datatype, str):
            raise RequestError("An input has no name or datatype.")
        if not isinstance(shape, list) or not all(type(side) is int and 0 <= side < 2**31 for side in shape):
            raise RequestError(f"The shape of input {name!r} cannot be read; expected whole numbers.")
        parameters = value.get("parameters") or {}
        size = parameters.get("binary_data_size") if isinstance(parameters, dict) else None
        if size is None and not isinstance(value.get("data"), list):
            raise RequestError(f"Input {name!r} has no data.")
        if size is not None and (type(size) is not int or size < 0 or "data" in value):
            raise RequestError(f"binary_data_size of input {name!r} cannot be used, or stands beside data.")
        return cls(name, datatype, tuple(shape), value.get("data")), size

    def numbers(self) -> NDArray[Any]:
        """Return the values in their shape. Raises RequestError."""
        dtype, count = DATATYPES[self.datatype], math.prod(self.shape)
        if isinstance(self.data, bytes):
            if len(self.data) != count * dtype.itemsize:
                raise RequestError(
                    f"Input {self.name!r} has {len(self.data):,} bytes; its shape takes {count * dtype.itemsize:,}."
                )
            return np.frombuffer(self.data, dtype).reshape(self.shape)
        values, shape = _flat(self.data, len(self.shape))
        if shape not in (self.shape, (count,)):
            raise RequestError(f"The data of input {self.name!r} do not have its shape {list(self.shape)}.")
        try:  # not by NumPy, which makes all as long as the longest text among them
            data = bytes(values) if {*map(type, values)} <= {int} else None
        except ValueError:
            data = None
        if data is None:
            raise RequestError(f"The data of input {self.name!r} are no whole numbers from 0 to 255.")
        return np.frombuffer(data, np.uint8).astype(dtype).reshape(self.shape)

    def elements(self) -> list[bytes]:
        """Return the elements of BYTES of shape [n]. Raises RequestError."""
        found = _split(self.data, self.name) if isinstance(self.data, bytes) else _decoded(self.data, self.name)
        if self.shape != (len(found),):
            raise RequestError(f"Input {self.name!r} has {len(found)} elements; its shape is {list(self.shape)}.")
        return found


def _flat(data: list[Any], depth: int) -> tuple[list[Any], tuple[int, ...]]:
    """Return the values of lists of lists, and their shape; lists of different lengths stay values."""
    shape: tuple[int, ...] = (len(data),)
    while len(shape) < depth and data and all(type(value) is list and len(value) == len(data[0]) for value in data):
        shape = (*shape, len(data[0]))
        data = [*chain.from_iterable(data)]
    return data, shape


def _split(data: bytes, name: str) -> list[bytes]:
    elements, position = [], 0
    while position < len(data):
        if position + 4 > len(data):
            raise RequestError(f"The bytes of input {name!r} end within a length.")
        (size,) = struct.unpack_from("<I", data, position)
        position += 4
        if position + size > len(data):
            raise RequestError(f"The bytes of input {name!r} end within an element of {size:,} bytes.")
        elements.append(data[position : position + size])
        position += size
    return elements


def _decoded(data: Any, name: str) -> list[bytes]:
    elements = []
    for text in data:
        element = decode_base64(text) if isinstance(text, str) else ImageError("no text")
        if isinstance(element, ImageError):
            raise RequestError(f"Elements of input {name!r} are base64 in JSON; or send the tensor as binary data.")
        elements.append(element)
    return elements


def split_body(body: bytes, header: str | None) -> tuple[bytes, bytes]:
    """Return the JSON of a body and what stands behind it. Raises RequestError."""
    if header is None:
        return body, b""
    if not header.isdecimal() or len(header) > 9 or int(header) > len(body):
        raise RequestError(f"Inference-Header-Content-Length {header[:20]!r} is not within the body.")
    return body[: int(header)], body[int(header) :]


def read_inputs(values: Any, binary: bytes) -> list[Given]:
    """Read the inputs of a request, of which ``binary`` stands behind the JSON. Raises RequestError."""
    if not isinstance(values, list) or not values:
        raise RequestError("The request has no inputs.")
    inputs, position = [], 0
    for value in values:
        given, size = Given.of(value)
        if size is not None:
            if position + size > len(binary):
                raise RequestError(f"The body ends within the {size:,} bytes of input {given.name!r}.")
            given = Given(given.name, given.datatype, given.shape, binary[position : position + size])
            position += size
        inputs.append(given)
    if position != len(binary):
        raise RequestError(f"{len(binary) - position:,} bytes at the end of the body belong to no input.")
    return inputs


def to_json(tensor: Tensor) -> list[Any]:
    """Return the flat data of a tensor for JSON."""
    flat: list[Any] = tensor if isinstance(tensor, list) else tensor.ravel().tolist()
    return flat


def to_bytes(tensor: Tensor) -> bytes:
    """Return the data of a tensor as raw bytes: texts as JSON has them, also where a name is not UTF-8."""
    if isinstance(tensor, list):
        elements = [encode(escape_name(text)) for text in tensor]
        return b"".join(struct.pack("<I", len(element)) + element for element in elements)
    return tensor.astype(tensor.dtype.newbyteorder("<"), copy=False).tobytes()


def datatype_of(tensor: Tensor) -> str:
    """Return the protocol's name of the type of a tensor."""
    if isinstance(tensor, list):
        return "BYTES"
    return next(name for name, dtype in DATATYPES.items() if dtype == tensor.dtype)


def shape_of(tensor: Tensor) -> Sequence[int]:
    """Return the shape of a tensor."""
    return [len(tensor)] if isinstance(tensor, list) else list(tensor.shape)
