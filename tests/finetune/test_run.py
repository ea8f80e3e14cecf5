"""Whole trainings of a tiny network: what may change and when, when they end, how they go on. Needs PyTorch."""

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
    machine,
    pictures,
    ran,
    slopes,
    tiny,
    torch_test,
    values,
)
from hypothesis import given
from hypothesis import strategies as st

from headstart.errors import BackboneError, OptionError
from headstart.finetune import FineTuning

if INSTALLED:
    import torch
    from torch.nn.functional import cross_entropy

    from headstart.finetune import checkpoint
    from headstart.finetune.freeze import STATISTICS, plan
    from headstart.finetune.loop import Epoch, State, answers, moving, optimiser, stopped
    from headstart.finetune.precision import Arithmetic, chosen


@torch_test
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


@torch_test
def test_a_stage_that_changes_before_its_epoch_is_caught():
    network = tiny()

    def plant(network, free, state):
        with torch.no_grad():
            network.conv0.weight[0, 0, 0, 0] += 1e-6

    how = FineTuning(unfreeze_from="all", gradual=True, epochs=2, **PLAIN)
    with pytest.raises(BackboneError, match=r"frozen tensor conv0\.weight changed"):
        ran(network, how, after=plant)
    ran(tiny(), replace(how, gradual=False), after=plant)  # there it is free to change


@torch_test
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


@torch_test
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


@torch_test
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


@torch_test
@given(st.lists(st.floats(0, 9), max_size=12), st.integers(1, 4))
def test_patience_is_spent_when_the_lowest_loss_is_that_old(losses, patience):
    state = State([Epoch(i + 1, 0.0, 0.5, (0, 1), loss, 0.5, 0.1, 1.0) for i, loss in enumerate(losses)])
    lowest, since = np.inf, 0
    for loss in losses:
        lowest, since = (loss, 0) if loss < lowest else (lowest, since + 1)
    assert stopped(state, FineTuning(patience=patience)) == (since >= patience)
    assert not stopped(state, FineTuning())


@torch_test
def test_patience_ends_the_training_and_takes_the_best_weights():
    how = FineTuning(unfreeze_from="all", epochs=40, rate=0.3, optimiser="sgd", patience=2, **PLAIN)
    network, back = tiny(), [0, 3, 7]
    _, epochs = ran(network, how, kept_back=back)
    losses = [epoch.validation_loss for epoch in epochs]
    assert len(epochs) < 40
    assert len(losses) - 1 - int(np.argmin(losses)) == 2
    scores = torch.from_numpy(answers(network, pictures(), np.array(back), 4, machine())[0])
    truth = torch.from_numpy(LABELS[back])
    assert float(cross_entropy(scores, truth)) == pytest.approx(min(losses), rel=1e-6)
    assert losses[-1] > min(losses)


@torch_test
def test_it_stops_at_the_accuracy_asked_for():
    how = FineTuning(unfreeze_from="all", epochs=200, rate=0.01, stop_at_accuracy=0.9, **PLAIN)
    _, epochs = ran(tiny(), how)
    assert 1 < len(epochs) < 200
    assert all(epoch.accuracy < 0.9 for epoch in epochs[:-1])
    assert epochs[-1].accuracy >= 0.9


@torch_test
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


@torch_test
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


@torch_test
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


@torch_test
def test_auto_is_what_the_machine_multiplies_itself_or_what_accelerate_was_told(monkeypatch):
    from headstart.finetune import precision

    for has in (True, False):
        monkeypatch.setattr(precision, "has_bf16", lambda has=has: has)
        assert chosen("auto", machine()) == ("bf16" if has else "fp32")
        assert chosen("fp32", machine()) == "fp32"
        told = machine()
        told.mixed_precision = "fp16"
        assert (chosen("auto", told), chosen("bf16", told)) == ("fp16", "bf16")


@torch_test
def test_event_files_hold_the_epochs_and_a_resumed_run_writes_over_what_it_repeats(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    from headstart.finetune.tensorboard import board

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
