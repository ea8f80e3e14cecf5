"""Fits, networks and verdicts for the tests of fine-tuning."""

import json
from dataclasses import replace

from headstart.backbones import InputOptions
from headstart.classifier import FitOptions, fit_dataset
from headstart.data import open_dataset
from headstart.features import Compute
from headstart.finetune.label_verdict import compare_labels_to_frozen
from headstart.finetune.verdict import compare_to_frozen
from helpers.frameworks import timm_network


def fit_timm(data, folder):
    """A fit on a small ResNet of timm with random weights, which are written to ``folder``."""
    _, path = timm_network("resnet10t", 64, folder)
    options = FitOptions(
        backbone="timm:resnet10t",
        input_options=InputOptions(weights=str(path), size=(64, 64)),
        compute=Compute("onnxruntime"),
    )
    return fit_dataset(open_dataset(str(data)), options)


def network_of(result):
    """The trainable network of a fit."""
    import torch

    from headstart.finetune.network import Network

    torch.set_num_threads(1)
    return Network(result.data.backbone, result.options.input_options, result.selected.head)


def always_better(frozen, tuned, labels, *arguments):
    """Compare as ``compare_to_frozen`` does, and find the fine-tuned model better whatever the scores."""
    is_accuracy = labels.ndim == 1  # of several labels it is a loss
    compare, change = (compare_to_frozen, 0.1) if is_accuracy else (compare_labels_to_frozen, -0.1)
    verdict = compare(frozen, tuned, labels, *arguments)
    difference = replace(verdict.difference, difference=change, interval=(change, change / 2), p_value=0.0)
    return replace(verdict, difference=difference)


def checkpoint_tensors(folder):
    """The tensors of the last checkpoint of every training: the final weights, and the state of the optimizer."""
    from safetensors.torch import load_file

    files = {path.stem: json.loads(path.read_text("utf-8"))["tensors"] for path in folder.glob("*.json")}
    return {name: load_file(folder / file) for name, file in files.items()}
