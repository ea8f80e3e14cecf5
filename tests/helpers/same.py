"""Whether two objects hold the same values, of which arrays and dataclasses of them have no one answer."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass

import numpy as np


def assert_same(found, expected, where="it", left_out=()):
    """Compare values of dataclasses, mappings, sequences and arrays; fields named ``left_out`` may differ."""
    assert type(found) is type(expected), where
    if is_dataclass(expected):
        for name in (field.name for field in fields(expected) if field.name not in left_out):
            assert_same(getattr(found, name), getattr(expected, name), f"{where}.{name}", left_out)
    elif isinstance(expected, np.ndarray):
        assert found.dtype == expected.dtype, where
        np.testing.assert_array_equal(found, expected, where)
    elif isinstance(expected, Mapping):
        assert list(found) == list(expected), where
        for key in expected:
            assert_same(found[key], expected[key], f"{where}[{key!r}]", left_out)
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for i, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_same(one, other, f"{where}[{i}]", left_out)
    else:
        assert found == expected or expected != expected, where  # the latter: NaN
