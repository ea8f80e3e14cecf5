"""The data that the page's script reads: columns of numbers and texts, one entry per image."""

from __future__ import annotations

from headstart.report.data import SETS, Report
from headstart.report.text import SET_LABELS, SET_TITLES, clip, clip_start, plain
from headstart.report.thresholds import THRESHOLDS
from headstart.report.view.class_table import coloured_classes

MAX_PATH = 100  # last characters of a path


def script_data(report: Report) -> dict[str, object]:
    """Return the data for the script. Names of classes that no image has or gets are left empty."""
    images = report.images
    used_classes = {c for i in images for c in (i.true_class, i.predicted_class, i.second_class)}
    used_classes |= {t.class_index for summary in report.evaluations for t in summary.thresholds}
    return {
        "classNames": [clip(plain(name)) if c in used_classes else "" for c, name in enumerate(report.classes)],
        "paths": [clip_start(plain(image.path), MAX_PATH) for image in images],
        "setIndex": [image.set_index for image in images],
        "trueClass": [image.true_class for image in images],
        "predictedClass": [image.predicted_class for image in images],
        "secondClass": [image.second_class for image in images],
        "confidence": [round(100 * image.confidence, 1) for image in images],
        "secondConfidence": [round(100 * image.second_confidence, 1) for image in images],
        "group": [image.group for image in images],
        "thresholds": THRESHOLDS,
        "classThresholds": [
            {
                "set": SETS.index(summary.name),
                "classes": {
                    str(t.class_index): [t.count, t.found, t.false_alarms] for t in summary.thresholds if t.count
                },
            }
            for summary in report.evaluations
        ],
        "projections": [{"x": projection.x, "y": projection.y} for projection in report.projections],
        "tileSide": report.sprite.side,
        "spriteColumns": report.sprite.columns,
        "colouredClasses": coloured_classes(images),
        "setLabels": [SET_LABELS[name] for name in SETS],
        "setTitles": [SET_TITLES[name] for name in SETS],
    }
