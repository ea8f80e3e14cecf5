"""The file ``preprocess.py`` of a model folder: ``standalone.py`` with the numbers of the model."""

from __future__ import annotations

from functools import cache
from importlib import resources

from headstart.images.preprocess import Preprocess

SNIPPET_FILE = "preprocess.py"
DEFAULTS = {
    "height: int": "224",
    "width: int": "224",
    "resize: str": '"shortest"',
    "crop: float": "0.875",
    "interpolation: str": '"bilinear"',
    "sample_range: tuple[float, float] | None": "None",
    "decode: str": '"scaled"',
}


def preprocess_source(preprocess: Preprocess) -> str:
    """Return the text of a Python file that prepares images as ``preprocess`` does, with NumPy and Pillow alone."""
    text = _standalone()
    for parameter, default in DEFAULTS.items():
        value = getattr(preprocess, parameter.partition(":")[0])
        line = f"    {parameter} = {default},\n"
        written = f'"{value}"' if isinstance(value, str) else repr(value)
        text = text.replace(line, f"    {parameter} = {written},\n", 1)
    return text


@cache
def _standalone() -> str:
    return (resources.files("headstart.images") / "standalone.py").read_text("utf-8")
