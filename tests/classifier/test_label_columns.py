"""The columns of ``predict_proba`` for labels of every kind, with NumPy as the oracle."""

import unicodedata

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import headstart as hs

SHADES = (0, 60, 120, 180, 240)
TEXTS = st.text("ae\u0301\u00e9\u212b 0_\u4e2d\U0001f41c", min_size=1, max_size=4)


def lists_of(kind, **options):
    return st.lists(kind, min_size=2, max_size=len(SHADES), **options)


LABELS = st.one_of(
    lists_of(st.integers(-(2**63), 2**63 - 1), unique=True),
    lists_of(st.integers(-(10**6), 10**6).map(float), unique=True),
    lists_of(TEXTS, unique_by=lambda text: unicodedata.normalize("NFC", text)),
    st.permutations([True, False]),
)


@pytest.mark.slow
@settings(max_examples=15, deadline=None)
@given(LABELS, st.sampled_from([list, np.array, lambda values: np.array(values, object)]))
def test_the_columns_are_in_the_order_of_numpy_and_labels_come_back_as_they_came(labels, container):
    """The label of an image is its shade, so that the oracle knows which column must be the largest."""
    rng = np.random.default_rng(0)
    truth = np.repeat(np.arange(len(labels)), 4)
    images = [np.clip(rng.normal(SHADES[c], 4, (32, 32, 3)), 0, 255).astype(np.uint8) for c in truth]
    classifier = hs.ImageClassifier(cut="features", head="lda", group_by="none", runtime="onnxruntime", cache=False)
    y = container([labels[c] for c in truth])
    classifier.fit(images, y)
    expected = np.unique(np.array(labels))
    np.testing.assert_array_equal(classifier.classes_, expected)
    assert classifier.classes_.dtype.kind == expected.dtype.kind
    columns = classifier.predict_proba(images).argmax(axis=1)
    assert expected[columns].tolist() == [labels[c] for c in truth]
    assert classifier.predict(images).tolist() == list(y)
    assert classifier.score(images, y) == 1
