"""The training loop step by step against what is calculated by hand, on a tiny network. Needs PyTorch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
from helpers.tiny import (
    COUNT,
    INSTALLED,
    LABELS,
    PIXELS,
    PLAIN,
    close,
    ran,
    slopes,
    tiny,
    torch_test,
    values,
)

from headstart.finetune import FineTuning
from headstart.finetune.schedule import rate_at

if INSTALLED:
    import torch


@torch_test
def test_one_step_of_every_optimiser_is_its_formula():
    how = FineTuning(unfreeze_from="conv1", layer_decay=0.5, rate=0.01, epochs=1, **PLAIN)
    steps = {
        "sgd": lambda g: g,
        "rmsprop": lambda g: g / ((0.1 * g**2).sqrt() + 1e-7),
        "adam": lambda g: g / (g.abs() + 1e-7),
        "adamw": lambda g: g / (g.abs() + 1e-8),
    }
    for name, step in steps.items():
        network = tiny()
        before, slope = values(network), slopes(network, how)
        free, _ = ran(network, replace(how, optimiser=name))
        assert {n for n in free.free if n.startswith("conv")} == {
            f"conv{i}.{p}" for i in (1, 2) for p in ("weight", "bias")
        }
        for key, share in free.free.items():
            assert share == (0.5 if key.startswith(("conv1", "norm1")) else 1.0)
            some = slope[key].abs() > 1e-5  # at a gradient of nothing but rounding, Adam's step is rounding too
            wanted = before[key] - 0.01 * share * step(slope[key])
            close(network.state_dict()[key][some], wanted[some], atol=1e-5)
            assert some.any()


@torch_test
def test_momentum_and_the_schedule_over_three_steps():
    how = FineTuning(unfreeze_from="all", layer_decay=1.0, rate=0.05, epochs=3, optimiser="sgd", **PLAIN)
    network = tiny()
    by_hand, speed, rates = copy.deepcopy(network), {}, []
    for step in range(3):
        rates.append(0.05 * rate_at(step, 3, 0.0))
        for name, slope in slopes(by_hand, how).items():
            speed[name] = 0.9 * speed.get(name, 0) + slope
        with torch.no_grad():
            for name, parameter in by_hand.named_parameters():
                parameter -= rates[-1] * speed[name]
    _, epochs = ran(network, how)
    assert [epoch.rate for epoch in epochs] == pytest.approx(rates)
    for name, value in values(by_hand).items():
        close(network.state_dict()[name], value)


@torch_test
def test_warm_up_and_cosine_reach_every_group():
    how = FineTuning(unfreeze_from="conv1", layer_decay=0.5, rate=0.02, epochs=4,
                     **{**PLAIN, "warm_up": 0.5, "batch": 6})  # fmt: skip
    seen = []
    ran(tiny(), how, after=lambda network, free, state: seen.append([g["lr"] for g in state.optimiser.param_groups]))
    # Eight steps, four of them a rise; an epoch's last are steps 1, 3, 5 and 7.
    shares = [0.5, 1.0, 0.5 * (1 + np.cos(np.pi / 4)), 0.5 * (1 + np.cos(3 * np.pi / 4))]
    np.testing.assert_allclose(seen, [[0.01 * share, 0.02 * share] for share in shares])


@torch_test
def test_l2_sp_pulls_back_by_its_share_and_clip_bounds_the_step():
    plain = FineTuning(unfreeze_from="all", layer_decay=0.5, rate=0.1, epochs=1, optimiser="sgd", **PLAIN)
    free, pulled = tiny(), tiny()
    before = values(free)
    ran(free, plain)
    made, _ = ran(pulled, replace(plain, l2_sp=0.2))
    for name, share in made.free.items():
        stepped = free.state_dict()[name]
        close(pulled.state_dict()[name], stepped + 0.2 * share * (before[name] - stepped))
    clipped = tiny()
    slope = slopes(clipped, plain)
    assert torch.cat([g.reshape(-1) for g in slope.values()]).norm() > 0.01
    ran(clipped, replace(plain, clip=0.01, layer_decay=1.0))
    moved = [(before[name] - clipped.state_dict()[name]).reshape(-1) for name in slope]
    assert float(torch.cat(moved).norm()) / 0.1 == pytest.approx(0.01, rel=1e-3)


@torch_test
def test_class_weights_and_label_smoothing_by_hand():
    network = tiny()
    how = FineTuning(rate=0.1, epochs=1, optimiser="sgd", class_weights=True, label_smoothing=0.2, unfreeze_from="all",
                     layer_decay=1.0, **PLAIN)  # fmt: skip
    with torch.no_grad():
        told = torch.log_softmax(network(torch.from_numpy(PIXELS)), 1).numpy()
    smooth = -(0.8 * told[np.arange(COUNT), LABELS] + 0.2 * told.mean(axis=1))
    weights = np.where(LABELS == 1, COUNT / (2 * 3), COUNT / (2 * 9))
    slope = slopes(network, how, torch.tensor([COUNT / 18, COUNT / 6]))
    before = values(network)
    _, [epoch] = ran(network, how)
    assert epoch.loss == pytest.approx(float((smooth * weights).mean()), rel=1e-5)
    for name, value in slope.items():
        close(network.state_dict()[name], before[name] - 0.1 * value)
