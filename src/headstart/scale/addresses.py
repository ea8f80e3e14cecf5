"""Braces in paths and addresses, and what is known of the files behind them without reading them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from typing import Any

from headstart.data.reading import error_reason
from headstart.errors import DataError, OptionError

MAX_ADDRESSES = 100_000
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d{1,18})\.\.(\d{1,18})")
CONNECTIONS = 16  # to ask for the size of files behind addresses
# What file systems call the hash or version of a file, the surest first. Without one it is known by when it changed.
VERSIONS = (
    *("ETag", "etag", "md5Hash", "Content-MD5", "content_md5", "crc32c", "checksum"),
    *("LastModified", "last_modified", "Last-Modified", "mtime", "updated", "created"),
)


def expand_braces(pattern: str) -> list[str]:
    """Return the paths or addresses that a pattern stands for, in order.

    ``{000..999}`` are the numbers from one to the other, as wide as the first is written; ``{a,b}`` are alternatives.
    Text without braces stands for itself. Raises OptionError for braces that mean neither, and for more than
    ``MAX_ADDRESSES``.

    >>> expand_braces("{train,val}-{08..10}.tar")[:4]
    ['train-08.tar', 'train-09.tar', 'train-10.tar', 'val-08.tar']
    """
    parts = BRACES.split(pattern)  # text, the inside of braces, text, ...
    choices = [[part] if i % 2 == 0 else _choices(pattern, part) for i, part in enumerate(parts)]
    count = 1
    for options in choices:
        count *= len(options)
        _check_count(pattern, count)
    return list(dict.fromkeys("".join(chosen) for chosen in product(*choices)))


def has_braces(uri: str) -> bool:
    """Return whether a path or address is a pattern with braces, and no file of that name."""
    return BRACES.search(uri) is not None and not os.path.exists(uri)  # noqa: PTH110  # a Path raises for long names


def _choices(pattern: str, inside: str) -> list[str]:
    if found := RANGE.fullmatch(inside):
        first, last = int(found[1]), int(found[2])
        if last < first:
            raise OptionError(f"{{{inside}}} in {pattern} counts down; write the smaller number first.")
        _check_count(pattern, last - first + 1)
        return [f"{number:0{len(found[1])}}" for number in range(first, last + 1)]
    if "," in inside:
        return inside.split(",")
    raise OptionError(f"{{{inside}}} in {pattern} cannot be read; write {{000..999}} or {{a,b}}.")


def _check_count(pattern: str, count: int) -> None:
    if count > MAX_ADDRESSES:
        raise OptionError(f"{pattern} stands for more than {MAX_ADDRESSES:,} files; give fewer, larger ones.")


def common_folder(addresses: Sequence[str]) -> str:
    """Return the longest start that all paths or addresses share and that ends with '/'; empty where there is none.

    >>> common_folder(["s3://b/a/0.tar", "s3://b/b/0.tar"])
    's3://b/'
    """
    first, last = min(addresses), max(addresses)  # what these two share, all between them share
    length = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))
    return first[: first.rfind("/", 0, length) + 1]


def identities(addresses: Sequence[str]) -> Iterator[tuple[int, str] | str]:
    """Yield, for each path or address, its size in bytes (-1: unknown) and what tells its content from another.

    That is the hash or the version that its file system names, or else when it was changed. Where a file is not there,
    or cannot be asked for, the reason is yielded instead.
    """
    with ThreadPoolExecutor(CONNECTIONS) as pool:
        yield from pool.map(_identity, addresses)


def identity(uri: str) -> tuple[int, str]:
    """Return the size and version of one file, as ``identities`` does. Raises DataError."""
    found = _identity(uri)
    if isinstance(found, str):
        raise DataError(f"{uri} cannot be read: {found}; check the address.")
    return found


def folder_identities(uri: str) -> dict[str, tuple[int, str]]:
    """Return size and version of the files in a folder behind an address, by their names below it. Raises DataError."""
    import fsspec

    try:
        file_system, root = fsspec.core.url_to_fs(uri)
        listing = file_system.find(root, detail=True)
    except Exception as error:  # every back end of fsspec raises its own
        raise DataError(f"{uri} cannot be read: {error_reason(error)}; check the address.") from None
    start = file_system._strip_protocol(root).rstrip("/") + "/"
    return {path.removeprefix(start): _from_info(info) for path, info in listing.items()}


def _identity(uri: str) -> tuple[int, str] | str:
    try:
        if "://" not in uri and "::" not in uri:
            status = os.stat(uri)  # noqa: PTH116  # a Path each is slow for thousands
            return status.st_size, str(status.st_mtime_ns)
        import fsspec

        file_system, path = fsspec.core.url_to_fs(uri)
        return _from_info(file_system.info(path))
    except FileNotFoundError:
        return "there is nothing"
    except Exception as error:  # every back end of fsspec raises its own
        return error_reason(error)


def _from_info(info: Mapping[str, Any]) -> tuple[int, str]:
    size = info.get("size")
    version = next((f"{name}={info[name]}" for name in VERSIONS if info.get(name)), "")
    return (size if isinstance(size, int) and size >= 0 else -1), version[:1000]
