"""Mutations of bytes and of JSON values; the same generator gives the same mutations."""

from __future__ import annotations

import copy
import random
import re
from collections.abc import Callable
from typing import Any

EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NUMBERS = (b"0", b"-1", b"65536", b"2147483648", b"99999999999", b"1e308", b"1e999", b"9" * 400, b"0.5", b"nan")
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 2**64, 10**400, 0.5, -0.5, 1e308, 1e-320, float("nan"), float("inf")),
    *("", "x", "x" * 100_000, "\x00", "\ud800", "../../etc/passwd", "1", "nan", "\x1b[31m\u202e\n", "=1+1"),
    *([], {}, [[]], [None], {"": None}, [0] * 100_000, {str(i): i for i in range(10_000)}),
)
DEPTH = 900  # of lists within lists


def mutate(rng: random.Random, data: bytes, times: int) -> bytes:
    """Apply ``times`` mutations: bits, bytes, fields of a length, cuts, copies, junk, and numbers written as text."""
    result = bytearray(data)
    for _ in range(times):
        rng.choice(MUTATIONS)(rng, result)
    return bytes(result)


def _place(rng: random.Random, data: bytearray) -> int:
    """Return a place in the data, often in its first bytes: there the headers are."""
    return rng.randrange(min(len(data), rng.choice((32, 256, len(data)))) or 1) if data else 0


def _flip_bit(rng: random.Random, data: bytearray) -> None:
    if data:
        data[_place(rng, data)] ^= 1 << rng.randrange(8)


def _set_field(rng: random.Random, data: bytearray) -> None:
    size, order = rng.choice((1, 2, 4, 8)), rng.choice(("little", "big"))
    place = _place(rng, data)
    data[place : place + size] = (rng.choice(EXTREMES) % 256**size).to_bytes(size, order)


def _cut_off(rng: random.Random, data: bytearray) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _delete(rng: random.Random, data: bytearray) -> None:
    place = _place(rng, data)
    del data[place : place + rng.choice((1, 4, 64, 1024))]


def _repeat(rng: random.Random, data: bytearray) -> None:
    place = _place(rng, data)
    data[place:place] = data[place : place + rng.choice((1, 8, 64, 1024))] * rng.choice((1, 2, 100))


def _insert(rng: random.Random, data: bytearray) -> None:
    place = _place(rng, data)
    data[place:place] = rng.choice((bytes(rng.choice((1, 64, 4096))), b"\xff" * 16, rng.randbytes(16)))


def _splice(rng: random.Random, data: bytearray) -> None:
    source, target, size = _place(rng, data), _place(rng, data), rng.choice((4, 64, 1024))
    data[target : target + size] = data[source : source + size]


def _set_number(rng: random.Random, data: bytearray) -> None:
    if found := list(re.finditer(rb"-?\d[\d.e-]*", data[:100_000])):
        match = rng.choice(found)
        data[match.start() : match.end()] = rng.choice(NUMBERS)


MUTATIONS: tuple[Callable[[random.Random, bytearray], None], ...] = (
    *(_flip_bit, _flip_bit, _set_field, _set_field, _set_number),
    *(_cut_off, _delete, _repeat, _insert, _splice),
)


def mutate_json(rng: random.Random, value: Any, times: int) -> Any:
    """Replace, delete or add ``times`` values anywhere in a JSON value, which stays as it is."""
    value = copy.deepcopy(value)
    for _ in range(times):
        parents = list(_containers(value))
        parent = rng.choice(parents) if parents else [value]
        keys = list(parent) if isinstance(parent, dict) else list(range(len(parent)))
        key = rng.choice(keys) if keys else None
        if key is None or rng.random() < 0.1:
            added = copy.deepcopy(rng.choice(ODD_VALUES))
            parent.update(odd=added) if isinstance(parent, dict) else parent.append(added)
        elif rng.random() < 0.2:
            del parent[key]
        else:
            is_deep = rng.random() < 0.05 and len(parents) < DEPTH  # one alone: two could not be written
            parent[key] = _deep() if is_deep else copy.deepcopy(rng.choice(ODD_VALUES))
    return value


def _deep() -> Any:
    value: Any = 0
    for _ in range(DEPTH):
        value = [value]
    return value


def _containers(value: Any) -> list[Any]:
    found, pending = [], [value]
    while pending:
        container = pending.pop()
        if isinstance(container, dict | list):
            found.append(container)
            pending += list(container.values() if isinstance(container, dict) else container)[:200]
    return found
