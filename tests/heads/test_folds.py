"""Folds and validation sets of whole groups."""

import numpy as np
import pytest
from helpers.heads import gaussian_classes
from hypothesis import given
from hypothesis import strategies as st
from sklearn.model_selection import StratifiedGroupKFold

from headstart.errors import DataError
from headstart.heads.folds import FOLDS, deal_into_folds, group_folds, holdout_groups, stratified_group_folds


def test_folds_partition_the_images_and_keep_groups_whole():
    _, labels, groups = gaussian_classes()
    folds = group_folds(labels, groups)
    assert len(folds) == 5
    np.testing.assert_array_equal(np.sort(np.concatenate([test for _, test in folds])), np.arange(40))
    for train, test in folds:
        np.testing.assert_array_equal(np.sort(np.r_[train, test]), np.arange(40))
        assert not set(groups[train]) & set(groups[test])


def test_a_fold_without_which_one_class_is_left_is_an_error():
    labels = np.arange(12) % 2
    with pytest.raises(DataError, match="only one class is left to learn from"):
        group_folds(labels, labels)


def test_folds_keep_groups_whole_and_have_equally_many_groups_of_each_class():
    rng = np.random.default_rng(0)
    groups = rng.integers(0, 70, 300)
    labels = groups % 3
    folds = deal_into_folds(labels, groups, rng)
    for group in np.unique(groups):
        assert len(np.unique(folds[groups == group])) == 1
    for c in range(3):
        counts = [len(np.unique(groups[(labels == c) & (folds == fold)])) for fold in range(FOLDS)]
        assert max(counts) - min(counts) <= 1


def test_validation_holds_out_about_a_tenth_in_whole_groups_and_leaves_every_class():
    labels = np.r_[np.arange(97) % 2, 2, 2, 2]
    groups = np.r_[np.arange(97) // 3, 100, 100, 100]  # all images of the last class are in one group
    is_held_out = holdout_groups(groups, labels, seed=0)
    assert 5 <= is_held_out.sum() <= 10
    assert not set(groups[is_held_out]) & set(groups[~is_held_out])
    assert set(labels[~is_held_out]) == {0, 1, 2}
    np.testing.assert_array_equal(is_held_out, holdout_groups(groups, labels, seed=0))


@given(st.integers(0, 2**32 - 1), st.integers(2, 5), st.integers(2, 4), st.integers(2, 40), st.integers(20, 80))
def test_stratified_folds_are_those_of_scikit_learn(seed, count, classes, groups, images):
    rng = np.random.default_rng(seed)
    labels = np.r_[np.tile(np.arange(classes), count), rng.integers(0, classes, images)]  # enough of every class
    group = np.r_[np.arange(count), rng.integers(0, groups, len(labels) - count)]
    splitter = StratifiedGroupKFold(count, shuffle=True, random_state=seed)
    expected = [(train, test) for train, test in splitter.split(labels[:, None], labels, group) if len(test)]
    actual = stratified_group_folds(labels, group, count, seed)
    assert len(actual) == len(expected)
    for (train, test), (expected_train, expected_test) in zip(actual, expected, strict=True):
        np.testing.assert_array_equal(train, expected_train)
        np.testing.assert_array_equal(test, expected_test)
