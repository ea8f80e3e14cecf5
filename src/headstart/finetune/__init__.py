"""Fine-tuning: train layers of the backbone in PyTorch. The resulting model needs no PyTorch.

options.py       FineTuneConfig: the options
run.py           fine_tune: cross-validation, the decision, the final model
time_limit.py    how long it will take, and how many epochs fit into a time limit
frozen_fit.py    the fit to start from, of one class an image or of several labels
verdict.py       folds, interpolation weights, and whether fine-tuning is better than the frozen model
label_verdict.py the same decision for several labels an image
network.py       Network: backbone and head as a torch module, and back to an ONNX backbone
graph_weights.py the weights of a network of timm, written into the graph of the frozen one
graph_module.py  the graph of a built-in backbone as a torch module, and back
keras_module.py  a Keras network as a torch module of its layers
freeze.py        which tensors are trained, how fast, and the check that the others did not change
folding.py       batch norms that keep their statistics, computed within the convolutions before them
loop.py          the training loop
losses.py        the loss of an image
gradients.py     the gradients of a batch; on CUDA recorded once and replayed
pull.py          the pull towards the initial weights
schedule.py      the learning rate by step
precision.py     mixed precision
image_loader.py  decoding once, and augmenting in threads
device_images.py batches on the device, which an accelerator augments and mixes itself
mixing.py        mixup and cutmix
checkpoint.py    checkpoints: safetensors and JSON
tensorboard.py   event files

All but options.py, checkpoint.py, schedule.py, mixing.py, verdict.py and image_loader.py import PyTorch (extra
``torch``; networks of Keras need ``keras`` too).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING, TypeVar

from headstart.errors import BackboneError, OptionError, missing_extra
from headstart.finetune.checkpoint import check_no_checkpoints
from headstart.finetune.options import FineTuneConfig, parse_tuning

if TYPE_CHECKING:
    from headstart.classifier import FitResult, MultiLabelFitResult

AnyFitResult = TypeVar("AnyFitResult", "FitResult", "MultiLabelFitResult")

__all__ = [
    "FineTuneConfig",
    "check_class_weights",
    "check_fine_tuning",
    "fine_tune",
    "is_main_process",
    "parse_tuning",
    "start_device",
]

EXTRAS = {"headstart-s": ("torch",), "headstart-m": ("torch",), "timm": ("torch", "timm"), "keras": ("torch", "keras")}
PACKAGES = {"torch": "PyTorch", "accelerate": "Accelerate", "keras": "Keras"}


def check_fine_tuning(backbone: str, config: FineTuneConfig) -> None:
    """Check, before any work, that a backbone, given by its id, can be fine-tuned here as ``config`` says.

    Raises BackboneError for one whose layers cannot be trained, MissingExtraError where a package is not installed,
    OptionError where an earlier run has left checkpoints and is not to be resumed.
    """
    provider = backbone.partition(":")[0]
    if provider not in EXTRAS:
        raise BackboneError(
            f"{backbone} cannot be fine-tuned: its graph is fixed; use the same network as timm:NAME or keras:NAME "
            "with --weights FILE, or a built-in one."
        )
    needed = ["torch", "accelerate"] + ["keras"] * (provider == "keras")
    missing = [PACKAGES[name] for name in needed if find_spec(name) is None]
    if missing:
        raise missing_extra(f"Fine-tuning {backbone} needs {' and '.join(missing)}", *EXTRAS[provider])
    if config.checkpoints is not None and not config.resume:
        check_no_checkpoints(config.checkpoints)


def check_class_weights(config: FineTuneConfig, *, is_multi_label: bool) -> None:
    """Raise OptionError for class weights where images may have several labels."""
    if config.class_weights and is_multi_label:
        raise OptionError("Class weights are for one class an image, and these may have several labels; drop them.")


def start_device() -> None:
    """Load PyTorch and start CUDA, which takes seconds; for a thread of its own, while images are read.

    Of several processes each has another device, which Accelerate tells later: there nothing is started.
    """
    with suppress(Exception):  # it fails again, with its reason, where it is needed
        import torch

        if torch.cuda.is_available() and "LOCAL_RANK" not in os.environ:
            images = torch.ones(1, 8, 8, 8, device="cuda", requires_grad=True)
            torch.nn.functional.conv2d(images, torch.ones(8, 8, 3, 3, device="cuda")).sum().backward()
            (images.reshape(64, 8) @ images.reshape(8, 64)).sum().backward()


def is_main_process() -> bool:
    """Return whether this process is the one that writes, of several that ``accelerate launch`` started."""
    if find_spec("accelerate") is None:
        return True
    from accelerate import PartialState

    return bool(PartialState().is_main_process)


def fine_tune(
    result: AnyFitResult, config: FineTuneConfig | None = None, *, log: Callable[[str], None] | None = None
) -> AnyFitResult:
    """Train layers of a fit's backbone further; return a new result of the same kind.

    Its model is the fine-tuned one if that is better than the frozen one on images held out, otherwise the frozen one;
    ``run.json`` tells which and why. The two are compared without the class weights, costs and thresholds of the fit,
    which the model then has; of several labels an image the log-loss decides, in the place of the accuracy. ``log``
    receives lines of text: one for each epoch, and the decision. Raises BackboneError, DataError, OptionError,
    ModelError, MissingExtraError.
    """
    from headstart.classifier import FitResult, MultiLabelFitResult

    if not isinstance(result, FitResult | MultiLabelFitResult):
        raise OptionError(
            "Fine-tuning continues a fit: give the result of fit_dataset, or result_ of a classifier after its fit; "
            "a model that was loaded has no training images."
        )
    config = config or FineTuneConfig()
    check_class_weights(config, is_multi_label=isinstance(result, MultiLabelFitResult))
    check_fine_tuning(result.options.backbone, config)
    if config.class_weights and result.options.class_weight is not None:
        raise OptionError(
            "Classes would be weighted twice, in the training and after it; leave one of the two weights out."
        )
    from headstart.finetune.run import run

    return run(result, config, log or (lambda _: None))
