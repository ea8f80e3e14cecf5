"""TIFF files of any number of bands, which Pillow does not write."""

import struct

import numpy as np

SHORT, LONG = 3, 4


def tiff(pixels: np.ndarray, photometric: int, extra: tuple[int, ...] = (), *, planar: bool = False) -> bytes:
    """Write ``pixels`` [height, width, bands] as an uncompressed TIFF, with one strip, or with one for each band.

    ``photometric`` is 1 for grey and 2 for RGB; ``extra`` says what each further band is: 0 not known, 2 opacity.
    """
    height, width, bands = pixels.shape
    planes = bands if planar else 1
    data = (pixels.transpose(2, 0, 1) if planar else pixels).tobytes()
    values = {
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [pixels.dtype.itemsize * 8] * bands),
        259: (SHORT, [1]),
        262: (SHORT, [photometric]),
        273: (LONG, [0] * planes),
        277: (SHORT, [bands]),
        278: (LONG, [height]),
        279: (LONG, [len(data) // planes] * planes),
        284: (SHORT, [2 if planar else 1]),
        **({338: (SHORT, list(extra))} if extra else {}),
        339: (SHORT, [3 if pixels.dtype.kind == "f" else 1] * bands),
    }
    beside = {tag: len(v) * (2 if kind == SHORT else 4) for tag, (kind, v) in values.items()}
    end = 8 + 2 + 12 * len(values) + 4
    start = end + sum(size for size in beside.values() if size > 4)
    values[273] = (LONG, [start + i * (len(data) // planes) for i in range(planes)])
    entries = further = b""
    for tag, (kind, numbers) in values.items():
        packed = struct.pack(f"<{len(numbers)}{'H' if kind == SHORT else 'I'}", *numbers)
        if len(packed) > 4:
            further, packed = further + packed, struct.pack("<I", end + len(further))
        entries += struct.pack("<HHI", tag, kind, len(numbers)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<IH", 8, len(values)) + entries + struct.pack("<I", 0) + further + data
