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

    from headstart.finetune.freeze import make_plan
    from headstart.finetune.image_loader import ImageLoader
    from headstart.finetune.loop import State, Task, train
    from headstart.finetune.network import Layer

torch_test = marked(*MODULES)
SIDE, COUNT = 8, 12  # pixels, images
# Options without which a step can be computed by hand.
PLAIN = {"augmentation": "none", "precision": "fp32", "clip": 0.0, "l2_sp": 0.0, "warm_up": 0.0, "batch_size": COUNT}
PIXELS = np.random.default_rng(0).integers(0, 256, (COUNT, SIDE, SIDE, 3)).astype(np.uint8)
LABELS = np.array([0, 0, 0, 1, 1, 0, 0, 0, 1, 0, 0, 0])


def tiny_network():
    """The network, with the attributes of ``finetune.network.Network`` that training uses."""
    torch.manual_seed(0)
    torch.set_num_threads(1)

    class Tiny(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for stage, (inputs, outputs) in enumerate(((3, 4), (4, 5), (5, 6))):
                self.add_module(f"conv{stage}", torch.nn.Conv2d(inputs, outputs, 3, stride=2, padding=1))
                self.add_module(f"norm{stage}", torch.nn.BatchNorm2d(outputs))
                getattr(self, f"norm{stage}").running_mean.normal_()
            self.head = torch.nn.ParameterDict({"weights": torch.randn(6, 2) / 3, "bias": torch.zeros(2)})
            self.backbone = SimpleNamespace(preprocess=Preprocess(SIDE, SIDE, crop=1.0), id="tiny")
            self.provider, self.taps, self.stages = "tiny", ("conv0", "conv1"), 3
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


def fake_accelerator(process_index=0, num_processes=1):
    """What training reads of an Accelerator, on a processor."""
    return SimpleNamespace(
        device=torch.device("cpu"), process_index=process_index, num_processes=num_processes, mixed_precision="no"
    )


def tiny_task(network, config, accelerator=None, seed=0, labels=LABELS):
    """The task of training on ``PIXELS`` and ``labels``, of two classes or of two labels an image."""
    preprocess = Preprocess(SIDE, SIDE, crop=1.0)
    images = ImageLoader(SimpleNamespace(read=lambda index: PIXELS[index]), range(COUNT), preprocess, 1)
    np.testing.assert_array_equal(images.load(3), PIXELS[3])
    return Task(network, images, labels, 2, config, seed, accelerator or fake_accelerator())


def run_training(
    network, config, *, state=None, validation_rows=(), after_epoch=None, plan=None, held_out_rows=(), labels=LABELS
):
    """The plan and the epochs of a training; ``after_epoch(network, plan, state)`` is called after each epoch."""
    plan, epochs = plan or make_plan(network, config), []
    state = state or State()
    validation_rows = np.array(validation_rows, np.int64)
    train_rows = np.setdiff1d(np.arange(COUNT), validation_rows)
    held_out_rows = np.array(held_out_rows, np.int64)
    task = tiny_task(network, config, labels=labels)
    for epoch in train(task, plan, train_rows, validation_rows, state, held_out_rows):
        epochs.append(epoch)
        if after_epoch:
            after_epoch(network, plan, state)
    return plan, epochs


def copy_tensors(network):
    return {name: value.clone() for name, value in network.state_dict().items()}


def gradients(network, config, class_weights=None):
    """Gradients of the mean loss on all images, in inference mode, by autograd alone."""
    network = copy.deepcopy(network).eval()
    for parameter in network.parameters():
        parameter.requires_grad_(True)
    labels = torch.from_numpy(LABELS)
    scores = network(torch.from_numpy(PIXELS))
    losses = cross_entropy(scores, labels, reduction="none", label_smoothing=config.label_smoothing)
    (losses if class_weights is None else losses * class_weights[labels]).mean().backward()
    return {name: parameter.grad for name, parameter in network.named_parameters()}


def assert_close(actual, expected, **tolerances):
    torch.testing.assert_close(actual, expected, **{"rtol": 1e-4, "atol": 1e-6, **tolerances})
