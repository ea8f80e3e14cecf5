"""The checks that scikit-learn has for estimators, on rows that are turned into images."""

import numpy as np
import pytest
from helpers.rows import RowClassifier
from sklearn.utils import estimator_checks

import headstart as hs

EXPECTED_TO_FAIL: dict[str, str] = {}  # by the name of the check, why: none
SKIPPED = {  # by scikit-learn itself
    "check_array_api_input": "runs only with SCIPY_ARRAY_API set: images are NumPy arrays",
    "check_array_api_mixed_inputs": "as above",
    "check_array_api_same_namespace": "as above",
    "check_classifier_data_not_an_array": "its second half needs pandas",
}
MIN_CHECKS = 50  # without pandas 59 are run by scikit-learn 1.6, and 58 by 1.9


@pytest.mark.slow
def test_all_checks_of_scikit_learn_pass_on_rows_turned_into_images():
    results = estimator_checks.check_estimator(
        RowClassifier(), expected_failed_checks=EXPECTED_TO_FAIL, on_fail=None, on_skip=None
    )
    by_status: dict[str, list[str]] = {}
    for result in results:
        by_status.setdefault(result["status"], []).append(result["check_name"])
    failures = [(result["check_name"], result["exception"]) for result in results if result["status"] == "failed"]
    assert failures == []
    assert len(by_status["passed"]) >= MIN_CHECKS
    assert set(by_status.get("skipped", ())) <= set(SKIPPED)
    assert set(by_status) <= {"passed", "skipped"}


@pytest.mark.parametrize(
    "check",
    [
        "check_no_attributes_set_in_init",
        "check_parameters_default_constructible",
        "check_get_params_invariance",
        "check_set_params",
        "check_estimator_repr",
        "check_mixin_order",
        "check_estimator_tags_renamed",
        "check_valid_tag_types",
        "check_do_not_raise_errors_in_init_or_set_params",
        "check_estimator_cloneable",
        "check_requires_y_none",
    ],
)
def test_the_checks_that_need_no_numeric_input_pass_on_the_classifier_itself(check):
    getattr(estimator_checks, check)("ImageClassifier", hs.ImageClassifier())


def test_a_column_of_labels_is_taken_with_the_warning_of_scikit_learn():
    from sklearn.exceptions import DataConversionWarning

    rng = np.random.default_rng(0)
    X, y = np.concatenate([rng.uniform(0, 1, (6, 3)), rng.uniform(4, 5, (6, 3))]), np.repeat([0, 1], 6)
    with pytest.warns(DataConversionWarning, match=r"of shape \(12, 1\), taken as \(n,\)") as warnings:
        classifier = RowClassifier().fit(X, y[:, None])
    assert warnings[0].filename.endswith("rows.py")  # the line that called fit of ImageClassifier
    assert classifier.predict(X).tolist() == y.tolist()
