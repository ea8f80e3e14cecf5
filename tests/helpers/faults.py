"""Faults planted in a rendered dataset, and what ``check`` finds there."""

from collections.abc import Callable
from pathlib import Path

from PIL import Image

from headstart.check import check_dataset
from headstart.check.finding import CERTAINTIES, KINDS
from headstart.data import open_dataset
from headstart.features import Compute


def image_path(folder: Path, split: str = "train", label: str = "horses", number: int = 0) -> Path:
    """The image of a split and class that has this number in the order of names."""
    return sorted((folder / split / label).iterdir())[number]


def edit(
    path: Path, change: Callable[[Image.Image], Image.Image], target: Path | None = None, quality: int = 90
) -> str:
    """Write the changed image to ``target``, or in its own place; the path written."""
    with Image.open(path) as image:
        changed = change(image.convert("RGB"))
    changed.save(target or path, quality=quality)
    return str(target or path)


def mirror(image: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def findings_by_kind(folder: Path, backbone: str = "headstart-s") -> dict[str, list[set[str]]]:
    """The files of each finding, by kind; by default with the faster backbone, since many tests ask."""
    findings = check_dataset(open_dataset(folder), Compute("onnxruntime"), backbone=backbone).findings
    assert all(f.kind in KINDS and 0 <= f.confidence <= 1 and f.action and f.why for f in findings)
    assert all(f.certainty in CERTAINTIES for f in findings)
    return {kind: [set(f.files) for f in findings if f.kind == kind] for kind in KINDS}
