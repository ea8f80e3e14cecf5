"""cleanvision, imagededup and cleanlab on one folder of class folders, each as its own guide describes it.

    python check_peers.py FOLDER FEATURES.npz        prints {"tool": {"kind of finding": [paths]}} as JSON

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

CLEANVISION_KINDS = {
    "near_duplicates": "near_duplicate",
    "exact_duplicates": "near_duplicate",
    "blurry": "blurred",
    "dark": "dark",
    "odd_size": "tiny",
}
CLEANLAB_KINDS = {"label": "label_issue", "outlier": "outlier", "near_duplicate": "near_duplicate"}


def run_cleanvision(folder: Path) -> dict[str, list[str]]:
    """All of ``Imagelab.find_issues`` with its defaults; without the broken files, at the first of which it ends."""
    from cleanvision import Imagelab
    from PIL import Image

    readable = []
    for path in sorted(folder.rglob("*.*")):
        try:
            with Image.open(path) as image:
                image.load()
            readable.append(str(path))
        except OSError:
            continue
    lab = Imagelab(filepaths=readable)
    lab.find_issues(n_jobs=1, verbose=False)
    files: dict[str, list[str]] = {}
    for issue, kind in CLEANVISION_KINDS.items():
        rows = lab.issues[lab.issues[f"is_{issue}_issue"]]
        files.setdefault(kind, []).extend(map(str, rows.index))
    return files


def run_imagededup(folder: Path) -> dict[str, list[str]]:
    """Perceptual hashes with the default distance of 10."""
    from imagededup.methods import PHash

    hasher = PHash(verbose=False)
    codes = hasher.encode_images(image_dir=folder, recursive=True, num_enc_workers=0)
    duplicates = hasher.find_duplicates(encoding_map=codes, num_dist_workers=0)
    return {"near_duplicate": [str(folder / name) for name, matches in duplicates.items() if matches]}


def run_cleanlab(features: np.ndarray, paths: list[str]) -> dict[str, list[str]]:
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
    lab.find_issues(features=features, pred_probs=probabilities, issue_types={issue: {} for issue in CLEANLAB_KINDS})
    issues = lab.get_issues()
    return {
        kind: [path for path, is_issue in zip(paths, issues[f"is_{issue}_issue"], strict=True) if is_issue]
        for issue, kind in CLEANLAB_KINDS.items()
    }


def main(folder: Path, features_file: str) -> None:
    warnings.simplefilter("ignore")
    arrays = np.load(features_file)
    with (
        Path(os.devnull).open("w") as null,
        contextlib.redirect_stdout(null),
        contextlib.redirect_stderr(null),
    ):
        findings = {
            "cleanvision": run_cleanvision(folder),
            "imagededup": run_imagededup(folder),
            "cleanlab": run_cleanlab(arrays["features"], [str(path) for path in arrays["paths"]]),
        }
    print(json.dumps(findings))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
