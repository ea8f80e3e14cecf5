"""The data that the page's script reads: columns of numbers and texts, one entry per image."""

from __future__ import annotations

from headstart.report.data import SETS, Report
from headstart.report.text import SET_LABELS, clip, clip_start, plain
from headstart.report.view.class_table import coloured_classes

MAX_PATH = 160  # last characters of a path


def script_data(report: Report) -> dict[str, object]:
    """Return the data for the script. Names of classes that no image has or gets are left empty."""
    images = report.images
    used_classes = {c for image in images for c in (image.true_class, image.predicted_class)}
    return {
        "classNames": [clip(plain(name)) if c in used_classes else "" for c, name in enumerate(report.classes)],
        "paths": [clip_start(plain(image.path), MAX_PATH) for image in images],
        "setIndex": [image.set_index for image in images],
        "trueClass": [image.true_class for image in images],
        "predictedClass": [image.predicted_class for image in images],
        "confidence": [round(100 * image.confidence, 1) for image in images],
        "projections": [{"x": projection.x, "y": projection.y} for projection in report.projections],
        "tileSide": report.sprite.side,
        "spriteColumns": report.sprite.columns,
        "colouredClasses": coloured_classes(images),
        "setLabels": [SET_LABELS[name] for name in SETS],
    }
