"""A scikit-learn estimator of rows of numbers over ``ImageClassifier``: each row becomes a small image."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.validation import check_is_fitted, validate_data

import headstart as hs

SIDE = 32  # pixels


class RowClassifier(ClassifierMixin, BaseEstimator):
    """Classify rows of numbers [n, d] as images of d grey blocks. Labels, and all that is not X, go on untouched."""

    def __init__(self, head: str = "lda", seed: int = 0) -> None:
        self.head = head
        self.seed = seed

    def fit(self, X: Any, y: Any) -> RowClassifier:
        X = validate_data(self, X)
        self.range_ = X.min(axis=0), X.max(axis=0)
        classifier = hs.ImageClassifier(
            "headstart-s",
            head=self.head,
            seed=self.seed,
            cut="features",
            group_by="none",
            cache=False,
            runtime="onnxruntime",
        )
        self.classifier_ = classifier.fit(draw(X, *self.range_), y)
        self.classes_ = classifier.classes_
        return self

    def predict(self, X: Any) -> NDArray[Any]:
        images = self._images(X)
        return self.classifier_.predict(images)

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        images = self._images(X)
        return self.classifier_.predict_proba(images)

    def transform(self, X: Any) -> NDArray[np.float32]:
        images = self._images(X)
        return self.classifier_.transform(images)

    def fit_transform(self, X: Any, y: Any) -> NDArray[np.float32]:
        return self.fit(X, y).transform(X)

    def get_feature_names_out(self, input_features: Any = None) -> NDArray[Any]:
        check_is_fitted(self)
        return self.classifier_.get_feature_names_out(input_features)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.transformer_tags = hs.ImageClassifier().__sklearn_tags__().transformer_tags
        return tags

    def _images(self, X: Any) -> list[NDArray[np.uint8]]:
        check_is_fitted(self)
        return draw(validate_data(self, X, reset=False), *self.range_)


def draw(X: NDArray[Any], low: NDArray[Any], high: NDArray[Any]) -> list[NDArray[np.uint8]]:
    """Draw rows [n, d] as grey images of blocks, row by row on a square grid; ``low`` [d] is black, ``high`` white."""
    count, width = X.shape
    columns = int(np.ceil(np.sqrt(width)))
    side = SIDE // columns
    span = np.where(high > low, high - low, 1)
    blocks = np.zeros((count, columns * columns), np.uint8)
    blocks[:, :width] = np.rint(np.clip((X - low) / span, 0, 1) * 255)
    grids = blocks.reshape(count, columns, columns)
    return list(grids.repeat(side, axis=1).repeat(side, axis=2))
