"""Mixup, cutmix and class weights: what is learned from, against what is calculated by hand."""

import copy

import numpy as np
import pytest
from helpers.tiny import (
    COUNT,
    INSTALLED,
    LABELS,
    PIXELS,
    PLAIN,
    SIDE,
    close,
    machine,
    pictures,
    ran,
    tiny,
    torch_test,
    values,
)
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import OptionError
from headstart.finetune import FineTuning
from headstart.finetune.mixing import Mix, drawn
from headstart.heads.optimizers import class_weights

if INSTALLED:
    import torch
    from torch.nn.functional import cross_entropy

    from headstart.finetune import loop


def test_mixup_blends_and_cutmix_pastes():
    own, other = np.full((2, 4, 6, 3), 10, np.uint8), np.full((2, 4, 6, 3), 30, np.uint8)
    partner = np.array([1, 0])
    assert (Mix(partner, 0.25, None)(own, other) == 25).all()
    pasted = Mix(partner, 1 - 6 / 24, (1, 2, 3, 5))(own, other)
    inside = np.zeros((4, 6), bool)
    inside[1:3, 2:5] = True
    assert (pasted[:, inside] == 30).all()
    assert (pasted[:, ~inside] == 10).all()
    assert (own == 10).all()


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 5))
def test_a_cutmix_share_is_what_is_seen_of_the_picture(seed, count, height, width, alpha):
    mix = drawn(FineTuning(cutmix=alpha), count, (height, width), [seed, 1, 2])
    assert sorted(mix.partner) == list(range(count))
    own, other = np.zeros((count, height, width, 3), np.uint8), np.ones((count, height, width, 3), np.uint8)
    assert (mix(own, other) == 0).mean() == pytest.approx(mix.share)
    again = drawn(FineTuning(cutmix=alpha), count, (height, width), [seed, 1, 2])
    assert (again.share, again.box, list(again.partner)) == (mix.share, mix.box, list(mix.partner))


def test_shares_follow_the_beta_distribution_and_both_kinds_take_turns():
    def draws(**how):
        return [drawn(FineTuning(**how), 4, (200, 200), [0, 1, number]) for number in range(4000)]

    for alpha in (0.2, 1.0, 4.0):
        shares = np.array([mix.share for mix in draws(mixup=alpha)])
        assert shares.mean() == pytest.approx(0.5, abs=0.03)
        assert shares.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    both = draws(mixup=0.2, cutmix=1.0)
    assert np.mean([mix.box is None for mix in both]) == pytest.approx(0.5, abs=0.03)
    assert drawn(FineTuning(), 4, (9, 9), [0]) is None
    assert drawn(FineTuning(mixup=1.0), 1, (9, 9), [0]) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_weighted_classes_count_alike(labels):
    labels = np.array(labels)
    weights = class_weights(labels, 6)
    assert weights[labels].mean() == pytest.approx(1)
    totals = [weights[labels][labels == each].sum() for each in np.unique(labels)]
    assert totals == pytest.approx([totals[0]] * len(totals))


@pytest.mark.parametrize("bad", [{"mixup": -1}, {"cutmix": float("nan")}, {"cutmix": 1e9}, {"precision": "int8"}])
def test_what_cannot_be_mixed_or_calculated_is_refused(bad):
    with pytest.raises(OptionError, match=next(iter(bad))):
        FineTuning(**bad)


@torch_test
@pytest.mark.parametrize("kind", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_pictures_are_learned_from_as_soft_labels(kind):
    how = FineTuning(rate=0.1, epochs=1, optimiser="sgd", label_smoothing=0.1, unfreeze_from="all", layer_decay=1.0,
                     **kind, **PLAIN)  # fmt: skip
    network = tiny()
    before, order = values(network), np.random.default_rng([0, 1]).permutation(COUNT)
    mix = drawn(how, COUNT, (SIDE, SIDE), [0, 1, 0])
    other = order[mix.partner]
    soft = mix.share * np.eye(2)[LABELS[order]] + (1 - mix.share) * np.eye(2)[LABELS[other]]
    by_hand = copy.deepcopy(network)
    loss = cross_entropy(by_hand(torch.from_numpy(mix(PIXELS[order], PIXELS[other]))),
                         torch.from_numpy(soft.astype(np.float32)), label_smoothing=0.1)  # fmt: skip
    loss.backward()
    assert 0.02 < mix.share < 0.98
    _, [epoch] = ran(network, how)
    assert epoch.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, parameter in by_hand.named_parameters():
        close(network.state_dict()[name], before[name] - 0.1 * parameter.grad)


@torch_test
def test_every_process_mixes_what_one_would():
    how = FineTuning(mixup=0.5, cutmix=0.5, **{**PLAIN, "batch": 5, "augmentation": "light"})
    batches = [np.arange(5), np.arange(5, 10), np.array([10, 11])]

    def parts(index, count):
        return list(loop._parts(batches, pictures(), LABELS, how, [3, 1], machine(index, count)))

    for whole, *shares in zip(parts(0, 1), parts(0, 2), parts(1, 2), strict=True):
        for index, part in enumerate(shares):
            np.testing.assert_array_equal(part.pixels, whole.pixels[index::2])
            np.testing.assert_array_equal(part.others, whole.others[index::2])
            assert (part.share, part.count) == (whole.share, whole.count)
