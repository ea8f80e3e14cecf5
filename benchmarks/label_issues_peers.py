"""cleanlab's filters of several labels an image, on given probabilities and on those of logistic regression.

    python label_issues_peers.py SET.npz FOUND.npz

Runs in an environment of its own: ``pip install cleanlab``. The set holds ``vectors`` [n, d], ``labels`` [n, k] and the
held-out probabilities ``given`` [n, k]. What is found are masks: of cells [n, k] by
``find_multilabel_issues_per_class``, and of images [n] by ``find_label_issues(multi_label=True)``.
"""

from __future__ import annotations

import sys
import warnings

import numpy as np
from cleanlab.filter import find_label_issues
from cleanlab.multilabel_classification.filter import find_multilabel_issues_per_class
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

FILTERS = ("prune_by_noise_rate", "confident_learning")  # the default, and the strictest that its guide names


def main(source: str, target: str) -> None:
    warnings.simplefilter("ignore")
    data = np.load(source)
    labels = [np.flatnonzero(row).tolist() for row in data["labels"]]
    model = make_pipeline(StandardScaler(), OneVsRestClassifier(LogisticRegression(max_iter=1000)))
    own = cross_val_predict(model, data["vectors"], data["labels"].astype(int), cv=5, method="predict_proba")
    found = {}
    for name, probabilities in (("the same probabilities", data["given"]), ("logistic regression", own)):
        for filter_by in FILTERS:
            options = {"filter_by": filter_by, "n_jobs": 1}
            way = f"cleanlab {filter_by}; {name}"
            found[way] = np.asarray(find_multilabel_issues_per_class(labels, probabilities, **options), bool)
            found[f"{way}; images"] = np.asarray(
                find_label_issues(labels, probabilities, multi_label=True, **options), bool
            )
    np.savez(target, **found)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
