"""Image files: valid ones of every format, and ones whose headers claim much."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from fuzz.mutate import EXTREMES, mutate

HUGE = ((9_999, 9_999), (10_000, 10_000), (60_000, 1_600), (65_535, 65_535), (2**31 - 1, 1), (20_000, 20_000))


def image(rng: random.Random, mutations: int) -> tuple[str, bytes]:
    """Return the name and the bytes of an image file, valid if there are no mutations."""
    if mutations and rng.random() < 0.3:
        return rng.choice((huge_png, huge_tiff, huge_bmp, huge_netpbm, many_scans, claimed_size, chunk_bomb))(rng)
    name, data = rng.choice(seeds())
    return name, mutate(rng, data, mutations)


@cache
def seeds() -> tuple[tuple[str, bytes], ...]:
    """Return valid files of all formats that are read without an extra."""
    y, x = np.mgrid[:48, :64]
    rgb = Image.fromarray(np.stack([x * 4, y * 5, (x + y) % 256], 2).astype(np.uint8))
    grey16 = Image.fromarray((x * 1000 + y).astype(np.uint16))
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exif = Image.Exif()
    exif.update({0x0112: 6, 0x010F: "maker", 0x9286: b"comment"})
    saved: list[tuple[str, Image.Image, dict[str, Any]]] = [
        ("a.jpg", rgb, {}),
        ("progressive.jpg", rgb, {"progressive": True}),
        ("cmyk.jpg", rgb.convert("CMYK"), {}),
        ("grey.jpg", rgb.convert("L"), {}),
        ("exif.jpg", rgb, {"exif": exif, "icc_profile": profile}),
        ("a.png", rgb, {"icc_profile": profile, "exif": exif}),
        ("palette.png", rgb.quantize(64), {"transparency": 3}),
        ("16.png", grey16, {}),
        ("bit.png", rgb.convert("1"), {}),
        ("opacity.png", rgb.convert("RGBA"), {}),
        ("a.gif", rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
        ("a.webp", rgb, {"exif": exif}),
        ("lossless.webp", rgb.convert("RGBA"), {"lossless": True}),
        ("moving.webp", rgb, {"save_all": True, "append_images": [rgb.rotate(90)]}),
        *((f"{c}.tif", rgb, {"compression": c, "exif": exif}) for c in ("raw", "tiff_lzw", "tiff_deflate", "jpeg")),
        ("bit.tif", rgb.convert("1"), {"compression": "group4"}),
        ("16.tif", grey16, {}),
        ("float.tif", Image.fromarray((x / 64).astype(np.float32)), {}),
        ("ycbcr.tif", rgb.convert("YCbCr"), {}),
        ("a.bmp", rgb, {}),
        ("palette.bmp", rgb.quantize(16), {}),
        ("a.ppm", rgb, {}),
        ("16.pgm", grey16, {}),
        ("a.jp2", rgb, {}),
        ("tiles.jp2", rgb, {"irreversible": True, "tile_size": (32, 32)}),
        ("a.avif", rgb, {}),
    ]
    files = []
    for name, picture, options in saved:
        stream = io.BytesIO()
        if name.endswith(".jp2"):
            picture.save(stream, "JPEG2000", **options)
        else:
            picture.save(stream, Image.registered_extensions()[f".{name.rpartition('.')[2]}"], **options)
        files.append((name, stream.getvalue()))
    files.append(("12.tif", tiff(64, 48, 12, 1, bytes(64 * 48 * 3 // 2), compression=1)))
    files.append(("text.ppm", b"P3 # text\n2 2\n255\n" + b"1 2 3 " * 4))
    return tuple(files)


def tiff(width: int, height: int, bits: int, sample_format: int, data: bytes, compression: int = 8) -> bytes:
    """Build a grey TIFF of one strip."""
    values = {256: width, 257: height, 258: bits, 259: compression, 262: 1, 273: 0, 277: 1, 278: height}
    values |= {279: len(data), 339: sample_format}
    values[273] = 8 + 2 + 12 * len(values) + 4
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value % 2**32) for tag, value in sorted(values.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + bytes(4) + data


def png(width: int, height: int, bits: int, colours: int, data: bytes, chunks: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, colours, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(range(12))) + chunk(b"tRNS", b"\x80") if colours == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunks + palette + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@cache
def zeros(count: int) -> bytes:
    """Return a zlib stream of about ``count`` zeros: one block, repeated."""
    compressor = zlib.compressobj(9)
    start = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    block = compressor.compress(bytes(2**20)) + compressor.flush(zlib.Z_FULL_FLUSH)
    blocks = -(-count >> 20) or 1
    return start + block * (blocks - 1) + b"\x03\0" + struct.pack(">HH", (blocks << 20) % 65_521, 1)


def huge_png(rng: random.Random) -> tuple[str, bytes]:
    width, height = rng.choice(HUGE)
    bits, colours, samples = rng.choice(((8, 3, 1), (1, 3, 1), (16, 0, 1), (8, 2, 3), (8, 6, 4), (16, 2, 3), (8, 4, 2)))
    size = (1 + (width * bits * samples + 7) // 8) * height
    return "huge.png", png(width, height, bits, colours, zeros(min(size, 800_000_000)))


def huge_tiff(rng: random.Random) -> tuple[str, bytes]:
    width, height = rng.choice(HUGE)
    bits, sample_format = rng.choice(((8, 1), (16, 1), (32, 3), (64, 3), (12, 1), (1, 1), (16, 2), (32, 1)))
    data = zeros(min(width * height * bits // 8, 800_000_000))
    return "huge.tif", tiff(width, height, bits, sample_format, data)


def huge_bmp(rng: random.Random) -> tuple[str, bytes]:
    width, height = rng.choice(HUGE)
    rows = b"\xff\x01" * 40 + b"\0\0"  # runs of one colour (RLE8)
    header = struct.pack("<IiiHHIIiiII", 40, width, height * rng.choice((1, -1)), 1, 8, 1, 0, 0, 0, 256, 0)
    return "huge.bmp", b"BM" + struct.pack("<IHHI", 0, 0, 0, 1078) + header + bytes(1024) + rows * min(height, 10_000)


def huge_netpbm(rng: random.Random) -> tuple[str, bytes]:
    width, height = rng.choice(HUGE)
    kind = rng.choice((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"P7"))
    most = rng.choice((b"255", b"65535", b"1", b"0", b"-1.0", b"9" * 400))
    return "huge.ppm", kind + b" %d %d %s\n" % (width, height, most) + bytes(rng.choice((0, 10_000_000)))


def many_scans(rng: random.Random) -> tuple[str, bytes]:
    """Repeat the last scan of a progressive JPEG, with larger sides than its data fill."""
    data = dict(seeds())["progressive.jpg"]
    last = data.rindex(b"\xff\xda")
    data = data[:last] + data[last:-2] * rng.choice((10, 1_000, 12_000)) + data[-2:]
    return "scans.jpg", _with_size(data, *rng.choice(((64, 48), (600, 600), (4_000, 4_000), (10_000, 10_000))))


def claimed_size(rng: random.Random) -> tuple[str, bytes]:
    name = rng.choice(("a.jpg", "progressive.jpg", "cmyk.jpg", "grey.jpg"))
    return name, _with_size(dict(seeds())[name], *rng.choice((*HUGE, (0, 0), (9_000, 9_000))))


def _with_size(jpeg: bytes, width: int, height: int) -> bytes:
    place = max(jpeg.find(b"\xff\xc0"), jpeg.find(b"\xff\xc2")) + 5
    return jpeg[:place] + struct.pack(">HH", height % 65_536, width % 65_536) + jpeg[place + 4 :]


def chunk_bomb(rng: random.Random) -> tuple[str, bytes]:
    """Compressed text, profiles and unknown data beside the pixels of a PNG."""
    name = rng.choice((b"zTXt", b"iCCP", b"iTXt", b"eXIf", b"acTL", b"fdAT", b"tEXt", b"gAMA", b"cHRM", b"xxXx"))
    body = {b"zTXt": b"k\0\0" + zeros(500_000_000), b"iCCP": b"k\0\0" + zeros(500_000_000)}.get(name, rng.randbytes(40))
    extra = chunk(name, body) * rng.choice((1, 1, 20)) if len(body) < 2**20 else chunk(name, body)
    if rng.random() < 0.3:
        extra += struct.pack(">I", rng.choice(EXTREMES) % 2**32) + b"xxXx"
    return "chunks.png", png(8, 8, 8, 0, zlib.compress(bytes(72)), extra)
