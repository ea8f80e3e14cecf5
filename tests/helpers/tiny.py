"""A tiny network for the tests of fine-tuning: three stages of a convolution and a batch norm, and a head."""

import copy
import importlib.util
from types import SimpleNamespace

import numpy as np

from headstart.images.preprocess import Preprocess
from helpers.frameworks import marked

MODULES = ("torch", "timm", "accelerate", "tensorboard")
INSTALLED = all(importlib.util.find_spec(name) for name in MODULES)
if INSTALLED:
    import torch
    from torch.nn.functional import cross_entropy

    from headstart.finetune.freeze import plan
    from headstart.finetune.image_loader import Images
    from headstart.finetune.loop import State, train
    from headstart.finetune.network import Layer

torch_test = marked(*MODULES)
SIDE, COUNT = 8, 12
PLAIN = {"augmentation": "none", "precision": "fp32", "clip": 0.0, "l2_sp": 0.0, "warm_up": 0.0, "batch": COUNT}


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


def images():
    made = Images(SimpleNamespace(read=lambda i: PIXELS[i]), range(COUNT), Preprocess(SIDE, SIDE, crop=1.0), 1)
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
    for epoch in train(network, free, images(), LABELS, rows, back, 2, how, 0, machine(), state):
        epochs.append(epoch)
        if after:
            after(network, free, state)
    return free, epochs


def values(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def slopes(network, how, weights=None):
    """Gradients of the mean loss on all images, in inference mode, by autograd alone."""
    other = copy.deepcopy(network).eval()
    for parameter in other.parameters():
        parameter.requires_grad_(True)
    truth = torch.from_numpy(LABELS)
    each = cross_entropy(other(torch.from_numpy(PIXELS)), truth, reduction="none", label_smoothing=how.label_smoothing)
    (each if weights is None else each * weights[truth]).mean().backward()
    return {name: parameter.grad for name, parameter in other.named_parameters()}


def close(found, wanted, **how):
    torch.testing.assert_close(found, wanted, **{"rtol": 1e-4, "atol": 1e-6, **how})
