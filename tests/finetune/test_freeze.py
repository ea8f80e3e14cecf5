"""What is trained and what is not. Needs PyTorch."""

from dataclasses import replace

import numpy as np
import pytest
from helpers.finetuning import fit_timm, network_of
from helpers.tiny_network import INSTALLED, PLAIN, copy_tensors, run_training, tiny_network, torch_test

from headstart import backbones
from headstart.errors import BackboneError, OptionError
from headstart.finetune import FineTuneConfig
from headstart.heads.head import Head

if INSTALLED:
    import torch

    from headstart.finetune.freeze import TrainingPlan, check_frozen, first_trained_layer, make_plan
    from headstart.finetune.network import Network


@torch_test
@pytest.mark.parametrize(("id", "last"), [("headstart-m", "blocks.6.0.project"), ("headstart-s", "stage5.3.project")])
def test_the_stages_of_a_built_in_network_are_the_parts_between_its_taps(id, last):
    backbone = backbones.load(id)
    channels = sum(tap.channels for tap in backbone.taps[-1:])
    head = Head("ridge", ("features",), np.zeros((channels, 2), np.float32), np.zeros(2, np.float32), 1.0)
    network = Network(backbone, None, head)
    assert network.stages == len(backbone.taps) == 5
    stages = [layer.stage for layer in network.layers]
    assert stages == sorted(stages)
    names = [layer.name for layer in network.layers]
    assert stages[names.index(last)] == 3  # the last layer before stage5's end
    assert stages[names.index(last) + 1] == 4
    assert first_trained_layer(network, "features") == names.index(last) + 1
    by_default = first_trained_layer(network, None)
    assert stages[by_default - 1 : by_default + 1] == [2, 3]
    assert first_trained_layer(network, "stage5") == by_default


@torch_test
def test_layers_are_trained_from_the_named_one_on_and_all_others_are_checked(photos, tmp_path):
    network = network_of(fit_timm(photos, tmp_path))
    names = [layer.name for layer in network.layers]
    assert names[0].startswith("conv1")
    assert first_trained_layer(network, "all") == first_trained_layer(network, 0) == 0
    first = first_trained_layer(network, "layer3")
    assert names[first].startswith("layer3.")
    assert not names[first - 1].startswith("layer3.")
    plan = make_plan(network, FineTuneConfig(unfreeze_from="layer3", layer_decay=0.5))
    body = [name for name in plan.lr_scales if name.startswith("body.")]
    assert all(name.startswith(("body.network.layer3", "body.network.layer4")) for name in body)
    assert {p.requires_grad for name, p in network.named_parameters() if "layer2" in name} == {False}
    assert plan.lr_scales["head.bias"] == 1.0
    for bad in ("layer9", 10_000):
        with pytest.raises(OptionError):
            first_trained_layer(network, bad)
    assert check_frozen(network, plan) > 10
    statistic = dict(network.named_buffers())["body.network.layer4.0.bn1.running_mean"]
    statistic[0] = float(np.nextafter(np.float32(statistic[0]), np.float32(9)))  # one bit
    with pytest.raises(BackboneError, match=r"layer4\.0\.bn1\.running_mean changed"):
        check_frozen(network, plan)


@torch_test
def test_gradual_unfreezing_trains_one_more_stage_in_each_epoch():
    config = FineTuneConfig(
        unfreeze_from="all",
        gradual=True,
        epochs=4,
        learning_rate=0.05,
        ema=0.5,
        batch_norm="update",
        **{**PLAIN, "l2_sp": 0.1},
    )
    network = tiny_network()
    initial = copy_tensors(network)
    tensors_by_epoch = [initial]
    plan, _ = run_training(
        network, config, after_epoch=lambda network, plan, state: tensors_by_epoch.append(copy_tensors(network))
    )
    assert plan.depths["head.bias"] == 0
    assert plan.depths["conv2.bias"] == 0
    assert plan.depths["norm1.weight"] == 1
    assert plan.depths["conv0.weight"] == 2
    for epoch in range(1, 5):
        for name in initial:
            stage = 2 if name.startswith("head") else int(name.split(".")[0][-1])
            is_trained = stage >= 3 - epoch
            is_equal = torch.equal(tensors_by_epoch[epoch][name], tensors_by_epoch[epoch - 1][name])
            assert is_equal != is_trained, (epoch, name)
    # What never was unfrozen is checked as frozen.
    short = tiny_network()
    run_training(short, replace(config, epochs=1))
    for name, value in initial.items():
        if name[4:5] in "01" and not name.startswith("head"):
            assert torch.equal(short.state_dict()[name], value)


@torch_test
def test_a_stage_that_changes_before_its_epoch_is_detected():
    def plant(network, plan, state):
        with torch.no_grad():
            network.conv0.weight[0, 0, 0, 0] += 1e-6

    config = FineTuneConfig(unfreeze_from="all", gradual=True, epochs=2, **PLAIN)
    with pytest.raises(BackboneError, match=r"frozen tensor conv0\.weight changed"):
        run_training(tiny_network(), config, after_epoch=plant)
    run_training(tiny_network(), replace(config, gradual=False), after_epoch=plant)  # there it is trained


@torch_test
@pytest.mark.parametrize(
    "name", ["norm0.running_mean", "norm0.num_batches_tracked", "conv0.weight", "norm1.running_var"]
)
def test_a_planted_change_of_one_bit_ends_the_run(name):
    def plant(network, plan, state):
        value = network.state_dict()[name]
        flat = value.view(-1)
        if value.dtype == torch.float32:
            flat[0] = torch.nextafter(flat[0], flat[0] + 1)
        else:
            flat[0] += 1

    config = FineTuneConfig(unfreeze_from="conv1", epochs=1, **PLAIN)
    with pytest.raises(BackboneError, match=f"{name} changed in training; the run is void"):
        run_training(tiny_network(), config, after_epoch=plant)


@torch_test
def test_a_batch_norm_without_a_scale_follows_its_batches_once_its_bias_is_trained():
    lr_scales, depths = {"a.bias": 1.0, "b.weight": 1.0}, {"a.bias": 1, "b.weight": 0}
    plan = TrainingPlan(lr_scales, depths, {}, ("a", "b"), "a")
    assert [plan.at_epoch(epoch).batch_norms for epoch in (1, 2)] == [("b",), ("a", "b")]
