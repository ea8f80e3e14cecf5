"""Archives: zip and tar of every compression, with members that lie, lead out, link, or unpack to much."""

from __future__ import annotations

import io
import random
import struct
import tarfile
import zipfile
from pathlib import Path

from fuzz.images import image, seeds
from fuzz.mutate import EXTREMES, mutate

ODD_NAMES = (
    *(
        "",
        "/",
        ".",
        "..",
        "../../x.jpg",
        "/etc/x.jpg",
        "C:/x.jpg",
        "a\\..\\..\\x.jpg",
        "a/\0.jpg",
        "a//b/.jpg",
        "a/b.jpg",
    ),
    *(
        "a/" * 500 + "x.jpg",
        "a/" + "x" * 5_000 + ".jpg",
        "\x1b[31m\u202e/x.jpg",
        "é/é.jpg",
        "e\u0301/é.jpg",
        "a/x.jpg\n",
    ),
    *("train/a/x.jpg", "__MACOSX/a/._x.jpg", "t.csv", "a/t.zip", "a/=1+1.jpg", "\udcff/x.jpg"),
)
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
TAR_TYPES = (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.CONTTYPE)


def write(rng: random.Random, folder: Path, mutations: int) -> Path:
    """Write an archive into the folder and return its path."""
    members = [(f"{label}/{i}.jpg", dict(seeds())["a.jpg"]) for label in "ab" for i in range(2)]
    if mutations and rng.random() < 0.5:
        members += [(rng.choice(ODD_NAMES), image(rng, rng.choice((0, 2)))[1]) for _ in range(rng.choice((1, 5)))]
    if mutations and rng.random() < 0.1:
        members += [(f"c/{i}.jpg", b"") for i in range(20_000)]
    if mutations and rng.random() < 0.15:
        members.append(("b/bomb.png", bytes(rng.choice((10_000_000, 250_000_000)))))
    if rng.random() < 0.6:
        path, data = folder / "data.zip", _zip(rng, members, mutations)
    else:
        path, data = _tar(rng, folder, members, mutations)
    times = mutations if mutations and rng.random() < 0.6 else 0
    path.write_bytes(mutate(rng, data, times) if len(data) < 10_000_000 else data)
    return path


def _zip(rng: random.Random, members: list[tuple[str, bytes]], mutations: int) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", rng.choice(METHODS)) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name.encode("utf-8", "replace").decode() or "x")
            info.compress_type = rng.choice(METHODS)
            if mutations and rng.random() < 0.05:
                info.external_attr = rng.choice((0o120777 << 16, 0o010777 << 16, 0x10))
            archive.writestr(info, content)
            if not name:
                info.filename = ""
    data = bytearray(stream.getvalue())
    while mutations and rng.random() < 0.4:  # another size, method, flag or offset in a header
        signature, fields = rng.choice(((b"PK\1\2", (8, 10, 20, 24, 28, 30, 38, 42)), (b"PK\3\4", (6, 8, 18, 22, 26))))
        places = [i for i in range(len(data)) if data[i : i + 4] == signature] if len(data) < 100_000 else [0]
        struct.pack_into("<I", data, rng.choice(places) + rng.choice(fields), rng.choice(EXTREMES) % 2**32)
    return bytes(data)


def _tar(rng: random.Random, folder: Path, members: list[tuple[str, bytes]], mutations: int) -> tuple[Path, bytes]:
    ending, mode = rng.choice((("tar", "w"), ("tar.gz", "w:gz"), ("tar.bz2", "w:bz2"), ("tar.xz", "w:xz")))
    stream = io.BytesIO()
    formats = (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)
    format = rng.choice(formats[1:] if mutations else formats)
    with tarfile.open(fileobj=stream, mode=mode, format=format, encoding="utf-8", errors="surrogateescape") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            if mutations and rng.random() < 0.1:
                info.type, info.linkname = rng.choice(TAR_TYPES), rng.choice(ODD_NAMES)
            if mutations and rng.random() < 0.1 and format == tarfile.PAX_FORMAT:
                info.pax_headers = {
                    rng.choice(("size", "path", "GNU.sparse.map", "mtime")): rng.choice(("9" * 400, "-1"))
                }
            archive.addfile(info, io.BytesIO(content))
    return folder / f"data.{ending}", stream.getvalue()
