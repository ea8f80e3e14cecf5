"""Batch norms folded into convolutions, against the network as it is. Needs PyTorch."""

import copy

import numpy as np
import pytest
from helpers.tiny_network import INSTALLED, PIXELS, assert_close, tiny_network, torch_test

if INSTALLED:
    import torch

    from headstart.finetune.folding import fold_batch_norms, unfold


def gradients_of(network, pixels):
    network.zero_grad()
    scores = network(pixels)
    scores.square().sum().backward()
    return scores.detach(), {name: parameter.grad.clone() for name, parameter in network.named_parameters()}


def assert_equal_but_for_rounding(plain, folded, pixels):
    (scores, gradients), (folded_scores, folded_gradients) = gradients_of(plain, pixels), gradients_of(folded, pixels)
    assert_close(folded_scores, scores, rtol=1e-4, atol=1e-5)
    for name, value in gradients.items():
        assert (folded_gradients[name] - value).norm() <= 1e-4 * value.norm() + 1e-5, name


@torch_test
@pytest.mark.parametrize("name", ["resnet10t", "mobilenetv2_050?same"])
def test_values_and_gradients_of_all_parameters_are_those_of_the_unfolded_network(name):
    """timm's batch norms have an activation behind them; its convolutions may pad themselves."""
    import timm

    torch.manual_seed(0)
    architecture, _, padding = name.partition("?")
    plain = timm.create_model(architecture, num_classes=3, **({"pad_type": padding} if padding else {})).eval()
    for module in plain.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    folded = copy.deepcopy(plain)
    images = torch.randn(2, 3, 64, 64)
    names = [name for name, module in plain.named_modules() if isinstance(module, torch.nn.BatchNorm2d)]
    norms = fold_batch_norms(folded, lambda: folded(images))
    assert sorted(norms.values()) == sorted(names)
    assert len(names) > 10
    for convolution, norm in norms.items():  # they are as wide as each other
        assert len(plain.get_submodule(convolution).weight) == len(plain.get_submodule(norm).weight)
    assert_equal_but_for_rounding(plain, folded, images)


@torch_test
def test_a_batch_norm_in_training_follows_its_batch():
    pixels = torch.from_numpy(PIXELS)
    plain, folded = tiny_network(), tiny_network()
    fold_batch_norms(folded, lambda: folded(pixels))
    for network in (plain, folded):
        network.norm1.train()
    assert_equal_but_for_rounding(plain, folded, pixels)
    assert_close(folded.norm1.running_mean, plain.norm1.running_mean)
    assert int(folded.norm1.num_batches_tracked) == 1


@torch_test
def test_unfolded_every_layer_runs_by_itself():
    pixels, network = torch.from_numpy(PIXELS), tiny_network()
    expected, tensors = network(pixels).detach(), copy.deepcopy(network.state_dict())
    fold_batch_norms(network, lambda: network(pixels))
    unfold(network)
    assert torch.equal(network(pixels), expected)
    assert network.state_dict().keys() == tensors.keys()
    assert not any("forward" in vars(module) for module in network.modules())


@torch_test
@pytest.mark.parametrize("case", ["used twice", "not behind a convolution"])
def test_what_is_not_the_same_function_is_not_folded(case):
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution, self.norm = torch.nn.Conv2d(3, 3, 1), torch.nn.BatchNorm2d(3)
            self.norm.running_mean.fill_(2.0)

        def forward(self, x):
            maps = self.convolution(x)
            return self.norm(maps) + maps if case == "used twice" else self.norm(torch.relu(maps))

    network, x = Network().eval(), torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, 4, 4))).float()
    expected = network(x).detach()
    assert fold_batch_norms(network, lambda: network(x)) == {}
    assert torch.equal(network(x), expected)
