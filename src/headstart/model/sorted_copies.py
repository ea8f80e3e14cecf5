"""Images copied into a folder for each predicted class."""

from __future__ import annotations

import io
from pathlib import Path, PurePath

from PIL import Image

from headstart.data import Dataset
from headstart.files import add_file, escape_file_name
from headstart.model.predictions import Predictions

NONE_OF_THESE = "_none_of_these"  # no class has this folder: escape_file_name escapes an underscore at the start


def copy_sorted(dataset: Dataset, predictions: Predictions, folder: Path) -> int:
    """Copy each image of ``predictions`` to ``folder/CLASS/NAME``; return how many.

    ``dataset`` is what they are predictions for. Rejected images go to ``_none_of_these``. Names of classes and images
    are those of ``files.escape_file_name``; no file is overwritten, and nothing is written where a copy is there
    already. Raises OSError.
    """
    predicted, is_rejected = predictions.predicted, predictions.is_rejected
    for i, path in enumerate(predictions.paths):
        rejected = is_rejected is not None and bool(is_rejected[i])
        name = NONE_OF_THESE if rejected else escape_file_name(predictions.classes[predicted[i]])
        data, file_name = dataset.read(int(predictions.rows[i])), escape_file_name(PurePath(path).name)
        if not isinstance(data, bytes):
            stream = io.BytesIO()
            Image.fromarray(data).save(stream, "PNG")
            data, file_name = stream.getvalue(), f"{file_name}.png"
        add_file(folder / name, file_name, data)
    return len(predictions)
