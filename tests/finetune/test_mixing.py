"""Mixup, cutmix and class weights, against what is computed by hand."""

import copy

import numpy as np
import pytest
from helpers.mixing import mixed
from helpers.tiny_network import (
    COUNT,
    INSTALLED,
    LABELS,
    PIXELS,
    PLAIN,
    SIDE,
    assert_close,
    copy_tensors,
    fake_accelerator,
    run_training,
    tiny_network,
    tiny_task,
    torch_test,
)
from hypothesis import given
from hypothesis import strategies as st

from headstart.finetune import FineTuneConfig
from headstart.finetune.mixing import Mix, draw_mix
from headstart.heads.optimizers import class_weights

if INSTALLED:
    import torch
    from torch.nn.functional import cross_entropy

    from headstart.finetune.device_images import mix_batch
    from headstart.finetune.loop import local_batches


@torch_test
def test_mixup_blends_and_cutmix_pastes():
    images, partners = np.full((2, 4, 6, 3), 10, np.uint8), np.full((2, 4, 6, 3), 30, np.uint8)
    partner = np.array([1, 0])
    is_inside = np.zeros((4, 6), bool)
    is_inside[1:3, 2:5] = True

    def mixed_on_device(mix, images, partners):
        return mix_batch(mix, torch.from_numpy(images), torch.from_numpy(partners)).numpy()

    for mix_images in (mixed_on_device, mixed):
        assert (mix_images(Mix(partner, 0.25, None), images, partners) == 25).all()
        pasted = mix_images(Mix(partner, 1 - 6 / 24, (1, 2, 3, 5)), images, partners)
        assert (pasted[:, is_inside] == 30).all()
        assert (pasted[:, ~is_inside] == 10).all()
        assert (images == 10).all()


@given(st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 40), st.integers(1, 40), st.floats(0.1, 5))
def test_lambda_of_cutmix_is_the_share_of_the_image_that_is_left(seed, count, height, width, alpha):
    mix = draw_mix(FineTuneConfig(cutmix=alpha), count, (height, width), [seed, 1, 2])
    assert sorted(mix.partner) == list(range(count))
    images, partners = np.zeros((count, height, width, 3), np.uint8), np.ones((count, height, width, 3), np.uint8)
    assert (mixed(mix, images, partners) == 0).mean() == pytest.approx(mix.lam)
    again = draw_mix(FineTuneConfig(cutmix=alpha), count, (height, width), [seed, 1, 2])
    assert (again.lam, again.box, list(again.partner)) == (mix.lam, mix.box, list(mix.partner))


def test_lambda_follows_the_beta_distribution_and_both_kinds_take_turns():
    def draw(**options):
        return [draw_mix(FineTuneConfig(**options), 4, (200, 200), [0, 1, number]) for number in range(4000)]

    for alpha in (0.2, 1.0, 4.0):
        lams = np.array([mix.lam for mix in draw(mixup=alpha)])
        assert lams.mean() == pytest.approx(0.5, abs=0.03)
        assert lams.var() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)
    both = draw(mixup=0.2, cutmix=1.0)
    assert np.mean([mix.box is None for mix in both]) == pytest.approx(0.5, abs=0.03)
    assert draw_mix(FineTuneConfig(), 4, (9, 9), [0]) is None
    assert draw_mix(FineTuneConfig(mixup=1.0), 1, (9, 9), [0]) is None


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_weighted_classes_count_the_same(labels):
    labels = np.array(labels)
    weights = class_weights(labels, 6)
    assert weights[labels].mean() == pytest.approx(1)
    totals = [weights[labels][labels == label].sum() for label in np.unique(labels)]
    assert totals == pytest.approx([totals[0]] * len(totals))


@torch_test
@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_images_are_trained_on_with_soft_labels(mixing):
    config = FineTuneConfig(
        learning_rate=0.1,
        epochs=1,
        optimizer="sgd",
        label_smoothing=0.1,
        unfreeze_from="all",
        layer_decay=1.0,
        **mixing,
        **PLAIN,
    )
    network = tiny_network()
    before, order = copy_tensors(network), np.random.default_rng([0, 1]).permutation(COUNT)
    mix = draw_mix(config, COUNT, (SIDE, SIDE), [0, 1, 0])
    partners = order[mix.partner]
    soft_labels = mix.lam * np.eye(2)[LABELS[order]] + (1 - mix.lam) * np.eye(2)[LABELS[partners]]
    by_hand = copy.deepcopy(network)
    scores = by_hand(torch.from_numpy(mixed(mix, PIXELS[order], PIXELS[partners])))
    loss = cross_entropy(scores, torch.from_numpy(soft_labels.astype(np.float32)), label_smoothing=0.1)
    loss.backward()
    assert 0.02 < mix.lam < 0.98
    _, [epoch] = run_training(network, config)
    assert epoch.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, parameter in by_hand.named_parameters():
        assert_close(network.state_dict()[name], before[name] - 0.1 * parameter.grad)


@torch_test
def test_several_processes_mix_as_one_does():
    config = FineTuneConfig(mixup=0.5, cutmix=0.5, **{**PLAIN, "batch_size": 5, "augmentation": "light"})
    batches = [np.arange(5), np.arange(5, 10), np.array([10, 11])]

    def parts(process_index, num_processes):
        accelerator = fake_accelerator(process_index, num_processes)
        return list(local_batches(tiny_task(tiny_network(), config, accelerator, seed=3), batches, 1))

    for batch, *halves in zip(parts(0, 1), parts(0, 2), parts(1, 2), strict=True):
        for index, half in enumerate(halves):
            np.testing.assert_array_equal(half.pixels, batch.pixels[index::2])
            np.testing.assert_array_equal(half.partner_labels, batch.partner_labels[index::2])
            assert (float(half.lam), half.size) == (float(batch.lam), batch.size)
