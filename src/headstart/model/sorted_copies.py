"""Images copied into a folder for each predicted class, or for each label that they have."""

from __future__ import annotations

import io
from pathlib import Path, PurePath

from PIL import Image

from headstart.data import Dataset
from headstart.files import add_file, escape_file_name
from headstart.model.label_predictions import MultiLabelPredictions
from headstart.model.predictions import Predictions

# No class has one of these folders: escape_file_name escapes an underscore at the start.
NONE_OF_THESE = "_none_of_these"
NO_LABEL = "_no_label"


def copy_sorted(dataset: Dataset, predictions: Predictions, folder: Path) -> int:
    """Copy each image of ``predictions`` to ``folder/CLASS/NAME``; return how many.

    ``dataset`` is what they are predictions for. An image of several labels is copied to the folder of each, one of
    none to ``_no_label``, and a rejected one to ``_none_of_these`` alone. Names of classes and images are those of
    ``files.escape_file_name``; no file is overwritten, and nothing is written where a copy is there already. Raises
    OSError.
    """
    is_rejected = predictions.is_rejected
    for i, (path, names) in enumerate(zip(predictions.paths, _names(predictions), strict=True)):
        rejected = is_rejected is not None and bool(is_rejected[i])
        folders = [NONE_OF_THESE] if rejected else [escape_file_name(name) for name in names] or [NO_LABEL]
        data, file_name = dataset.read(int(predictions.rows[i])), escape_file_name(PurePath(path).name)
        if not isinstance(data, bytes):
            stream = io.BytesIO()
            Image.fromarray(data).save(stream, "PNG")
            data, file_name = stream.getvalue(), f"{file_name}.png"
        for name in folders:
            add_file(folder / name, file_name, data)
    return len(predictions)


def _names(predictions: Predictions) -> list[list[str]]:
    """Return the predicted class of each image, or its labels."""
    if isinstance(predictions, MultiLabelPredictions):
        return [predictions.names(i) for i in range(len(predictions))]
    return [[predictions.classes[c]] for c in predictions.predicted]
