"""The training loop step by step against what is calculated by hand, on a tiny network. Needs PyTorch."""

import copy
import importlib.util
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import BackboneError, OptionError
from headstart.finetune import FineTuning
from headstart.finetune.mixing import Mix, drawn
from headstart.finetune.schedule import rate_at
from headstart.heads.descent import class_weights
from headstart.preprocess import Preprocess

INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "timm", "accelerate", "tensorboard"))
if INSTALLED:
    import torch
    from torch.nn.functional import cross_entropy

    from headstart.finetune import checkpoint, loop
    from headstart.finetune.freeze import STATISTICS, plan
    from headstart.finetune.loop import Epoch, State, answers, moving, optimiser, stopped, train
    from headstart.finetune.network import Layer
    from headstart.finetune.pictures import Pictures
    from headstart.finetune.precision import Arithmetic, chosen

needs_torch = [
    pytest.mark.zoo,
    pytest.mark.filterwarnings("ignore"),
    pytest.mark.skipif(not INSTALLED, reason="needs torch, timm, accelerate and tensorboard (make zoo installs them)"),
]
SIDE, COUNT = 8, 12
PLAIN = {"augmentation": "none", "precision": "fp32", "clip": 0.0, "l2_sp": 0.0, "warm_up": 0.0, "batch": COUNT}


def zoo(test):
    for mark in needs_torch:
        test = mark(test)
    return test


# What needs no PyTorch.


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


# A tiny network: three stages of a convolution and a batch norm, and a head.


def tiny():
    torch.manual_seed(0)
    torch.set_num_threads(1)

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for stage, (inner, outer) in enumerate(((3, 4), (4, 5), (5, 6))):
                self.add_module(f"conv{stage}", torch.nn.Conv2d(inner, outer, 3, stride=2, padding=1))
                self.add_module(f"norm{stage}", torch.nn.BatchNorm2d(outer))
                getattr(self, f"norm{stage}").running_mean.normal_()
            self.head = torch.nn.ParameterDict({"weights": torch.randn(6, 2) / 3, "bias": torch.zeros(2)})
            self.backbone = SimpleNamespace(preprocess=Preprocess(SIDE, SIDE, crop=1.0), id="tiny")
            self.taps, self.stages = ("conv0", "conv1"), 3
            self.layers = tuple(
                Layer(f"{kind}{stage}", stage, (f"{kind}{stage}.weight", f"{kind}{stage}.bias"))
                for stage in range(3)
                for kind in ("conv", "norm")
            )

        def vectors(self, pixels):
            x = pixels.float().permute(0, 3, 1, 2) / 64 - 1
            for stage in range(3):
                x = torch.relu(getattr(self, f"norm{stage}")(getattr(self, f"conv{stage}")(x)))
            return x.mean((2, 3)).float()

        def scores(self, vectors):
            return vectors @ self.head["weights"] + self.head["bias"]

        def forward(self, pixels):
            return self.scores(self.vectors(pixels))

    return Tiny().eval()


PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3)).astype(np.uint8)
LABELS = np.array([0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0])


def pictures():
    made = Pictures(SimpleNamespace(read=lambda i: PIXELS[i]), range(COUNT), Preprocess(SIDE, SIDE, crop=1.0), 1)
    np.testing.assert_array_equal(made(3), PIXELS[3])
    return made


def machine(index=0, count=1):
    """What the loop asks of an Accelerator."""
    return SimpleNamespace(
        device=torch.device("cpu"), process_index=index, num_processes=count, mixed_precision="no"
    )  # fmt: skip


def ran(network, how, state=None, kept_back=(), after=None, free=None):
    """The plan and the epochs of a training; ``after`` is called after each epoch."""
    free, epochs = free or plan(network, how), []
    state = state or State()
    back = np.array(kept_back, np.int64)
    rows = np.setdiff1d(np.arange(COUNT), back)
    for epoch in train(network, free, pictures(), LABELS, rows, back, 2, how, 0, machine(), state):
        epochs.append(epoch)
        if after:
            after(network, free, state)
    return free, epochs


def values(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def slopes(network, how, weights=None):
    """Gradients of the mean loss on all pictures, in inference mode, by autograd alone."""
    other = copy.deepcopy(network).eval()
    for parameter in other.parameters():
        parameter.requires_grad_(True)
    truth = torch.from_numpy(LABELS)
    each = cross_entropy(other(torch.from_numpy(PIXELS)), truth, reduction="none", label_smoothing=how.label_smoothing)
    (each if weights is None else each * weights[truth]).mean().backward()
    return {name: parameter.grad for name, parameter in other.named_parameters()}


def close(found, wanted, **how):
    torch.testing.assert_close(found, wanted, **{"rtol": 1e-4, "atol": 1e-6, **how})


@zoo
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


@zoo
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


@zoo
def test_warm_up_and_cosine_reach_every_group():
    how = FineTuning(unfreeze_from="conv1", layer_decay=0.5, rate=0.02, epochs=4,
                     **{**PLAIN, "warm_up": 0.5, "batch": 6})  # fmt: skip
    seen = []
    ran(tiny(), how, after=lambda network, free, state: seen.append([g["lr"] for g in state.optimiser.param_groups]))
    # Eight steps, four of them a rise; an epoch's last are steps 1, 3, 5 and 7.
    shares = [0.5, 1.0, 0.5 * (1 + np.cos(np.pi / 4)), 0.5 * (1 + np.cos(3 * np.pi / 4))]
    np.testing.assert_allclose(seen, [[0.01 * share, 0.02 * share] for share in shares])


@zoo
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


@zoo
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


@zoo
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


@zoo
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


@zoo
def test_gradual_unfreezing_frees_a_stage_an_epoch():
    how = FineTuning(unfreeze_from="all", gradual=True, epochs=4, rate=0.05, ema=0.5, batch_norm="update",
                     **{**PLAIN, "l2_sp": 0.1})  # fmt: skip
    network = tiny()
    seen, before = [values(network)], values(network)

    def note(network, free, state):
        seen.append(values(network))

    free, _ = ran(network, how, after=note)
    assert {name: free.depth[name] for name in ("head.bias", "conv2.bias", "norm1.weight", "conv0.weight")} == {
        "head.bias": 0, "conv2.bias": 0, "norm1.weight": 1, "conv0.weight": 2
    }  # fmt: skip
    for epoch in range(1, 5):
        for name in before:
            stage = 2 if name.startswith("head") else int(name.split(".")[0][-1])
            learns = stage >= 3 - epoch
            assert torch.equal(seen[epoch][name], seen[epoch - 1][name]) != learns, (epoch, name)
    # What never was unfrozen is checked as frozen.
    short = tiny()
    ran(short, replace(how, epochs=1))
    assert all(torch.equal(short.state_dict()[n], v) for n, v in before.items() if n[4:5] in "01" and n[:4] != "head")


@zoo
def test_a_stage_that_changes_before_its_epoch_is_caught():
    network = tiny()

    def plant(network, free, state):
        with torch.no_grad():
            network.conv0.weight[0, 0, 0, 0] += 1e-6

    how = FineTuning(unfreeze_from="all", gradual=True, epochs=2, **PLAIN)
    with pytest.raises(BackboneError, match=r"frozen tensor conv0\.weight changed"):
        ran(network, how, after=plant)
    ran(tiny(), replace(how, gradual=False), after=plant)  # there it is free to change


@zoo
@pytest.mark.parametrize(
    "name", ["norm0.running_mean", "norm0.num_batches_tracked", "conv0.weight", "norm1.running_var"]
)
def test_a_planted_change_of_one_bit_ends_the_run(name):
    network = tiny()

    def plant(network, free, state):
        value = network.state_dict()[name]
        flat = value.view(-1)
        if value.dtype == torch.float32:
            flat[0] = torch.nextafter(flat[0], flat[0] + 1)
        else:
            flat[0] += 1

    with pytest.raises(BackboneError, match=f"{name} changed in training; the run is void"):
        ran(network, FineTuning(unfreeze_from="conv1", epochs=1, **PLAIN), after=plant)


@zoo
def test_batch_norms_follow_their_batches_only_where_unfrozen_and_asked_for():
    how = FineTuning(unfreeze_from="conv1", epochs=1, batch_norm="update", **PLAIN)
    network = tiny()
    before = values(network)
    with torch.no_grad():  # what reaches norm1: norm0 infers, from conv1 on it is the batch's own
        order = np.random.default_rng([0, 1]).permutation(COUNT)
        x = torch.from_numpy(PIXELS[order]).float().permute(0, 3, 1, 2) / 64 - 1
        inner = network.conv1(torch.relu(network.norm0(network.conv0(x))))
    ran(network, how)
    close(network.norm1.running_mean, 0.9 * before["norm1.running_mean"] + 0.1 * inner.mean((0, 2, 3)))
    unbiased = inner.transpose(0, 1).reshape(5, -1).var(1)
    close(network.norm1.running_var, 0.9 * before["norm1.running_var"] + 0.1 * unbiased)
    assert int(network.norm2.num_batches_tracked) == 1
    for each in STATISTICS:
        assert torch.equal(network.state_dict()[f"norm0.{each}"], before[f"norm0.{each}"])
    still = tiny()
    ran(still, replace(how, batch_norm="frozen"))
    for name, value in before.items():
        if name.rpartition(".")[2] in STATISTICS:
            assert torch.equal(still.state_dict()[name], value)
    assert not any(module.training for module in network.modules())


@zoo
def test_the_average_is_the_one_made_by_hand():
    how = FineTuning(unfreeze_from="conv2", epochs=6, rate=0.05, ema=0.3, **PLAIN)
    kept = []
    network = tiny()
    free, _ = ran(network, how, after=lambda network, free, state: kept.append(values(network)))
    for name in free.free:
        average = kept[0][name]
        for step, value in enumerate(kept):
            decay = min(0.3, (1 + step) / (10 + step))
            average = decay * average + (1 - decay) * value[name]
        close(network.state_dict()[name], average)
        assert not torch.equal(average, kept[-1][name])


@zoo
@given(st.lists(st.floats(0, 9), max_size=12), st.integers(1, 4))
def test_patience_is_spent_when_the_lowest_loss_is_that_old(losses, patience):
    state = State([Epoch(i + 1, 0.0, 0.5, (0, 1), loss, 0.5, 0.1, 1.0) for i, loss in enumerate(losses)])
    lowest, since = np.inf, 0
    for loss in losses:
        lowest, since = (loss, 0) if loss < lowest else (lowest, since + 1)
    assert stopped(state, FineTuning(patience=patience)) == (since >= patience)
    assert not stopped(state, FineTuning())


@zoo
def test_patience_ends_the_training_and_takes_the_best_weights():
    how = FineTuning(unfreeze_from="all", epochs=40, rate=0.3, optimiser="sgd", patience=2, **PLAIN)
    network, back = tiny(), [0, 3, 7]
    _, epochs = ran(network, how, kept_back=back)
    losses = [epoch.kept_back_loss for epoch in epochs]
    assert len(epochs) < 40
    assert len(losses) - 1 - int(np.argmin(losses)) == 2
    scores = torch.from_numpy(answers(network, pictures(), np.array(back), 4, machine())[0])
    truth = torch.from_numpy(LABELS[back])
    assert float(cross_entropy(scores, truth)) == pytest.approx(min(losses), rel=1e-6)
    assert losses[-1] > min(losses)


@zoo
def test_it_stops_at_the_accuracy_asked_for():
    how = FineTuning(unfreeze_from="all", epochs=200, rate=0.01, stop_at_accuracy=0.9, **PLAIN)
    _, epochs = ran(tiny(), how)
    assert 1 < len(epochs) < 200
    assert all(epoch.accuracy < 0.9 for epoch in epochs[:-1])
    assert epochs[-1].accuracy >= 0.9


@zoo
@pytest.mark.parametrize(
    "more",
    [
        {}, {"gradual": True}, {"optimiser": "sgd", "mixup": 0.5, "batch_norm": "update"},
        {"ema": 0.9, "optimiser": "rmsprop"}, {"precision": "bf16", "cutmix": 0.5},
        {"precision": "fp16", "gradual": True},
    ],
)  # fmt: skip
def test_a_training_left_after_any_epoch_goes_on_as_if_it_had_not_been(more, tmp_path):
    how = FineTuning(unfreeze_from="all", epochs=4, rate=0.01, **{**PLAIN, "batch": 5, "l2_sp": 0.01, **more})
    whole = tiny().to(memory_format=torch.channels_last)
    _, wanted = ran(whole, how)

    class Left(Exception):
        pass

    for stop in (1, 2, 3):
        network, state = tiny().to(memory_format=torch.channels_last), State()

        def leave(network, free, state, stop=stop):
            if len(state.history) == stop:
                checkpoint.write(tmp_path, "x", state.tensors(network, free), {**state.said(), "settings": "s"})
                raise Left

        with pytest.raises(Left):
            ran(network, how, state, after=leave)
        network = tiny().to(memory_format=torch.channels_last)
        free = plan(network, how)
        state = State(optimiser=optimiser(network, free, how))
        state.restore(network, *checkpoint.read(tmp_path, "x", "s"))
        _, rest = ran(network, how, state, free=free)
        assert [epoch.loss for epoch in rest] == [epoch.loss for epoch in wanted[stop:]]
        for name, value in whole.state_dict().items():
            assert torch.equal(network.state_dict()[name], value), (stop, name)


@zoo
def test_low_precision_learns_nearly_the_same_and_evaluates_exactly_the_same():
    how = FineTuning(unfreeze_from="all", epochs=1, rate=0.1, optimiser="sgd", layer_decay=1.0, **PLAIN)
    steps = {}
    for precision in ("fp32", "bf16", "fp16"):
        network = tiny()
        before = values(network)
        told = answers(network, pictures(), np.arange(COUNT), 5, machine())[0]
        state = State()
        ran(network, replace(how, precision=precision), state)
        steps[precision] = torch.cat([(network.state_dict()[n] - before[n]).reshape(-1) for n in slopes(network, how)])
        assert all(value.dtype == torch.float32 for value in moving(network, plan(network, how)).values())
        assert (state.scale == {}) == (precision != "fp16")
        with torch.no_grad():
            np.testing.assert_array_equal(told, answers(tiny(), pictures(), np.arange(COUNT), 5, machine())[0])
    for precision in ("bf16", "fp16"):
        assert 0 < (steps[precision] - steps["fp32"]).norm() < 0.05 * steps["fp32"].norm()


@zoo
def test_scaling_keeps_gradients_that_fp16_cannot_hold_and_skips_what_overflows():
    weight = torch.nn.Parameter(torch.ones(2))
    arithmetic = Arithmetic.of("fp16", "cpu")
    descent = torch.optim.SGD([weight], lr=1.0)
    tiny_slope = 1e-8  # less than the smallest number of fp16, 6e-8
    with arithmetic.autocast():
        held = (weight.half() * torch.tensor([tiny_slope, 0.0]).float()).sum()
    arithmetic.backward(held)
    arithmetic.unscaled(descent)
    assert float(weight.grad[0]) == pytest.approx(tiny_slope, rel=0.01)
    arithmetic.step(descent)
    before, scale = weight.detach().clone(), arithmetic.scaler.get_scale()
    descent.zero_grad()
    arithmetic.backward((weight.half() * 60000).sum())
    arithmetic.unscaled(descent)
    arithmetic.step(descent)
    assert torch.equal(weight, before)
    assert arithmetic.scaler.get_scale() == scale / 2


@zoo
def test_auto_is_what_the_machine_multiplies_itself_or_what_accelerate_was_told(monkeypatch):
    from headstart.finetune import precision

    for has in (True, False):
        monkeypatch.setattr(precision, "has_bf16", lambda has=has: has)
        assert chosen("auto", machine()) == ("bf16" if has else "fp32")
        assert chosen("fp32", machine()) == "fp32"
        told = machine()
        told.mixed_precision = "fp16"
        assert (chosen("auto", told), chosen("bf16", told)) == ("fp16", "bf16")


@zoo
def test_event_files_hold_the_epochs_and_a_resumed_run_writes_over_what_it_repeats(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from headstart.finetune.board import board

    def epoch(number, loss):
        return Epoch(number, loss, 0.5, (0.4, 0.6), None, None, 0.1, 1.5)

    with board(tmp_path, "fold-1-of-3", 0) as enter:
        for number in (1, 2, 3):
            enter(epoch(number, 1.0 / number))
    with board(tmp_path, "fold-1-of-3", 1) as enter:  # killed after the first checkpoint
        for number in (2, 3):
            enter(epoch(number, 2.0))
    found = EventAccumulator(str(tmp_path / "fold-1-of-3")).Reload()
    assert [(e.step, e.value) for e in found.Scalars("loss")] == [(1, 1.0), (2, 2.0), (3, 2.0)]
    assert set(found.Tags()["scalars"]) == {"loss", "accuracy", "rate", "seconds"}
    (tmp_path / "file").write_text("")
    with pytest.raises(OptionError, match="cannot hold event files"), board(tmp_path / "file", "x", 0):
        pass
