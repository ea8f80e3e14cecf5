"""The training loop with several labels an image, against what is computed by hand. Needs PyTorch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers.mixing import mixed
from helpers.tiny_network import (
    COUNT,
    INSTALLED,
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

from headstart.finetune import FineTuneConfig
from headstart.finetune.mixing import draw_mix

if INSTALLED:
    import torch
    from torch.nn.functional import binary_cross_entropy_with_logits

    from headstart.finetune.gradients import Loss, compute_gradients
    from headstart.finetune.loop import local_batches, predict
    from headstart.finetune.losses import correct_predictions, image_losses
    from headstart.finetune.precision import MixedPrecision

NAN = np.nan
LABELS = np.array(
    [[0, 1], [1, 1], [NAN, 0], [1, NAN], [0, 0], [NAN, NAN], [1, 0], [0, 1], [1, 1], [0, NAN], [1, 0], [0, 0]],
    np.float32,
)
KNOWN, VALUES = ~np.isnan(LABELS), np.nan_to_num(LABELS).astype(np.float64)
SGD = FineTuneConfig(unfreeze_from="all", layer_decay=1.0, learning_rate=0.1, epochs=1, optimizer="sgd", **PLAIN)


def cells(scores, targets):
    """The binary cross-entropies of cells from probabilities, in NumPy."""
    p = 1 / (1 + np.exp(-np.asarray(scores, np.float64)))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p))


def scores_of(network, pixels=PIXELS):
    with torch.no_grad():
        return network(torch.from_numpy(pixels)).double().numpy()


@torch_test
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_the_loss_is_that_of_the_known_cells_and_the_others_have_no_gradient(smoothing):
    scores = torch.tensor(np.random.default_rng(0).normal(0, 3, LABELS.shape), requires_grad=True)
    losses = image_losses(scores, torch.from_numpy(LABELS), None, smoothing)
    targets = VALUES * (1 - smoothing) + smoothing / 2
    by_hand = np.where(KNOWN, cells(scores.detach(), targets), 0)
    np.testing.assert_allclose(losses.detach(), by_hand.sum(axis=1) / 2, rtol=1e-6)
    losses.sum().backward()
    assert (scores.grad.numpy()[~KNOWN] == 0).all()
    p = 1 / (1 + np.exp(-scores.detach().numpy()))
    np.testing.assert_allclose(scores.grad.numpy()[KNOWN], ((p - targets) / 2)[KNOWN], rtol=1e-6)
    right = ((scores.detach().numpy() >= 0) == (VALUES == 1)) & KNOWN
    np.testing.assert_allclose(correct_predictions(scores, torch.from_numpy(LABELS)), right.sum(axis=1) / 2)


@torch_test
def test_a_step_is_that_of_the_known_cells_alone():
    network = tiny_network()
    before, by_hand = copy_tensors(network), copy.deepcopy(network)
    scores = by_hand(torch.from_numpy(PIXELS))
    known = torch.from_numpy(KNOWN)
    loss = binary_cross_entropy_with_logits(scores[known], torch.from_numpy(VALUES).float()[known], reduction="sum")
    (loss / (2 * COUNT)).backward()
    before_scores = scores_of(network)
    _, [epoch] = run_training(network, SGD, labels=LABELS)
    assert epoch.loss == pytest.approx(float(loss.detach()) / KNOWN.sum(), rel=1e-5)
    assert epoch.accuracy == pytest.approx(((before_scores >= 0) == (VALUES == 1))[KNOWN].mean())
    for name, parameter in by_hand.named_parameters():
        assert_close(network.state_dict()[name], before[name] - 0.1 * parameter.grad)


@torch_test
@pytest.mark.parametrize("mixing", [{"mixup": 1.0}, {"cutmix": 1.0}])
def test_mixed_images_have_mixed_labels(mixing):
    labels = np.nan_to_num(LABELS)  # all known: else the halves of a cell would be weighted
    config = replace(SGD, **mixing)
    network, order = tiny_network(), np.random.default_rng([0, 1]).permutation(COUNT)
    before, by_hand = copy_tensors(network), copy.deepcopy(network)
    mix = draw_mix(config, COUNT, (SIDE, SIDE), [0, 1, 0])
    partners = order[mix.partner]
    scores = by_hand(torch.from_numpy(mixed(mix, PIXELS[order], PIXELS[partners])))
    soft = mix.lam * labels[order] + (1 - mix.lam) * labels[partners]
    loss = binary_cross_entropy_with_logits(scores, torch.from_numpy(soft.astype(np.float32)))
    loss.backward()
    assert 0.02 < mix.lam < 0.98
    _, [epoch] = run_training(network, config, labels=labels)
    assert epoch.loss == pytest.approx(float(loss.detach()), rel=1e-5)
    for name, parameter in by_hand.named_parameters():
        assert_close(network.state_dict()[name], before[name] - 0.1 * parameter.grad)


@torch_test
def test_mixed_with_an_unknown_cell_each_image_counts_its_share():
    config = replace(SGD, mixup=1.0)
    order = np.random.default_rng([0, 1]).permutation(COUNT)
    mix = draw_mix(config, COUNT, (SIDE, SIDE), [0, 1, 0])
    partners, network = order[mix.partner], tiny_network()
    scores = scores_of(network, mixed(mix, PIXELS[order], PIXELS[partners]))
    sums = [
        np.where(KNOWN[rows], share * cells(scores, VALUES[rows]), 0).sum()
        for rows, share in ((order, mix.lam), (partners, 1 - mix.lam))
    ]
    _, [epoch] = run_training(network, config, labels=LABELS)
    assert epoch.loss == pytest.approx(sum(sums) / KNOWN.sum(), rel=1e-5)


@torch_test
def test_parts_of_a_batch_and_of_processes_add_up():
    config = replace(SGD, mixup=0.5, batch_size=5)
    batches = [np.arange(5), np.arange(5, 10), np.array([10, 11])]
    loss = Loss(MixedPrecision.of("fp32", "cpu"), torch.ones(2), 0.1)

    def gradients(index, processes, size):
        network = tiny_network()
        task = tiny_task(network, config, fake_accelerator(index, processes), labels=LABELS)
        for batch in local_batches(task, batches, 1):
            totals = compute_gradients(network, batch, loss, size)
            yield [*totals, *(parameter.grad.clone() for parameter in network.parameters())]

    whole, *halves = (list(gradients(*case)) for case in ((0, 1, None), (0, 2, 2), (1, 2, 1)))
    for batch, first, second in zip(whole, *halves, strict=True):
        for expected, a, b in zip(batch, first, second, strict=True):
            assert_close(a + b, expected)


@torch_test
def test_images_held_out_are_evaluated_on_their_known_cells():
    held_out, network = np.array([2, 3, 4, 5]), tiny_network()
    _, [epoch] = run_training(network, SGD, labels=LABELS, held_out_rows=held_out, validation_rows=[5])
    assert epoch.validation_loss is None  # of its image nothing is known
    scores = predict(tiny_task(network, SGD, labels=LABELS), held_out)[0]
    known = KNOWN[held_out]
    assert epoch.held_out_loss == pytest.approx(cells(scores, VALUES[held_out])[known].mean(), rel=1e-5)
    assert epoch.held_out_accuracy == pytest.approx(((scores >= 0) == (VALUES[held_out] == 1))[known].mean())
