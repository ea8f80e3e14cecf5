"""cleanvision, imagededup and cleanlab on one folder of class folders, each as its own guide says.

    python check_peers.py FOLDER FEATURES.npz        prints {"tool": {"finding": [paths]}} as JSON

Runs in an environment of its own: ``pip install torch torchvision "cleanlab[datalab]" cleanvision imagededup``.
``features`` [n, d] and ``paths`` [n] in the file are those of Headstart's backbone, for cleanlab to start from.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import warnings
from pathlib import Path

import numpy as np


def cleanvision(folder: Path) -> dict[str, list[str]]:
    """All of ``Imagelab.find_issues`` with its defaults; without the broken files, at the first of which it ends."""
    from cleanvision import Imagelab
    from PIL import Image

    readable = []
    for path in sorted(folder.rglob("*.*")):
        try:
            with Image.open(path) as picture:
                picture.load()
            readable.append(str(path))
        except OSError:
            continue
    lab = Imagelab(filepaths=readable)
    lab.find_issues(n_jobs=1, verbose=False)
    names = {"near_duplicates": "near_duplicate", "exact_duplicates": "near_duplicate", "blurry": "blurred",
             "dark": "dark", "odd_size": "tiny"}  # fmt: skip
    found: dict[str, list[str]] = {}
    for theirs, ours in names.items():
        rows = lab.issues[lab.issues[f"is_{theirs}_issue"]]
        found.setdefault(ours, []).extend(map(str, rows.index))
    return found


def imagededup(folder: Path) -> dict[str, list[str]]:
    """Perceptual hashes with the default distance of 10."""
    from imagededup.methods import PHash

    hasher = PHash(verbose=False)
    codes = hasher.encode_images(image_dir=folder, recursive=True, num_enc_workers=0)
    pairs = hasher.find_duplicates(encoding_map=codes, num_dist_workers=0)
    return {"near_duplicate": [str(folder / name) for name, others in pairs.items() if others]}


def cleanlab(features: np.ndarray, paths: list[str]) -> dict[str, list[str]]:
    """Label issues from five-fold probabilities of a logistic regression, outliers and copies from the features."""
    from cleanlab import Datalab
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.unique([Path(path).parent.name for path in paths], return_inverse=True)[1]
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probabilities = cross_val_predict(model, features, labels, cv=5, method="predict_proba")
    lab = Datalab({"label": labels}, label_name="label", verbosity=0)
    lab.find_issues(
        features=features, pred_probs=probabilities, issue_types={"label": {}, "outlier": {}, "near_duplicate": {}}
    )
    issues = lab.get_issues()
    names = {"label": "label_suspect", "outlier": "outlier", "near_duplicate": "near_duplicate"}
    lab.find_issues(features=features, pred_probs=probabilities, issue_types={kind: {} for kind in names})
    issues = lab.get_issues()
    return {
        ours: [path for path, wrong in zip(paths, issues[f"is_{theirs}_issue"], strict=True) if wrong]
        for theirs, ours in names.items()
    }  # fmt: skip


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    place, arrays = Path(sys.argv[1]), np.load(sys.argv[2])
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        result = {
            "cleanvision": cleanvision(place),
            "imagededup": imagededup(place),
            "cleanlab": cleanlab(arrays["features"], [str(path) for path in arrays["paths"]]),
        }
    print(json.dumps(result))
