"""The training loop, step by step against what is computed by hand, on a tiny network. Needs PyTorch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers.tiny_network import (
    COUNT,
    INSTALLED,
    LABELS,
    PIXELS,
    PLAIN,
    assert_close,
    copy_tensors,
    gradients,
    run_training,
    tiny_network,
    tiny_task,
    torch_test,
)
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import BackboneError
from headstart.finetune import FineTuneConfig
from headstart.finetune.schedule import learning_rate_factor

if INSTALLED:
    import torch
    from torch.nn.functional import cross_entropy

    from headstart.finetune.freeze import STATISTICS
    from headstart.finetune.loop import Epoch, predict, should_stop


@torch_test
def test_one_step_of_every_optimizer_is_its_formula():
    config = FineTuneConfig(unfreeze_from="conv1", layer_decay=0.5, learning_rate=0.01, epochs=1, **PLAIN)
    steps = {
        "sgd": lambda g: g,
        "rmsprop": lambda g: g / ((0.1 * g**2).sqrt() + 1e-7),
        "adam": lambda g: g / (g.abs() + 1e-7),
        "adamw": lambda g: g / (g.abs() + 1e-8),
    }
    for optimizer, step in steps.items():
        network = tiny_network()
        before, gradient = copy_tensors(network), gradients(network, config)
        plan, _ = run_training(network, replace(config, optimizer=optimizer))
        assert {name for name in plan.lr_scales if name.startswith("conv")} == {
            f"conv{stage}.{kind}" for stage in (1, 2) for kind in ("weight", "bias")
        }
        for name, lr_scale in plan.lr_scales.items():
            assert lr_scale == (0.5 if name.startswith(("conv1", "norm1")) else 1.0)
            is_clear = gradient[name].abs() > 1e-5  # where a gradient is only rounding, Adam's step is rounding too
            expected = before[name] - 0.01 * lr_scale * step(gradient[name])
            assert_close(network.state_dict()[name][is_clear], expected[is_clear], atol=1e-5)
            assert is_clear.any()


@torch_test
def test_momentum_and_the_schedule_over_three_steps():
    config = FineTuneConfig(
        unfreeze_from="all", layer_decay=1.0, learning_rate=0.05, epochs=3, optimizer="sgd", **PLAIN
    )
    network = tiny_network()
    by_hand, velocity, learning_rates = copy.deepcopy(network), {}, []
    for step in range(3):
        learning_rates.append(0.05 * learning_rate_factor(step, 3, 0.0))
        for name, gradient in gradients(by_hand, config).items():
            velocity[name] = 0.9 * velocity.get(name, 0) + gradient
        with torch.no_grad():
            for name, parameter in by_hand.named_parameters():
                parameter -= learning_rates[-1] * velocity[name]
    _, epochs = run_training(network, config)
    assert [epoch.learning_rate for epoch in epochs] == pytest.approx(learning_rates)
    for name, value in copy_tensors(by_hand).items():
        assert_close(network.state_dict()[name], value)


@torch_test
def test_warm_up_and_cosine_reach_every_parameter_group():
    config = FineTuneConfig(
        unfreeze_from="conv1",
        layer_decay=0.5,
        learning_rate=0.02,
        epochs=4,
        **{**PLAIN, "warm_up": 0.5, "batch_size": 6},
    )
    rates = []
    run_training(
        tiny_network(),
        config,
        after_epoch=lambda network, plan, state: rates.append([g["lr"] for g in state.optimizer.param_groups]),
    )
    # Eight steps, four of them the warm-up; the last steps of the epochs are 1, 3, 5 and 7.
    factors = [0.5, 1.0, 0.5 * (1 + np.cos(np.pi / 4)), 0.5 * (1 + np.cos(3 * np.pi / 4))]
    np.testing.assert_allclose(rates, [[0.01 * factor, 0.02 * factor] for factor in factors])


@torch_test
def test_l2_sp_pulls_towards_the_initial_weights_and_clip_bounds_the_step():
    config = FineTuneConfig(unfreeze_from="all", layer_decay=0.5, learning_rate=0.1, epochs=1, optimizer="sgd", **PLAIN)
    plain, pulled = tiny_network(), tiny_network()
    before = copy_tensors(plain)
    run_training(plain, config)
    plan, _ = run_training(pulled, replace(config, l2_sp=0.2))
    for name, lr_scale in plan.lr_scales.items():
        stepped = plain.state_dict()[name]
        assert_close(pulled.state_dict()[name], stepped + 0.2 * lr_scale * (before[name] - stepped))
    clipped = tiny_network()
    gradient = gradients(clipped, config)
    assert torch.cat([g.reshape(-1) for g in gradient.values()]).norm() > 0.01
    run_training(clipped, replace(config, clip=0.01, layer_decay=1.0))
    steps = [(before[name] - clipped.state_dict()[name]).reshape(-1) for name in gradient]
    assert float(torch.cat(steps).norm()) / 0.1 == pytest.approx(0.01, rel=1e-3)


@torch_test
def test_class_weights_and_label_smoothing_by_hand():
    network = tiny_network()
    config = FineTuneConfig(
        learning_rate=0.1,
        epochs=1,
        optimizer="sgd",
        class_weights=True,
        label_smoothing=0.2,
        unfreeze_from="all",
        layer_decay=1.0,
        **PLAIN,
    )
    with torch.no_grad():
        log_probabilities = torch.log_softmax(network(torch.from_numpy(PIXELS)), 1).numpy()
    losses = -(0.8 * log_probabilities[np.arange(COUNT), LABELS] + 0.2 * log_probabilities.mean(axis=1))
    weights = np.where(LABELS == 1, COUNT / (2 * 3), COUNT / (2 * 9))
    gradient = gradients(network, config, torch.tensor([COUNT / 18, COUNT / 6]))
    before = copy_tensors(network)
    _, [epoch] = run_training(network, config)
    assert epoch.loss == pytest.approx(float((losses * weights).mean()), rel=1e-5)
    for name, value in gradient.items():
        assert_close(network.state_dict()[name], before[name] - 0.1 * value)


@torch_test
def test_batch_norms_follow_their_batches_only_where_unfrozen_and_with_update():
    config = FineTuneConfig(unfreeze_from="conv1", epochs=1, batch_norm="update", **PLAIN)
    network = tiny_network()
    before = copy_tensors(network)
    with torch.no_grad():  # what reaches norm1: norm0 is in inference mode, from conv1 on it is the batch's own
        order = np.random.default_rng([0, 1]).permutation(COUNT)
        x = torch.from_numpy(PIXELS[order]).float().permute(0, 3, 1, 2) / 64 - 1
        hidden = network.conv1(torch.relu(network.norm0(network.conv0(x))))
    run_training(network, config)
    mean = 0.9 * before["norm1.running_mean"] + 0.1 * hidden.mean((0, 2, 3))
    assert_close(network.norm1.running_mean, mean)
    unbiased = hidden.transpose(0, 1).reshape(5, -1).var(1)
    assert_close(network.norm1.running_var, 0.9 * before["norm1.running_var"] + 0.1 * unbiased)
    assert int(network.norm2.num_batches_tracked) == 1
    for statistic in STATISTICS:
        assert torch.equal(network.state_dict()[f"norm0.{statistic}"], before[f"norm0.{statistic}"])
    frozen = tiny_network()
    run_training(frozen, replace(config, batch_norm="frozen"))
    for name, value in before.items():
        if name.rpartition(".")[2] in STATISTICS:
            assert torch.equal(frozen.state_dict()[name], value)
    assert not any(module.training for module in network.modules())


@torch_test
def test_the_moving_average_is_the_one_computed_by_hand():
    config = FineTuneConfig(unfreeze_from="conv2", epochs=6, learning_rate=0.05, ema=0.3, **PLAIN)
    tensors_by_epoch = []
    network = tiny_network()
    plan, _ = run_training(
        network, config, after_epoch=lambda network, plan, state: tensors_by_epoch.append(copy_tensors(network))
    )
    for name in plan.lr_scales:
        average = tensors_by_epoch[0][name]
        for step, tensors in enumerate(tensors_by_epoch):
            decay = min(0.3, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * tensors[name]
        assert_close(network.state_dict()[name], average)
        assert not torch.equal(average, tensors_by_epoch[-1][name])


@torch_test
@given(st.lists(st.floats(0, 9), max_size=12), st.integers(1, 4))
def test_patience_ends_when_the_lowest_loss_is_that_many_epochs_old(losses, patience):
    history = [Epoch(i + 1, 0.0, 0.5, (0, 1), loss, 0.5, 0.1, 1.0) for i, loss in enumerate(losses)]
    lowest, age = np.inf, 0
    for loss in losses:
        lowest, age = (loss, 0) if loss < lowest else (lowest, age + 1)
    assert should_stop(history, FineTuneConfig(patience=patience)) == (age >= patience)
    assert not should_stop(history, FineTuneConfig())


@torch_test
def test_images_held_out_are_evaluated_in_every_epoch_and_change_nothing():
    config = FineTuneConfig(unfreeze_from="all", epochs=3, learning_rate=0.1, optimizer="sgd", ema=0.3, **PLAIN)
    held_out_rows = np.array([1, 4, 5])
    plain, watched = tiny_network(), tiny_network()
    _, plain_epochs = run_training(plain, config)
    _, epochs = run_training(watched, config, held_out_rows=held_out_rows)
    for name, value in plain.state_dict().items():
        assert torch.equal(value, watched.state_dict()[name])
    assert [(e.loss, e.accuracy) for e in epochs] == [(e.loss, e.accuracy) for e in plain_epochs]
    assert [e.held_out_loss for e in plain_epochs] == [None] * 3
    scores = torch.from_numpy(predict(tiny_task(watched, config), held_out_rows)[0])  # the averaged weights, as used
    labels = torch.from_numpy(LABELS[held_out_rows])
    assert epochs[-1].held_out_loss == pytest.approx(float(cross_entropy(scores, labels)), abs=1e-5)
    assert epochs[-1].held_out_accuracy == float((scores.argmax(1) == labels).double().mean())


@torch_test
def test_patience_ends_the_training_and_takes_the_best_weights():
    config = FineTuneConfig(unfreeze_from="all", epochs=40, learning_rate=0.3, optimizer="sgd", patience=2, **PLAIN)
    network, validation_rows = tiny_network(), [0, 3, 7]
    _, epochs = run_training(network, config, validation_rows=validation_rows)
    losses = [epoch.validation_loss for epoch in epochs]
    assert len(epochs) < 40
    assert len(losses) - 1 - int(np.argmin(losses)) == 2
    task = tiny_task(network, replace(config, batch_size=4))
    scores = torch.from_numpy(predict(task, np.array(validation_rows))[0])
    labels = torch.from_numpy(LABELS[validation_rows])
    assert float(cross_entropy(scores, labels)) == pytest.approx(min(losses), rel=1e-6)
    assert losses[-1] > min(losses)


@torch_test
def test_training_stops_at_the_given_accuracy():
    config = FineTuneConfig(unfreeze_from="all", epochs=200, learning_rate=0.01, stop_at_accuracy=0.9, **PLAIN)
    _, epochs = run_training(tiny_network(), config)
    assert 1 < len(epochs) < 200
    assert all(epoch.accuracy < 0.9 for epoch in epochs[:-1])
    assert epochs[-1].accuracy >= 0.9


def with_memory_for(images):
    """A tiny network that runs out of memory when it is trained on more images at a time."""
    network = tiny_network()
    compute_vectors = network.vectors

    def vectors(pixels):
        if torch.is_grad_enabled() and len(pixels) > images:
            raise torch.OutOfMemoryError("injected")
        return compute_vectors(pixels)

    network.vectors = vectors
    return network


@torch_test
def test_out_of_memory_accumulates_gradients_and_changes_nothing_else():
    config = FineTuneConfig(unfreeze_from="all", epochs=2, learning_rate=0.05, optimizer="sgd", **PLAIN)
    expected_network, network = tiny_network(), with_memory_for(5)
    _, expected = run_training(expected_network, config)
    _, epochs = run_training(network, config)
    assert epochs[0].note == "out of memory: 3 images at a time, gradients accumulated"  # 12, 6, 3
    assert epochs[1].note == ""
    assert [epoch.loss for epoch in epochs] == pytest.approx([epoch.loss for epoch in expected], rel=1e-5)
    for name, value in expected_network.state_dict().items():
        assert_close(network.state_dict()[name], value)
    with pytest.raises(BackboneError, match="too small to train on one image"):
        run_training(with_memory_for(0), config, plan=run_training(tiny_network(), config)[0])
