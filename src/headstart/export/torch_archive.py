"""The check of a ``.pt2`` file before PyTorch loads it.

``torch.export.load`` trusts what it loads: it unpickles weights without ``weights_only`` where their description says
so, unpickles the sample inputs, falling back to all of pickle where ``weights_only`` fails, evaluates the expressions
of shapes as Python (``sympy.sympify``), looks up functions by their names, and compiles Python of the names of tensors.
An export needs none of it. So every member of the archive, and every key and text of its program, must be one that
Headstart's own export has, nothing may be pickled, and what PyTorch is given is an archive written anew from what was
checked: what two readers of zip or JSON would read differently is not in it.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

from headstart.errors import ModelError, untrusted

MODEL, WEIGHTS, CONSTANTS = "models/model.json", "data/weights/model_weights_config.json", "data/constants"
SAMPLE_INPUTS = "data/sample_inputs/model.pt"  # a pickle; ours is empty
SMALL = ("archive_format", "archive_version", "byteorder", ".data/version", ".data/serialization_id")
WEIGHT = re.compile(r"data/weights/weight_\d{1,6}")
EXTRA = re.compile(r"extra/[a-z_]{1,40}\.(txt|json)")
MAX_JSON_BYTES = 64 * 2**20
MAX_BYTES = 2 * 2**30
MAX_MEMBERS = 20_000
MAX_EXPRESSION = 1000  # characters
ATEN = """
_assert_tensor_metadata.default add.Tensor argmax.default avg_pool2d.default batch_norm.default cat.default
clamp.default clone.default conv2d.default div.Tensor erf.default exp.default expand.default flatten.using_ints
gelu.default hardswish.default index_select.default layer_norm.default log.default matmul.default max_pool2d.default
mean.dim mul.Tensor neg.default pad.default permute.default pow.Tensor_Tensor relu.default remainder.Scalar
reshape.default select.int sigmoid.default slice.Tensor softmax.int split.Tensor split_with_sizes.default sqrt.default
squeeze.dims sub.Tensor sym_size.int t.default tanh.default to.dtype unsqueeze.default
"""
OPERATIONS = frozenset(f"torch.ops.aten.{name}" for name in ATEN.split())
ALL_KEYS = """
arg as_bool as_device as_expr as_float as_floats as_int as_ints as_layout as_name as_none as_scalar_type as_string
as_sym_int as_sym_ints as_tensor as_tensors aten buffer buffer_name config custom_obj_values device dtype expr_str
forward_arg_names fqn graph graph_module guards_code hint in_spec index input_specs inputs
is_hop_single_tensor_return is_param is_single_tensor_return kind layout major max_val metadata min_val minor
module_call_graph name nodes opset_version out_spec output_specs outputs path_name persistent range_constraints
requires_grad schema_version signature sizes storage_offset strides sym_bool_values sym_float_values sym_int_values
target tensor_meta tensor_values torch_version treespec_namedtuple_fields type use_pickle user_input user_output
verifiers
"""
KEYS = frozenset(ALL_KEYS.split())
NAMED = frozenset({"config", "tensor_values", "range_constraints", "sym_int_values"})  # their keys are names
EMPTY = frozenset(
    {"metadata", "guards_code", "custom_obj_values", "sym_bool_values", "sym_float_values"}
    | {"treespec_namedtuple_fields"}
)
NAME = re.compile(r"[A-Za-z0-9_.+-]{0,200}")
# The size of the batch, "Symbol('s81', positive=True, integer=True)", and products and sums of it and of numbers.
TERM = re.compile(r"Symbol\('s\d{1,6}', positive=True, integer=True\)|Integer\(-?\d{1,18}\)")
PRODUCT = re.compile(r"(Mul|Add)\(#(, #)*\)")


def checked_archive(content: bytes) -> tuple[bytes, dict[str, str]]:
    """Return an archive with what was checked of ``content``, and its extra files by name. Raises ModelError."""
    with untrusted("The .pt2 file", ModelError):
        members = dict(_members(content))
        extra = {name.removeprefix("extra/"): data.decode() for name, data in members.items() if EXTRA.fullmatch(name)}
        weights = json.loads(members[WEIGHTS])
        model = json.loads(members[MODEL])
        if json.loads(members[f"{CONSTANTS}/model_constants_config.json"]) != {"config": {}}:
            raise ValueError("it has constants beside its weights")
        _check_weights(weights, members)
        _check_values(model, "")
        members[WEIGHTS], members[MODEL] = json.dumps(weights).encode(), json.dumps(model).encode()
        return _write(members), extra


def _members(content: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield the members of an archive by their paths within its one folder."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        infos = archive.infolist()
        names = [str(PurePosixPath(*PurePosixPath(info.filename).parts[1:])) for info in infos]
        if len(infos) > MAX_MEMBERS or len(set(names)) < len(names):
            raise ValueError("it has too many members, or two of one name")
        for info, name in zip(infos, names, strict=True):
            small = name in (MODEL, WEIGHTS, f"{CONSTANTS}/model_constants_config.json", *SMALL)
            if not (small or name == SAMPLE_INPUTS or WEIGHT.fullmatch(name) or EXTRA.fullmatch(name)):
                raise ValueError(f"it has a member {name[:80]!r}, which no export has")
            limit = 0 if name == SAMPLE_INPUTS else MAX_BYTES if WEIGHT.fullmatch(name) else MAX_JSON_BYTES
            if info.compress_type != zipfile.ZIP_STORED or info.file_size > limit:
                raise ValueError(f"{name} is compressed, or has {info.file_size:,} bytes where {limit:,} are allowed")
            yield name, archive.read(info)


def _check_weights(weights: Mapping[str, Any], members: Mapping[str, bytes]) -> None:
    """Raise ValueError for weights that are pickled, or larger than the bytes that the archive has of them."""
    _check_values(weights, "")
    for about in weights["config"].values():
        if about["use_pickle"] is not False:
            raise ValueError("its weights are pickled")
        path = f"data/weights/{about['path_name']}"
        if not WEIGHT.fullmatch(path):
            raise ValueError(f"it has weights in {path[:80]!r}")
        count = 1
        for size in about["tensor_meta"]["sizes"]:
            if type(size["as_int"]) is not int or size["as_int"] < 0:
                raise ValueError("its weights have no fixed size")
            count *= size["as_int"]
        if count > len(members[path]):  # every number takes a byte or more
            raise ValueError("its weights are larger than what the archive has of them")


def _check_values(value: Any, key: str) -> None:
    """Raise ValueError for a key or a text that no export has. ``key`` is that under which the value lies."""
    if key in EMPTY and value:
        raise ValueError(f"it has {key}")
    if isinstance(value, dict):
        for name, part in value.items():
            if not (NAME.fullmatch(name) if key in NAMED else name in KEYS):
                raise ValueError(f"it has a key {name[:80]!r}, which no export has")
            _check_values(part, "" if key in NAMED else name)
    elif isinstance(value, list):
        for part in value:
            _check_values(part, key)
    elif isinstance(value, str):
        if key in ("in_spec", "out_spec"):
            _check_structure(json.loads(value)[1])
        elif key == "target":
            if value not in OPERATIONS:
                raise ValueError(f"it has the operation {value[:80]!r}, which is not one of those that only compute")
        elif not (_is_expression(value) if key == "expr_str" else NAME.fullmatch(value)):
            raise ValueError(f"it has a text {value[:80]!r}, which no export has")


def _is_expression(text: str) -> bool:
    """Return whether an expression holds sizes alone, with what is reduced written as #."""
    if len(text) > MAX_EXPRESSION:
        return False
    before, text = "", TERM.sub("#", text)
    while before != text:
        before, text = text, PRODUCT.sub("#", text)
    return text == "#"


def _check_structure(structure: Any) -> None:
    """Raise ValueError where inputs or outputs are anything but tuples and dictionaries of tensors."""
    if structure["type"] not in (None, "builtins.tuple", "builtins.dict"):
        raise ValueError("its inputs or outputs are neither tuples nor dictionaries")
    names = json.loads(structure["context"] or "null") or []
    if not all(isinstance(name, str) and NAME.fullmatch(name) for name in names):
        raise ValueError("its outputs have no names")
    for child in structure["children_spec"]:
        _check_structure(child)


def _write(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members.items():
            archive.writestr(f"model/{name}", data)
    return stream.getvalue()
